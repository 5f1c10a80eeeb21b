r"""Compares finished runs in one HTML page that needs no network.

    python launch/report.py runs/digits_table --out=report.html
    python launch/report.py runs/ce runs/plm runs/gcl --baseline=ce --out=report.html

A WORKDIR is the folder of a run (of train, retrain_classifier or dlsa), or of a sweep, which
stands for the runs in it; a file with a summary will do, without curves. Runs on different data, or
with one label an example and with several, are shown in groups of their own, each with its own
baseline: what cannot be compared is not.
"""

from absl import flags

from lt_jax import cli
from lt_jax.comparison import write_report
from lt_jax.writers import say

OUT = flags.DEFINE_string("out", "report.html", "The page to write.")
BASELINE = flags.DEFINE_string(
    "baseline", "", "The run to compare with, by its method or folder; else the first."
)


def main(names: list[str]) -> None:
    """Writes the page and tells where it is."""
    say(f"the report is in {write_report(names, OUT.value, baseline=BASELINE.value)}.")


if __name__ == "__main__":
    cli.main(main, arguments=True)
