"""Short DKD and DKD-M runs on real images: a part of Pascal VOC, which the tests skip where it is not there."""

import json

import pytest

from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.recipes import load_recipe
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.run import train

SETTINGS = {
    "weights": "none", "crop_size": 128, "batch_size": 4, "head_channels": 32, "device": "cpu", "epochs_base": 0.1,
    "epochs_later": 0.1, "memory_images": 25, "previews": 2, "log_every": 1,
}  # fmt: skip


@pytest.mark.slow
def test_dkd_and_dkd_m_on_real_images(voc_part, tmp_path):
    entries = {}
    for method, extra in (("dkd", {}), ("dkd-m", {"base_from": str(tmp_path / "dkd")})):
        settings = {"method": method, "data_root": str(voc_part), "output": str(tmp_path / method), **extra}
        config = load_recipe("voc15-5-mobilenet").with_settings({**SETTINGS, **settings})
        entries[method] = ResultsFolder(train(config, Reporter(quiet=True))).read_metrics()["steps"]
    for method, (base, later) in entries.items():
        for item in base["loss_log"]:  # pos_weight is inside mBCE
            assert item["loss"] == pytest.approx(item["mbce"] + item["ac"], rel=1e-5)
        for item in later["loss_log"]:
            distilled = item["kd"] + item["dkd_pos"] + item["dkd_neg"]
            assert item["loss"] == pytest.approx(item["mbce"] + 5 * distilled + item["ac"], rel=1e-4)
        assert list(later["iou"])[1:3] == ["aeroplane", "bicycle"] and len(later["iou"]) == 21
        stages = [stage["name"] for stage in later["stages"]]
        assert stages == (["selection", "train"] if method == "dkd-m" else ["train"])
    memory = json.loads((tmp_path / "dkd-m" / "memory" / "step_1.json").read_text())
    counts = entries["dkd-m"][1]["stages"][0]["memory_images_by_class"]
    assert len(memory["images"]) == sum(counts.values()) == 25
    assert len(counts) == 15 and set(counts.values()) == {1, 2}
