"""Plain-text tables of scores."""

from __future__ import annotations

from collections.abc import Sequence


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns separated by two spaces, the first aligned left, the others right, a rule under the header."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = cells
        return "  ".join(
            [
                first.ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)),
            ]
        ).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])
