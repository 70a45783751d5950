"""Reading images and label maps: values exactly as stored, defects in one line."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ciss_fast.data.image_files import check_class_ids, check_same_size, read_image, read_label_map, read_size
from ciss_fast.errors import DataError


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A grey PNG with ``bits`` bits per pixel; the width has to fill whole bytes."""
    height, width = values.shape
    per_byte = 8 // bits
    packed = np.zeros((height, width // per_byte), dtype=np.uint8)
    for place in range(per_byte):
        packed |= values[:, place::per_byte] << (8 - bits * (place + 1))
    rows = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_palette_and_grey_label_maps_give_the_stored_values(tmp_path, helpers):
    label = np.arange(256, dtype=np.uint8).reshape(8, 32)
    for palette in (True, False):
        helpers.label(tmp_path / "label.png", label, palette=palette)
        read = read_label_map(tmp_path / "label.png")
        assert read.dtype == np.uint8
        assert np.array_equal(read, label)
        assert not read.flags.writeable


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_label_maps_of_few_bits_are_not_stretched(tmp_path, bits):
    label = np.random.default_rng(0).integers(0, 2**bits, size=(5, 16), dtype=np.uint8)
    (tmp_path / "label.png").write_bytes(grey_png(label, bits))
    assert np.array_equal(read_label_map(tmp_path / "label.png"), label)


def test_sixteen_bit_label_map(tmp_path, one_line):
    label = np.array([[0, 7], [255, 20]], dtype=np.uint16)
    Image.fromarray(label).save(tmp_path / "label.png")
    assert np.array_equal(read_label_map(tmp_path / "label.png"), label)
    label[0, 1] = 300
    Image.fromarray(label).save(tmp_path / "label.png")
    with pytest.raises(DataError) as caught:
        read_label_map(tmp_path / "label.png")
    one_line(caught.value, tmp_path / "label.png", "300", "0 to 255")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_label_map_is_refused(tmp_path, one_line, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "label.png")
    with pytest.raises(DataError) as caught:
        read_label_map(tmp_path / "label.png")
    one_line(caught.value, tmp_path / "label.png", f"mode {mode}", "palette or single-channel")


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_images_of_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.new(mode, (6, 4)).save(path)
    image = read_image(path)
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert read_size(path) == (4, 6)


def test_missing_file(tmp_path, one_line):
    for read, kind in ((read_image, "image"), (read_label_map, "label map"), (read_size, "image")):
        with pytest.raises(DataError) as caught:
            read(tmp_path / "gone.png")
        one_line(caught.value, tmp_path / "gone.png", f"{kind} missing", "expected")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_cut_off_image(tmp_path, helpers, one_line, suffix, share):
    path = tmp_path / f"image.{suffix}"
    helpers.image(path, size=(60, 80))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError) as caught:
        read_image(path)
    one_line(caught.value, path, "expected", "got")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_cut_off_label_map(tmp_path, one_line, share):
    path = tmp_path / "label.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 21, size=(60, 80), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError) as caught:
        read_label_map(path)
    one_line(caught.value, path, "label map", "expected", "got")


def test_class_ids_outside_the_list(one_line):
    label = np.array([[0, 1, 255], [2, 9, 7]], dtype=np.uint8)
    check_class_ids("x.png", label, 10)
    with pytest.raises(DataError) as caught:
        check_class_ids("x.png", label, 7)
    one_line(caught.value, "x.png", "class id 7", "0 to 6")


def test_sizes_that_differ(one_line):
    check_same_size("x.jpg", (3, 4), "x.png", (3, 4))
    with pytest.raises(DataError) as caught:
        check_same_size("x.jpg", (3, 4), "x.png", (4, 3))
    one_line(caught.value, "x.png: label map is 3x4", "expected 4x3", "x.jpg")
