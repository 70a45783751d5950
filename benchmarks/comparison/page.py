"""The outcome: one page of everything, and the tables for README files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from ciss_fast.atomic_files import atomic_write_text
from ciss_fast.errors import DataError
from ciss_fast.report.configurations import Configuration, Statistic, read_configurations
from ciss_fast.report.page import body, document, peak_gibibytes

from .ablations import ARITHMETIC_GROUP
from .experiments import Experiment, is_done

MEBIBYTE = 2**20
BASE, LATER = slice(1), slice(1, None)
MARKED = re.compile(r"(?P<start><!-- table (?P<group>\S+) -->\n)(?:(?!<!-- table ).)*?(?P<end><!-- end -->)", re.DOTALL)
SECTION = re.compile(r'<section id="(?P<group>[^"]+)">.*?</section>', re.DOTALL)
COLUMNS = ("method", "runs", "base", "new", "all", "hIoU", "minutes, base + later", "peak memory, GiB", "kept, MiB")


def groups_of(experiments: Sequence[Experiment], output: Path) -> dict[str, list[Configuration]]:
    """Finished experiments by group. An ablation's group has what it is an ablation of as well.

    Raises `DataError` if nothing is finished.
    """
    folders: dict[str, list[Path]] = {}
    for experiment in experiments:
        if not is_done(experiment, output):
            continue
        members = folders.setdefault(experiment.group, [])
        if not members and experiment.group != experiment.setting.name:
            changed = {(one.settings["method"], one.seed) for one in experiments if one.group == experiment.group}
            whole = [output / experiment.setting.name / f"{method}-seed{seed}" for method, seed in sorted(changed)]
            members += [folder for folder in whole if (folder / "done").exists()]
        members.append(output / experiment.name)
    if not folders:
        raise DataError(f"{output}: expected finished experiments, found none")
    return {name: _configurations(members, name.endswith(ARITHMETIC_GROUP)) for name, members in folders.items()}


def _configurations(folders: Sequence[Path], one_each: bool) -> list[Configuration]:
    """Of folders; ``one_each``: even where the settings are the same, as in runs that differ in their environment."""
    entries = read_configurations(folders)  # finds runs that do not belong together
    if one_each:
        entries = [read_configurations([folder])[0] for folder in folders]
    named = [replace(entry, name=re.sub(r"-seed\d+$", "", entry.name)) for entry in entries]
    names = [entry.name for entry in named]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{folders[0].parent}: expected equal settings in all runs of {name}, got different ones")
    return named


def partial_groups(known: Sequence[Experiment], there: Sequence[Experiment]) -> dict[str, str]:
    """By group "n of m" for the groups of which there is something, but not all."""
    wanted, found = (Counter(one.group for one in experiments) for experiments in (known, there))
    return {name: f"{found[name]} of {wanted[name]}" for name in found if found[name] < wanted[name]}


def write_page(groups: Mapping[str, Sequence[Configuration]], path: Path, order: Sequence[str]) -> Path:
    """All groups on one page, in the order of their names. A group that the page at ``path`` has and ``groups`` has not
    keeps what stands there, unless ``order`` lacks it.

    It shows no image of a data set and no ground truth: they may not be passed on. Raises `DataError` if there is
    something else at ``path``.
    """
    sections = {}
    if path.is_file():
        sections = {match["group"]: match[0] for match in SECTION.finditer(path.read_text("utf-8"))}
        if not sections:
            raise DataError(f"{path}: expected a page of this command, or nothing")
    for name, configurations in groups.items():
        content = body(configurations, photographs=False)
        sections[escape(name)] = f'<section id="{escape(name)}"><h1>{escape(name)}</h1>{content}</section>'
    sections = {escape(name): sections[escape(name)] for name in order if escape(name) in sections}
    contents = "".join(f'<li><a href="#{name}">{name}</a></li>' for name in sections)
    return atomic_write_text(
        path, document("Comparison of methods", f"<ul>{contents}</ul>{''.join(sections.values())}")
    )


def table(configurations: Sequence[Configuration]) -> str:
    """A Markdown table: percent, mean ± standard deviation over seeds."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS)]
    for entry in configurations:
        scores = [_percent(entry.at_end(name)) for name in ("miou_base", "miou_new", "miou_all", "hiou")]
        base, later = (entry.of_runs(lambda metrics, of=of: _minutes(metrics["steps"][of])) for of in (BASE, LATER))
        minutes = _plain(base, 1) + (f" + {_plain(later, 1)}" if entry.num_steps > 1 else "")
        peak = entry.of_runs(peak_gibibytes)
        kept = entry.of_runs(kept_mebibytes)
        rows.append(
            (entry.name, str(len(entry.runs)), *scores, minutes, _plain(peak, 1), _plain(kept, 1))
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _minutes(steps: Sequence[Mapping[str, Any]]) -> float:
    return sum(step["seconds_training"] for step in steps) / 60


def write_tables(groups: Mapping[str, Sequence[Configuration]], path: Path) -> int:
    """Put the groups' tables between the lines ``<!-- table GROUP -->`` and ``<!-- end -->`` of a Markdown file.

    Returns how many; a marked group that is not there keeps what stands there. Raises `DataError` for a file without
    such lines.
    """
    if not path.is_file():
        raise DataError(f"{path}: not found; expected a Markdown file with lines <!-- table GROUP --> and <!-- end -->")
    text = path.read_text("utf-8")
    marked = MARKED.findall(text)
    if not marked:
        raise DataError(f"{path}: expected lines <!-- table GROUP --> and <!-- end -->, found none")

    def replaced(match: re.Match[str]) -> str:
        group = groups.get(match["group"])
        return match[0] if group is None else f"{match['start']}{table(group)}\n{match['end']}"

    atomic_write_text(path, MARKED.sub(replaced, text))
    return sum(group in groups for _, group, _ in marked)


def _percent(value: Statistic | None) -> str:
    if value is None:
        return "–"
    deviation = "" if value.deviation is None else f" ± {100 * value.deviation:.1f}"
    return f"{100 * value.mean:.1f}{deviation}"


def _plain(value: Statistic | None, digits: int) -> str:
    return "–" if value is None else f"{value.mean:.{digits}f}"


def kept_mebibytes(metrics: Mapping[str, Any]) -> float | None:
    """The most that a method's memory of features or images has had at the end of a step; None without one."""
    stages = [stage for step in metrics["steps"] for stage in step["stages"]]
    features = [stage["memory"]["bytes"] for stage in stages if "memory" in stage]
    images = [stage["memory_bytes"] for stage in stages if "memory_bytes" in stage]
    return max(features + images) / MEBIBYTE if features + images else None
