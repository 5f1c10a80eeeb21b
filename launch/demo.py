"""Five methods on long-tailed digits, five seeds each: a table and a picture.

python launch/demo.py --workdir=demo
"""

import runpy
from pathlib import Path

from absl import flags

from lt_jax import cli, pictures, report
from lt_jax.errors import InputError
from lt_jax.train import train

WORKDIR = flags.DEFINE_string("workdir", "demo", "Folder for the runs, the table and the picture.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of each method.", lower_bound=1)
METHODS = flags.DEFINE_list(
    "methods",
    ["cross_entropy", "cb_focal", "balanced_softmax", "plm_softmax", "gcl"],
    "What to run.",
)


def main() -> None:
    """Trains, prints, draws."""
    folder = Path(WORKDIR.value)
    get_config = runpy.run_path(str(Path(__file__).parent.parent / "configs/digits.py"))[
        "get_config"
    ]
    configs = {method: get_config(method) for method in METHODS.value}  # all names, before any run
    if not configs:
        raise InputError("--methods is empty; expected such as cross_entropy,cb_focal")
    summaries = []
    for method, config in configs.items():
        config.replicas = SEEDS.value
        summary = train(config, folder / method)
        if summary is None:  # a signal: what is done stays, the rest goes on next time
            return
        summaries.append(summary)
    pictures.save_comparison(summaries, folder / "comparison.png")
    report.write_tables(summaries, folder)
    report.print_table(summaries)


if __name__ == "__main__":
    cli.main(main)
