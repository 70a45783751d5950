"""Results as a table to read and as a JSON file to keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ciss_fast.atomic_files import atomic_write_text
from ciss_fast.engine.tables import text_table

from .machine import GPU_COPY_SIZES
from .runner import COMPILED, COPY

HEADER = "case eager compile ours spread% first eager/ours compile/ours pixel memory% floor ours/floor".split()
LEGEND = """\
Times in milliseconds, medians over rounds; a ratio is the median of the rounds' own ratios.
  eager    plain PyTorch, what terms share computed once     compile  the same through torch.compile
  spread%  half the distance of ours' quartiles              first    ours, first call after another candidate
  pixel    ours per pixel over its headline case's           memory%  peak extra memory, ours over eager's
  floor    t: copying the bytes that must move; o: the multiply-adds that the op's module counts, at the
           rate of torch's matrix product; dash: below a microsecond"""


def table(records: Sequence[dict[str, Any]]) -> str:
    """All cases, one a line, with what the columns mean."""
    rows = [_row(record) for record in records]
    return f"{text_table(HEADER, rows)}\n\n{LEGEND}{_notes(records)}"


def _row(record: dict[str, Any]) -> list[str]:
    times, ratios, floor = record["milliseconds"], record["ratios"], record["floor"]
    ours = times["ours"]
    low, high = ours["quartiles"]
    memory = record.get("extra_memory")
    pixel = record["time_per_pixel_over_compared"]
    negligible = floor["milliseconds"] < 1e-3
    return [
        record["name"],
        _digits(times["eager"]["median"]) if "eager" in times else "-",
        _digits(times[COMPILED]["median"]) if COMPILED in times else "-",
        _digits(ours["median"]),
        f"{50 * (high - low) / ours['median']:.0f}",
        _digits(ours["first_call_of_round"]),
        _digits(ratios["eager"]["median"]) if "eager" in ratios else "-",
        _digits(ratios[COMPILED]["median"]) if COMPILED in ratios else "-",
        "-" if pixel is None else f"{pixel:.2f}",
        _percent(memory["ours"]["bytes"], memory["eager"]["bytes"]) if memory and "eager" in memory else "-",
        "-" if negligible else f"{_digits(floor['milliseconds'])} {floor['bound'][0]}",
        "-" if negligible else _digits(floor["measured_over_floor"]),
    ]


def _notes(records: Sequence[dict[str, Any]]) -> str:
    """What has no column: further formulations, what was left out, bandwidth on a GPU, memory in megabytes."""
    lines = []
    for record in records:
        for name, ratio in record["ratios"].items():
            if name not in ("eager", COMPILED, COPY):
                time = _digits(record["milliseconds"][name]["median"])
                lines.append(f"{record['name']}: {name}: {time} ms, {_digits(ratio['median'])} times ours")
        if "compile_failure" in record:
            lines.append(f"{record['name']}: {COMPILED} failed: {record['compile_failure']}")
        lines += [f"{record['name']}: {name} is left out: {reason}" for name, reason in record["left_out"].items()]
        if record["device"].startswith("cuda"):
            floor = record["floor"]
            share = f"{100 * floor['share_of_copy_bandwidth']:.0f} % of the copy's"
            lines.append(f"{record['name']}: {floor['achieved_bandwidth'] / 1e9:.0f} GB/s, {share}")
        if record["compared_with"] is None and record.get("extra_memory"):
            sizes = ", ".join(f"{k} {v['bytes'] / 1e6:.2f} MB" for k, v in record["extra_memory"].items())
            lines.append(f"{record['name']}: peak extra memory: {sizes}")
    return "".join(f"\n{line}" for line in ["", *lines]) if lines else ""


def machine_text(facts: dict[str, Any]) -> str:
    """The machine in a few lines."""
    card = []
    if "gpu" in facts:
        bandwidth = facts["rates"][f"copy_bandwidth_{GPU_COPY_SIZES[-1] >> 20}_MiB"]
        card = [
            f"{facts['gpu']} ({facts['memory_bytes'] / 2**30:.0f} GiB, {facts['multiprocessors']} multiprocessors), "
            f"driver {facts['driver']}, CUDA {facts['cuda']}, triton {facts['triton']}",
            f"copy {bandwidth / 1e9:.0f} GB/s, {facts['rates']['multiply_adds_per_second'] / 1e12:.1f}e12 float32 "
            f"multiply-adds/s; L2 cache {facts['cache']}",
        ]
    return "\n".join(
        [
            *card,
            f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, {facts['system']}",
            f"ciss_fast {facts['ciss_fast']} ({facts['instruction_set']}, compiler {facts['compiler']}), "
            f"torch {facts['torch']} ({facts['torch_instruction_set']}), Python {facts['python']}",
            f"load average before: {facts['load_before']}",
        ]
    )


def write_json(folder: Path, op: str, content: dict[str, Any]) -> Path:
    """``folder/op.json``, or ``op-quick.json`` for shrunk cases, which must not pass for results."""
    name = f"{op}-quick.json" if content.get("quick") else f"{op}.json"
    return atomic_write_text(folder / name, json.dumps(content, indent=1) + "\n")


def _digits(value: float) -> str:
    """Three significant digits without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}" if whole else "-"
