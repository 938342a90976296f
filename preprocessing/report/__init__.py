"""The data as people see it: a page with plots (`write_report`), and lines on the screen (`show_data`, `show_days`)."""

from preprocessing.report.console import show_data
from preprocessing.report.days import show_days
from preprocessing.report.page import write_report

__all__ = ["show_data", "show_days", "write_report"]
