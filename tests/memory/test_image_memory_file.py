"""The memory list as a file: readable, complete, and refused when it is damaged or of other data."""

import dataclasses
import hashlib
import json

import pytest

from ciss_fast.data.shapes import ShapesDataset
from ciss_fast.errors import CheckpointError, DataError
from ciss_fast.memory.image_memory import ImageMemory, MemoryImage
from ciss_fast.memory.image_memory_file import load_image_memory, save_image_memory

DATASET = ShapesDataset(image_size_px=32, train_images=20)
NAMES = DATASET.class_names
MEMORY = ImageMemory(
    step=2,
    size=100,
    dataset="shapes",
    fingerprint=DATASET.fingerprint,
    images=(
        MemoryImage(DATASET.ids[7], (1, 4), 0, chosen_for=4),
        MemoryImage(DATASET.ids[2], (7,), 1, chosen_for=7),
    ),
)


@pytest.fixture
def path(tmp_path):
    return save_image_memory(tmp_path / "memory" / "step_2.json", MEMORY, NAMES)


def rewritten(path, change):
    """The file with a change that its checksum knows of."""
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**content, "sha256": digest}))


def refused(path, error, step=2, dataset=DATASET, name="shapes"):
    with pytest.raises(error) as caught:
        load_image_memory(path, step, dataset, name)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_round_trip(path):
    assert load_image_memory(path, 2, DATASET, "shapes") == MEMORY
    assert [entry.name for entry in path.parent.iterdir()] == ["step_2.json"]


def test_a_person_can_read_it(path):
    lines = path.read_text().splitlines()
    assert lines[:7] == [
        "{",
        '  "format": 1,',
        '  "step": 2,',
        '  "size": 100,',
        '  "dataset": "shapes",',
        f'  "fingerprint": "{DATASET.fingerprint}",',
        '  "images": [',
    ]
    shows = json.dumps([NAMES[1], NAMES[4]])
    assert lines[7] == (
        f'    {{"id": "{DATASET.ids[7]}", "chosen_for": "{NAMES[4]}", "shows": {shows}, "from_step": 0}},'
    )
    assert lines[9] == "  ],"


def test_an_empty_memory(tmp_path):
    empty = dataclasses.replace(MEMORY, images=())
    path = save_image_memory(tmp_path / "empty.json", empty, NAMES)
    assert load_image_memory(path, 2, DATASET, "shapes") == empty


def test_no_such_file(tmp_path):
    message = refused(tmp_path / "none.json", CheckpointError)
    assert message == "expected an image memory, there is no such file"


def test_every_lost_or_changed_byte_is_noticed(path):
    intact = path.read_bytes()
    meaningful = [i for i, byte in enumerate(intact) if not chr(byte).isspace()]
    for position in meaningful[::7]:
        for damaged in (intact[:position], intact[:position] + b"#" + intact[position + 1 :]):
            path.write_bytes(damaged)
            refused(path, CheckpointError)
    path.write_bytes(b"\xff\xfe" + intact)
    assert refused(path, CheckpointError).startswith("damaged or not an image memory: ")
    path.write_bytes(b"[" * 100_000)
    assert refused(path, CheckpointError).startswith("damaged or not an image memory: ")


def test_an_edited_list_is_refused(path):
    path.write_text(path.read_text().replace(DATASET.ids[2], DATASET.ids[3]))
    message = refused(path, CheckpointError)
    assert message == "damaged or edited, its content does not match its checksum"


def test_spaces_do_not_matter(path):
    path.write_text(json.dumps(json.loads(path.read_text()), indent=8))
    assert load_image_memory(path, 2, DATASET, "shapes") == MEMORY


@pytest.mark.parametrize("text", ["[]", "3", '"format"', '{"step": 2}'])
def test_another_kind_of_file(path, text):
    path.write_text(text)
    assert refused(path, CheckpointError) == "expected an image memory, got another kind of content"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "expected image memory format 1, got 2"),
        (lambda c: c.pop("size"), "got another kind of content: expected size of type int"),
        (lambda c: c.update(images={}), "got another kind of content: expected images of type list"),
        (lambda c: c.update(images=["a"]), "got another kind of content: expected id of type str"),
        (lambda c: c["images"][0].update(shows="a"), "got another kind of content: expected shows of type list"),
        (lambda c: c["images"][0].pop("from_step"), "got another kind of content: expected from_step of type int"),
    ],
)
def test_another_layout(path, change, message):
    rewritten(path, change)
    assert refused(path, CheckpointError).endswith(message)


def test_another_step(path):
    message = refused(path, CheckpointError, step=3)
    assert message == "expected the image memory of step 3, got that of step 2"


def test_other_data(path):
    assert refused(path, DataError, name="voc") == "expected images of data set 'voc', got 'shapes'"
    other = ShapesDataset(image_size_px=32, train_images=21)
    assert refused(path, DataError, dataset=other) == (
        f"expected fingerprint {other.fingerprint} (the training images' list), got {DATASET.fingerprint}: "
        "the data have changed"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][1].update(id="lost"), "expected ids of the data set, got 'lost'"),
        (
            lambda c: c["images"][1].update(chosen_for="cow"),
            f"image '{DATASET.ids[2]}': expected classes of the data set, got 'cow'",
        ),
        (
            lambda c: c["images"][1].update(shows=["cow"]),
            f"image '{DATASET.ids[2]}': expected classes of the data set, got 'cow'",
        ),
        (
            lambda c: c["images"][1].update(shows=[[]]),
            f"image '{DATASET.ids[2]}': expected classes of the data set, got []",
        ),
    ],
)
def test_images_and_classes_that_are_not_there(path, change, message):
    rewritten(path, change)
    assert refused(path, DataError) == message
