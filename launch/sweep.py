r"""Runs the rows of a table, each with several seeds, and writes the table as it fills.

    python launch/sweep.py --config=configs/digits.py --row=cross_entropy --row=crt --row=gcl \
        --workdir=runs/digits_table
    python launch/sweep.py --config=configs/cifar_lt.py --sweep=gcl_table,cifar10,100 --seeds=3 \
        --set=model.dtype=bfloat16 --workdir=runs/cifar10_lt100
    python launch/sweep.py --config=configs/multi_digits.py --row=sigmoid --row=plm \
        --over=objective.transforms.partial_label_mask.rate=0.01,0.1 --workdir=runs/rates
    python launch/sweep.py --config=configs/digits.py --row=cb_focal --seeds=3 \
        --tune=objective.transforms.class_balanced.beta=0.9,0.99,0.999 --workdir=runs/beta

With --over every row that has the field is run with each of the values. --tune compares values of
an objective's options, learning rates or weight decays on validation alone, all values and seeds of
a row in one run.

What has finished is skipped, what was stopped or killed goes on: start it again. Another command
adds its rows to the table, and uses the first stages that are there. With more --seeds than a table
has, those that it lacks are trained in a folder beside its rows. Writes table.md, table.csv and
table.png, with reported numbers beside measured ones where there are any, scores.csv with every
score of every seed, and table.tex; with --tune tuning.md and tuning.png of each row.
"""

import runpy
import sys
from functools import partial
from pathlib import Path

from absl import flags

from lt_jax import cli
from lt_jax.errors import InputError
from lt_jax.files import folder_of
from lt_jax.flag_errors import no_config_file, told_of_flags
from lt_jax.reported import read_reported
from lt_jax.settings import load_configs
from lt_jax.sweep import write_table
from lt_jax.sweep_seeds import run_table
from lt_jax.tuning import tune_rows
from lt_jax.writers import say

CONFIG = flags.DEFINE_string("config", "configs/digits.py", "File with get_config.")
SWEEP = flags.DEFINE_string("sweep", None, "Name for get_sweep of the config file.")
ROW = flags.DEFINE_multi_string("row", [], "String for get_config, instead of --sweep.")
SET = flags.DEFINE_multi_string("set", [], "A field of every row, such as train.epochs=2.")
OVER = flags.DEFINE_multi_string("over", [], "A field and its values, such as train.epochs=2,3.")
TUNE = flags.DEFINE_multi_string("tune", [], "Such as objective.transforms.focal.gamma=0,1,2.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of each row.", lower_bound=1)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the runs and the table.")
REPORTED = flags.DEFINE_string("reported", "", "CSV of reported numbers, results/reported.csv.")


def main() -> None:
    """Runs, and writes the table after each row."""
    folder = folder_of(cli.required(WORKDIR))
    if not Path(CONFIG.value).is_file():
        raise InputError(no_config_file(CONFIG.value))
    with told_of_flags():
        module = runpy.run_path(CONFIG.value)
        configs = load_configs(module, SWEEP.value, ROW.value, SET.value, SEEDS.value, OVER.value)
    if TUNE.value:
        if OVER.value:
            raise InputError("--tune and --over were given; expected one of them")
        tune_rows(configs, TUNE.value, folder)
        return
    known = read_reported(Path(REPORTED.value)) if REPORTED.value else []
    try:
        failed = run_table(configs, folder, partial(write_table, reported=known))
    except InterruptedError:
        return
    if len(failed) < len(configs):
        say(f"the table is in {folder / 'table.md'}.")
    if failed:
        say(f"rows that failed: {', '.join(failed)}.")
        sys.exit(cli.NOT_FINITE)


if __name__ == "__main__":
    cli.main(main)
