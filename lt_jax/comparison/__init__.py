"""Finished runs compared in one HTML page that is whole in itself."""

from lt_jax.comparison.page import page, write_report
from lt_jax.comparison.runs import Finished, Group, grouped, read_runs
from lt_jax.comparison.significance import Paired, holm, paired_test

__all__ = [
    "Finished",
    "Group",
    "Paired",
    "grouped",
    "holm",
    "page",
    "paired_test",
    "read_runs",
    "write_report",
]
