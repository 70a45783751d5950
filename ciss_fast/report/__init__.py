"""One self-contained HTML page that compares runs."""

from ciss_fast.report.page import write_report

__all__ = ["write_report"]
