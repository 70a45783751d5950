"""The procedural data set."""

import pickle

import numpy as np
import pytest

from ciss_fast.data import SegmentationDataset, build_dataset, class_presence
from ciss_fast.data.shape_drawing import CLASSES
from ciss_fast.errors import ConfigError


def test_shape_types_and_counts():
    train, val = build_dataset("shapes"), build_dataset("shapes", split="val")
    assert isinstance(train, SegmentationDataset)
    assert (len(train), len(val)) == (600, 120)
    assert len(train.class_names) == 13
    assert len(set(train.class_names)) == 13
    assert len(set(train.ids)) == 600
    image, label = train.load(3)
    assert image.shape == (96, 96, 3)
    assert label.shape == train.image_size(3) == (96, 96)
    assert image.dtype == label.dtype == np.uint8
    assert not image.flags.writeable
    with pytest.raises(IndexError):
        train.load(600)


def test_an_image_depends_on_seed_split_and_index_only():
    first, second = build_dataset("shapes"), build_dataset("shapes", train_images=30)
    for index in (29, 0):
        for one, other in zip(first.load(index), second.load(index), strict=True):
            assert np.array_equal(one, other)
    others = [
        build_dataset("shapes", seed=1).load(0)[0],
        build_dataset("shapes", split="val").load(0)[0],
        first.load(1)[0],
    ]
    for other in others:
        assert not np.array_equal(first.load(0)[0], other)


def test_every_class_is_frequent_and_objects_hide_each_other():
    dataset = build_dataset("shapes", train_images=200)
    presence = class_presence(dataset)
    assert presence[:, 0].all()
    assert presence[:, 1:].sum(axis=0).min() >= 20
    objects = presence[:, 1:].sum(axis=1)
    assert objects.min() >= 1
    assert objects.max() == 4
    shares = np.bincount(np.concatenate([dataset.load_label(i).ravel() for i in range(200)]), minlength=256)
    shares = shares / shares.sum()
    assert 0.5 < shares[0] < 0.9
    assert shares[1:13].min() > 0.005
    assert shares[13:255].sum() == 0


def test_objects_have_an_ignored_border():
    label = build_dataset("shapes").load_label(0)
    foreground, background = (label > 0) & (label < 255), label == 0
    assert (label == 255).any()
    assert not (foreground[1:] & background[:-1]).any()
    assert not (foreground[:-1] & background[1:]).any()
    assert not (foreground[:, 1:] & background[:, :-1]).any()
    assert not (foreground[:, :-1] & background[:, 1:]).any()


@pytest.mark.parametrize("number", range(len(CLASSES)))
def test_outlines_fit_their_radius_and_differ(number):
    v, u = np.meshgrid(*[np.linspace(-1.2, 1.2, 97, dtype=np.float32)] * 2, indexing="ij")
    outlines = [outline(u, v) for _, outline, _, _ in CLASSES]
    inside = outlines[number]
    assert 0.08 < inside.mean() < 0.6
    assert not inside[np.hypot(u, v) > 1.15].any()
    for other in range(number):
        union = (inside | outlines[other]).sum()
        assert (inside & outlines[other]).sum() / union < 0.95


def test_sizes_fingerprint_and_pickling():
    small = build_dataset("shapes", image_size_px=32, train_images=5, seed=4)
    assert small.load(4)[0].shape == (32, 32, 3)
    again = pickle.loads(pickle.dumps(small))
    assert np.array_equal(again.load(2)[0], small.load(2)[0])
    prints = {
        small.fingerprint,
        build_dataset("shapes").fingerprint,
        build_dataset("shapes", seed=1).fingerprint,
    }
    prints.add(build_dataset("shapes", split="val", train_images=120, val_images=600).fingerprint)
    assert len(prints) == 4
    assert again.fingerprint == small.fingerprint


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"image_size_px": 8}, "image_size_px is 8"),
        ({"train_images": 0}, "train_images is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"root": "somewhere"}, "somewhere"),
        ({"size": 96}, "'size'"),
    ],
)
def test_bad_options(options, part, one_line):
    with pytest.raises(ConfigError) as caught:
        build_dataset("shapes", **options)
    one_line(caught.value, "shapes", part, "expected")
