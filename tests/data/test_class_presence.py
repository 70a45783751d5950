"""The class-presence scan and its cache."""

import os

import numpy as np
import pytest

from ciss_fast.data import build_dataset, class_presence
from ciss_fast.errors import DataError


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    return tmp_path / "user_cache" / "ciss_fast"


def scanned(dataset, *arguments):
    """Presence, and whether label maps were read for it."""
    calls = []
    presence = class_presence(dataset, *arguments, progress=lambda done, total: calls.append((done, total)))
    if calls:
        assert calls == [(done, len(dataset)) for done in range(1, len(dataset) + 1)]
    return presence, bool(calls)


def expected_presence():
    presence = np.zeros((3, 21), dtype=bool)
    presence[0, [0, 3]] = True
    presence[1, [20, 1]] = True
    presence[2, 0] = True
    return presence


def test_presence_and_cache_beside_the_data(voc_folder, user_cache):
    presence, read = scanned(build_dataset("voc", voc_folder))
    assert read
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
    os.utime(path, ns=(1, 1))
    presence, read = scanned(build_dataset("voc", voc_folder))
    assert read
    assert presence[0].nonzero()[0].tolist() == [7]
    (voc_folder / "classes.txt").write_text("\n".join(f"{index} c{index}" for index in range(30)))
    presence, read = scanned(build_dataset("voc", voc_folder))
    assert read
    assert presence.shape == (3, 30)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_damaged_cache_is_replaced(voc_folder, tmp_path, damage):
    dataset = build_dataset("voc", voc_folder)
    scanned(dataset)
    (file,) = (voc_folder / ".ciss_fast").iterdir()
    content = file.read_bytes()
    if damage == "other":
        np.savez(file, fingerprint=np.array("another"), presence=np.ones((3, 21), dtype=bool))
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
            sizes.append(len(stored["presence"]))

    class_presence(dataset, progress=lambda done, total: look(done, total) if done > 1 else None)
    assert sizes[0] >= 1 and sizes == sorted(sizes)


def test_an_interrupted_scan_of_data_that_has_changed_since_starts_anew(voc_folder, helpers):
    with pytest.raises(KeyboardInterrupt):
        class_presence(Watched(build_dataset("voc", voc_folder), stop_at=2))
    path = voc_folder / "SegmentationClass" / "2007_a.png"
    helpers.label(path, helpers.halves(9, 9))
    os.utime(path, ns=(1, 1))
    again = Watched(build_dataset("voc", voc_folder))
    assert class_presence(again)[0].nonzero()[0].tolist() == [9]
    assert sorted(again.read) == [0, 1, 2]


def test_an_interrupted_scan_without_any_place_to_save(voc_folder, user_cache):
    (voc_folder / ".ciss_fast").write_text("")
    user_cache.parent.write_text("")
    with pytest.raises(KeyboardInterrupt):
        class_presence(Watched(build_dataset("voc", voc_folder), stop_at=1))


def test_a_cache_of_more_images_or_other_classes_is_not_taken(voc_folder):
    dataset = build_dataset("voc", voc_folder)
    scanned(dataset)
    (file,) = (voc_folder / ".ciss_fast").iterdir()
    for shape in ((4, 21), (3, 20), (3,)):
        np.savez(file, fingerprint=np.array(dataset.fingerprint), presence=np.ones(shape, dtype=bool))
        presence, read = scanned(dataset)
        assert read
        assert np.array_equal(presence, expected_presence())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_data_folder(voc_folder, user_cache):
    voc_folder.chmod(0o555)
    try:
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
