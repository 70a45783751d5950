"""A short ALIFE-M run on real images: a part of Pascal VOC, which the tests skip where it is not there."""

import pytest

from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.recipes import load_recipe
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.run import train
from ciss_fast.memory.feature_memory import load_feature_memory

SETTINGS = {
    "method": "alife-m", "weights": "none", "crop_size": 128, "batch_size": 4, "head_channels": 32, "device": "cpu",
    "epochs_base": 0.05, "epochs_later": 0.05, "rotation_epochs": 0.1, "replay_epochs": 0.05, "features_per_class": 5,
    "previews": 2, "log_every": 1,
}  # fmt: skip


@pytest.mark.slow
def test_all_stages_on_real_images(voc_part, tmp_path):
    config = load_recipe("voc15-5-mobilenet").with_settings(
        {**SETTINGS, "data_root": str(voc_part), "output": str(tmp_path / "run")}
    )
    run = train(config, Reporter(quiet=True))
    base, later = ResultsFolder(run).read_metrics()["steps"]
    assert [stage["name"] for stage in base["stages"]] == ["train", "features"]
    assert [stage["name"] for stage in later["stages"]] == ["train", "rotations", "classifiers", "features"]
    memory, rotated = (load_feature_memory(run / "memory" / name) for name in ("step_0.pt", "step_1-rotated.pt"))
    assert memory.features.shape == rotated.features.shape == (16, 5, 32)
    assert memory.features.isfinite().all() and rotated.features.isfinite().all()
    reported = base["stages"][1]["memory"]
    assert reported["bytes"] == 16 * 5 * 32 * 4
    # JPEG files of half a megapixel at most
    assert 1_000 < reported["source_bytes"] / reported["source_images"] < 100_000
    assert {"fid", "reg"} < set().union(*(item.keys() for item in later["loss_log"]))
    # VOC 15-5 as published: lambda_ROT 0.95; stage 3 with ALI 1 and memory 10
    for item in later["loss_log"]:
        if "fid" in item:
            assert item["loss"] == pytest.approx(0.95 * item["fid"] + 0.05 * item["reg"], rel=1e-5)
        if "memory" in item:
            assert item["loss"] == pytest.approx(item["focal"] + item["ali"] + 10 * item["memory"], rel=1e-4)
