"""Pieces of HTML that the sections of a page share. Everything that comes from a run is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ciss_fast.report.charts import colour_class
from ciss_fast.report.configurations import Statistic

NOTHING = "–"
TEXT_CELL = '<td class="text"'


def cell(text: str, css: str = "", title: str = "") -> str:
    """A table cell with plain text."""
    return f"<td{_attribute('class', css)}{_attribute('title', title)}>{escape(text)}</td>"


def name_cell(text: str) -> str:
    """The first cell of a row."""
    return f'<th scope="row" class="name">{escape(text)}</th>'


def score_cell(statistic: Statistic | None, css: str = "", *, scale: float = 100, digits: int = 1) -> str:
    """Mean and deviation, times ``scale``."""
    return f"<td{_attribute('class', css)}>{score(statistic, scale, digits)}</td>"


def score(statistic: Statistic | None, scale: float = 100, digits: int = 1) -> str:
    """Mean ± deviation as HTML; a dash where there is nothing."""
    if statistic is None:
        return NOTHING
    text = _number(scale * statistic.mean, digits)
    if statistic.deviation is not None:
        text += f' <span class="sd">± {scale * statistic.deviation:.{digits}f}</span>'
    return text


def heat_cell(statistic: Statistic | None, css: str = "", *, title: str = "", lost: bool = False) -> str:
    """A cell coloured by its value, which is between 0 and 1 (``lost``: a loss; a gain has no colour)."""
    if statistic is None:
        return f"<td{_attribute('class', css)}>{NOTHING}</td>"
    value = min(100.0, max(0.0, 100 * statistic.mean))
    classes = " ".join(filter(None, (css, "lost" if lost else "", "strong" if value > 75 else "")))
    if statistic.deviation is not None:
        title = f"{title}: ± {100 * statistic.deviation:.1f}" if title else f"± {100 * statistic.deviation:.1f}"
    return (
        f"<td{_attribute('class', classes)}{_attribute('title', title)} style=\"--v:{value:.0f}\">"
        f"{_number(100 * statistic.mean, 1)}</td>"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], css: str = "", *, tall: bool = False) -> str:
    """A table that scrolls inside its own frame; ``rows`` are made of ready cells. Over a column of text the header
    stands as the text does.
    """
    columns = [column[0] for column in zip(*rows, strict=True)] or [""] * len(header)
    head = "".join(
        f'<th scope="col"{_attribute("class", "text" if first.startswith(TEXT_CELL) else "")}>{escape(name)}</th>'
        for name, first in zip(header, columns, strict=True)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return framed(f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>", css, tall=tall)


def framed(content: str, css: str = "", *, tall: bool = False) -> str:
    """A table's content in a frame that scrolls."""
    return (
        f'<div class="scroll{" tall" if tall else ""}" tabindex="0">'
        f"<table{_attribute('class', css)}>{content}</table></div>"
    )


def legend(names: Sequence[str], references: Sequence[bool] | None = None) -> str:
    """Colours and names of a chart's lines; ``references``: which of them are dotted."""
    references = references or [False] * len(names)
    items = [
        f'<li><span class="key {colour_class(number)}{" reference" if dotted else ""}"></span>{escape(name)}</li>'
        for number, (name, dotted) in enumerate(zip(names, references, strict=True))
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _number(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # adding 0 makes -0.0 a plain 0


def _attribute(name: str, value: str) -> str:
    return f' {name}="{escape(value)}"' if value else ""
