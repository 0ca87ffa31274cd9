"""The report of a run: one page that explains what passed, what did not, and what it was."""

from ssot.lab.report.report import write_report

__all__ = ["write_report"]
