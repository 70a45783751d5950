"""The class-presence scan and its cache."""

import os
import shutil

import numpy as np
import pytest

from ciss_fast.data import build_dataset, class_presence, scan_classes
from ciss_fast.errors import DataError


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    return tmp_path / "user_cache" / "ciss_fast"


def scanned(dataset, *arguments):
    """Presence, and whether label maps were read for it."""
    calls = []
    presence = class_presence(dataset, *arguments, progress=lambda done, total: calls.append((done, total)))
    total = len(dataset)
    assert calls == [(done, total) for done in range(total - len(calls) + 1, total + 1)]
    return presence, len(calls)


def expected_presence():
    presence = np.zeros((3, 21), dtype=bool)
    presence[0, [0, 3]] = True
    presence[1, [20, 1]] = True
    presence[2, 0] = True
    return presence


def test_presence_and_cache_beside_the_data(voc_folder, user_cache):
    presence, read = scanned(build_dataset("voc", voc_folder))
    assert read == 3
    assert presence.dtype == np.bool_
    assert np.array_equal(presence, expected_presence())
    files = list((voc_folder / ".ciss_fast").iterdir())
    assert [file.suffix for file in files] == [".npz"]
    assert not user_cache.exists()
    presence, read = scanned(build_dataset("voc", voc_folder))
    assert not read
    assert np.array_equal(presence, expected_presence())


def test_cache_is_keyed_by_list_classes_and_label_files(voc_folder, helpers):
    dataset = build_dataset("voc", voc_folder)
    scanned(dataset)
    list_path = voc_folder / "ImageSets" / "Segmentation" / "train.txt"
    list_path.write_text("2007_c\n2007_b\n2007_a\n")
    presence, read = scanned(build_dataset("voc", voc_folder))
    assert read
    assert np.array_equal(presence, expected_presence()[::-1])
    path = voc_folder / "SegmentationClass" / "2007_c.png"
    helpers.label(path, helpers.halves(7, 7))
    presence, read = scanned(build_dataset("voc", voc_folder))
    assert read == 1  # the others have not changed
    assert presence[0].nonzero()[0].tolist() == [7]
    (voc_folder / "classes.txt").write_text("\n".join(f"{index} c{index}" for index in range(30)))
    presence, read = scanned(build_dataset("voc", voc_folder))
    assert read
    assert presence.shape == (3, 30)


def copied_without_times(folder, target):
    shutil.copytree(folder, target, copy_function=shutil.copyfile)
    for number, path in enumerate(sorted(target.rglob("*.png"))):
        os.utime(path, (number, number))
    return build_dataset("voc", target)


def test_data_copied_without_its_times_is_the_same(voc_folder, tmp_path):
    dataset = build_dataset("voc", voc_folder)
    scan = scan_classes(dataset)
    assert scan.fingerprint == scan_classes(dataset).fingerprint
    copy = copied_without_times(voc_folder, tmp_path / "copy")
    presence, read = scanned(copy)
    assert read == 0 and np.array_equal(presence, scan.presence)
    assert scan_classes(copy).fingerprint == scan.fingerprint
    shutil.rmtree(tmp_path / "copy" / ".ciss_fast")
    assert scanned(copy)[1] == 3
    assert scan_classes(copy).fingerprint == scan.fingerprint


@pytest.mark.parametrize("what", ["label", "size of a label", "image", "order", "class"])
def test_fingerprint_follows_the_content(voc_folder, helpers, what):
    before = scan_classes(build_dataset("voc", voc_folder)).fingerprint
    label = voc_folder / "SegmentationClass" / "2007_b.png"
    size, times = label.stat().st_size, label.stat()
    if what == "label":  # of the same size, another time
        helpers.label(label, helpers.halves(20, 2))
        assert label.stat().st_size == size
        os.utime(label, ns=(1, 1))
    elif what == "size of a label":  # of the same time
        helpers.label(label, np.random.default_rng(0).integers(0, 2, (24, 36)).astype(np.uint8))
        assert label.stat().st_size != size
        os.utime(label, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif what == "image":
        image = voc_folder / "JPEGImages" / "2007_b.jpg"
        image.write_bytes(image.read_bytes() + b"x")
    elif what == "order":
        (voc_folder / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_c\n2007_b\n2007_a\n")
    else:
        (voc_folder / "classes.txt").write_text("\n".join(f"{index} c{index}" for index in range(21)))
    assert scan_classes(build_dataset("voc", voc_folder)).fingerprint != before


def test_a_label_map_that_has_gone_is_named(voc_folder, one_line):
    dataset = build_dataset("voc", voc_folder)
    scanned(dataset)
    path = voc_folder / "SegmentationClass" / "2007_b.png"
    path.unlink()
    with pytest.raises(DataError) as caught:
        class_presence(dataset)
    one_line(caught.value, path, "missing")


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_damaged_cache_is_replaced(voc_folder, tmp_path, damage):
    dataset = build_dataset("voc", voc_folder)
    scanned(dataset)
    (file,) = (voc_folder / ".ciss_fast").iterdir()
    content = file.read_bytes()
    if damage == "other":
        with np.load(file) as stored:
            np.savez(file, **{**stored, "fingerprint": np.array("another"), "presence": np.ones((3, 21), dtype=bool)})
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no archive"}[damage])
    presence, read = scanned(dataset)
    assert read
    assert np.array_equal(presence, expected_presence())
    assert not scanned(dataset)[1]


class Watched:
    """A data set that notes which label maps are read, and is interrupted at one of them."""

    def __init__(self, dataset, stop_at=None):
        self.dataset, self.stop_at, self.read = dataset, stop_at, []

    def __len__(self):
        return len(self.dataset)

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def load_label(self, index):
        if index == self.stop_at:
            raise KeyboardInterrupt
        self.read.append(index)
        return self.dataset.load_label(index)


def test_an_interrupted_scan_goes_on_where_it_was(voc_folder):
    with pytest.raises(KeyboardInterrupt):
        class_presence(Watched(build_dataset("voc", voc_folder), stop_at=2))
    (file,) = (voc_folder / ".ciss_fast").iterdir()
    again, calls = Watched(build_dataset("voc", voc_folder)), []
    presence = class_presence(again, progress=lambda done, total: calls.append((done, total)))
    assert again.read == [2] and calls == [(3, 3)]
    assert np.array_equal(presence, expected_presence())
    assert [file] == list((voc_folder / ".ciss_fast").iterdir())
    assert not scanned(build_dataset("voc", voc_folder))[1]


def test_a_scan_is_saved_on_its_way(voc_folder, monkeypatch):
    monkeypatch.setattr("ciss_fast.data.scan._SECONDS_BETWEEN_SAVES", -1.0)
    dataset, sizes = build_dataset("voc", voc_folder), []

    def look(done, total):
        (file,) = (voc_folder / ".ciss_fast").iterdir()
        with np.load(file) as stored:
            sizes.append(int((stored["size"] >= 0).sum()))

    class_presence(dataset, progress=lambda done, total: look(done, total) if done > 1 else None)
    assert sizes[0] >= 1 and sizes == sorted(sizes)


def test_an_interrupted_scan_of_data_that_has_changed_since(voc_folder, helpers):
    with pytest.raises(KeyboardInterrupt):
        class_presence(Watched(build_dataset("voc", voc_folder), stop_at=2))
    path = voc_folder / "SegmentationClass" / "2007_a.png"
    helpers.label(path, helpers.halves(9, 9))
    os.utime(path, ns=(1, 1))
    again = Watched(build_dataset("voc", voc_folder))
    assert class_presence(again)[0].nonzero()[0].tolist() == [9]
    assert sorted(again.read) == [0, 2]


def test_an_interrupted_scan_without_any_place_to_save(voc_folder, user_cache):
    (voc_folder / ".ciss_fast").write_text("")
    user_cache.parent.write_text("")
    with pytest.raises(KeyboardInterrupt):
        class_presence(Watched(build_dataset("voc", voc_folder), stop_at=1))


def test_a_cache_of_more_images_or_other_classes_is_not_taken(voc_folder):
    dataset = build_dataset("voc", voc_folder)
    scanned(dataset)
    (file,) = (voc_folder / ".ciss_fast").iterdir()
    with np.load(file) as stored:
        arrays = dict(stored)
    for name, shape in (("presence", (4, 21)), ("presence", (3, 20)), ("presence", (3,)), ("size", (4,))):
        np.savez(file, **{**arrays, name: np.ones(shape, dtype=arrays[name].dtype)})
        presence, read = scanned(dataset)
        assert read
        assert np.array_equal(presence, expected_presence())


def test_read_only_data_folder(voc_folder, user_cache):
    voc_folder.chmod(0o555)
    try:
        if os.access(voc_folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        assert scanned(build_dataset("voc", voc_folder))[1]
        assert not scanned(build_dataset("voc", voc_folder))[1]
    finally:
        voc_folder.chmod(0o755)
    assert len(list(user_cache.iterdir())) == 1


def test_user_cache_where_the_data_cannot_be_written(voc_folder, user_cache):
    # A file in the place of the cache folder stops every user, root included.
    (voc_folder / ".ciss_fast").write_text("")
    dataset = build_dataset("voc", voc_folder)
    assert scanned(dataset)[1]
    assert len(list(user_cache.iterdir())) == 1
    assert not scanned(dataset)[1]


def test_without_any_place_for_the_cache(voc_folder, user_cache):
    (voc_folder / ".ciss_fast").write_text("")
    user_cache.parent.write_text("")
    dataset = build_dataset("voc", voc_folder)
    with pytest.warns(UserWarning, match="not cached"):
        presence = class_presence(dataset)
    assert np.array_equal(presence, expected_presence())


def test_given_cache_folder(voc_folder, tmp_path, user_cache):
    dataset = build_dataset("voc", voc_folder)
    assert scanned(dataset, tmp_path / "given")[1]
    assert not scanned(dataset, tmp_path / "given")[1]
    assert not (voc_folder / ".ciss_fast").exists()
    assert not user_cache.exists()


def test_first_bad_label_map_is_named_and_nothing_is_cached(voc_folder, helpers, one_line):
    path = voc_folder / "SegmentationClass" / "2007_b.png"
    helpers.label(path, helpers.halves(0, 77))
    with pytest.raises(DataError) as caught:
        class_presence(build_dataset("voc", voc_folder))
    one_line(caught.value, path, "77")
    assert not (voc_folder / ".ciss_fast").exists()


def test_generated_data_set_is_scanned_in_memory(user_cache):
    dataset = build_dataset("shapes", train_images=20, image_size_px=48)
    presence = class_presence(dataset)
    for index in range(20):
        shown = set(np.unique(dataset.load_label(index)).tolist()) - {255}
        assert set(presence[index].nonzero()[0].tolist()) == shown
    assert not user_cache.exists()
