"""Seven methods on long-tailed digits, five seeds each: a table and a picture.

python launch/demo.py --workdir=demo
"""

import runpy
import sys
from pathlib import Path

from absl import flags

from lt_jax import cli, pictures, tables
from lt_jax.errors import InputError
from lt_jax.files import folder_of
from lt_jax.settings import load_configs
from lt_jax.summaries import Scores
from lt_jax.sweep_seeds import run_table
from lt_jax.writers import say

WORKDIR = flags.DEFINE_string("workdir", "demo", "Folder for the runs, the table and the picture.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of each method.", lower_bound=1)
METHODS = flags.DEFINE_list(
    "methods",
    [
        "cross_entropy",
        "cb_focal",
        "balanced_softmax",
        "plm_softmax",
        "crt",
        "gcl_stage1",
        "gcl",
    ],
    "What to run.",
)


def main() -> None:
    """Trains, prints, draws."""
    if not METHODS.value:
        raise InputError("--methods is empty; expected such as cross_entropy,cb_focal")
    module = runpy.run_path(str(Path(__file__).parent.parent / "configs/digits.py"))
    configs = load_configs(module, None, METHODS.value, [], SEEDS.value)
    folder = folder_of(cli.required(WORKDIR))
    summaries: list[list[Scores]] = []
    try:
        failed = run_table(configs, folder, lambda found, _: summaries.append(found))
    except InterruptedError:  # a signal: what is done stays, the rest goes on next time
        return
    if failed:
        say(f"methods that failed: {', '.join(failed)}.")
        sys.exit(cli.NOT_FINITE)
    pictures.save_comparison(summaries[-1], folder / "comparison.png")
    tables.write_tables(summaries[-1], folder)
    tables.print_table(summaries[-1])


if __name__ == "__main__":
    cli.main(main)
