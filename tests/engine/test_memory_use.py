"""Memory that is free, and the cache of images that is bounded by it."""

import json

import pytest

from ciss_fast.data import MemoryCache
from ciss_fast.engine import memory_use, plan
from ciss_fast.engine.memory_use import available_memory_bytes
from ciss_fast.engine.plan import make_plan
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.run import train

MEBIBYTE = 2**20


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A function that writes what the system says."""
    group = ("memory.max", "memory.current", "inactive_file ")
    monkeypatch.setattr(memory_use, "_CGROUPS", ((tmp_path, *group),))
    monkeypatch.setattr(memory_use, "_MEMORY_INFO", tmp_path / "meminfo")

    def write(**files):
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)

    return write


def test_a_container_may_have_less_than_the_machine(system):
    assert available_memory_bytes() is None
    system(meminfo="MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert available_memory_bytes() == 8000 * 1024
    system(memory_max="max\n", memory_current="5000\n")
    assert available_memory_bytes() == 8000 * 1024  # no limit
    system(memory_max="7000\n")
    assert available_memory_bytes() == 2000
    system(memory_stat="anon 1000\ninactive_file 1500\n")  # what only caches files can be had
    assert available_memory_bytes() == 3500
    system(memory_max="4000\n", memory_stat="anon 1000\n")
    assert available_memory_bytes() == 0


def test_this_system_says_something():
    free = available_memory_bytes()
    assert free is None or free > MEBIBYTE


@pytest.mark.parametrize(("free", "processes", "given", "limit"), [
    (64 * MEBIBYTE, 1, None, 32 * MEBIBYTE), (64 * MEBIBYTE, 4, None, 8 * MEBIBYTE), (None, 1, None, None),
    (64 * MEBIBYTE, 4, 3.5, 3_500_000),
])  # fmt: skip
def test_limit_of_the_cache(tiny_config, monkeypatch, free, processes, given, limit):
    monkeypatch.setattr(plan, "available_memory_bytes", lambda: free)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    made = make_plan(tiny_config(cache_images=True, cache_megabytes=given), Reporter(quiet=True))
    assert isinstance(made.train_data, MemoryCache) and made.train_data.max_bytes == limit


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_changes_no_result(tmp_path, tiny_config, monkeypatch, workers):
    """One of some images of a step."""
    caches, settings = [], {"method": "ft", "task": "6-6", "previews": 0}
    keep = MemoryCache.keep

    def watched(self, indices, *, load):
        keep(self, indices, load=load)
        caches.append((self.num_images, len(indices), self.num_bytes <= self.max_bytes))

    monkeypatch.setattr(MemoryCache, "keep", watched)
    logs = []
    for cached in (False, True):
        output = tmp_path / str(cached)
        options = {"cache_images": True, "cache_megabytes": 0.05, "workers": workers} if cached else {}
        train(tiny_config(output=str(output), **settings, **options), Reporter(quiet=True))
        logs.append([entry["loss_log"] for entry in ResultsFolder(output).read_metrics()["steps"]])
        assert json.loads((output / "config.json").read_text())["data"]["cache_images"] is cached
    assert logs[0] == logs[1]
    assert len(caches) == 2 and all(fits for *_, fits in caches)
    if workers:  # 32 x 32 pixels with three colours and a label
        assert [kept for kept, *_ in caches] == [50_000 // 4096] * 2
