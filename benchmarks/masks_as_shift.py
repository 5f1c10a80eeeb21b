r"""Is what partial label masking does the same as shifting a trained network's logits?

    python benchmarks/masks_as_shift.py --config=configs/multi_digits.py --plain=sigmoid \
        --masked=plm --workdir=runs/shift --out=results/plm_study/shift_multi_digits.json

Where a class's positives are kept with probability k+ and its negatives with k-, the masked loss is
in expectation a weighted cross-entropy. Of an example with P(y = 1 | x) = p its minimiser has the
logit

    log p / (1 - p) + log k+ / k-  =  the logit of plain cross-entropy + log(ideal ratio / ratio),

so that for networks without limits masks would be one threshold for each class. The script trains
both rows, adds log(ideal ratio / ratio) of the masked run's end to the test logits of the plain
one, seed by seed, and writes the scores of all three.
"""

import json
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from lt_jax import cli, environment, workdir
from lt_jax.data import Dataset, load_dataset
from lt_jax.errors import InputError
from lt_jax.finish import scores_of
from lt_jax.loop import Loop, Stop
from lt_jax.metrics import Scoring, multi_label_count
from lt_jax.prepare import prepare
from lt_jax.run import evaluate
from lt_jax.settings import load_configs
from lt_jax.summaries import Scores, aggregate, with_deviation
from lt_jax.train import train
from lt_jax.writers import OBJECTIVE, read_metrics, say

CONFIG = flags.DEFINE_string("config", "configs/multi_digits.py", "File with get_config.")
PLAIN = flags.DEFINE_string("plain", "sigmoid", "Row without masks.")
MASKED = flags.DEFINE_string("masked", "plm", "Row with masks.")
SET = flags.DEFINE_multi_string("set", [], "A field of both rows, such as train.epochs=2.")
SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of each row.", lower_bound=2)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the two runs.")
OUT = flags.DEFINE_string("out", None, "JSON to write.")
SHOWN = ("map", "recall_rarest", "precision_head", "cf1", "of1", "exact_match", "ece")


def trained(config: Any, folder: Path, dataset: Dataset) -> Scores:
    """Trains a row, or takes it finished; its scores on test."""
    summary = train(config, folder, dataset=dataset)
    if summary is None:
        raise InputError("stopped by a signal; start again to go on")
    return summary["test"]["last"]


def counts_of(config: Any, folder: Path, dataset: Dataset) -> tuple[Any, Scoring]:
    """Counts of a finished run on test, with a leading axis of seeds."""
    run = prepare(config, folder, dataset)
    with Stop() as stop:
        loop = Loop(run, stop)  # which reads the last checkpoint
        loop.close()
    return evaluate(run, loop.states, "test"), run.scoring


def final_shift(folder: Path) -> np.ndarray:
    """log(ideal ratio / ratio) of the last epoch, ``[R, C]``."""
    rows = [r for r in read_metrics(folder / workdir.METRICS) if r["split"] == OBJECTIVE]
    if not rows or "ideal_ratio" not in rows[-1]:
        raise InputError(f"the row --masked={MASKED.value} has no masks; expected such as 'plm'")
    return np.log(np.array(rows[-1]["ideal_ratio"]) / np.array(rows[-1]["ratio"]))


def shifted(counts: Any, shift: np.ndarray, threshold: float) -> Any:
    """The counts, had the logits been shifted by ``[R, C]``."""
    logits = jnp.asarray(counts.logits + shift[:, None])
    count = jax.vmap(
        lambda z, y, w: multi_label_count(z, jax.nn.sigmoid(z), y, w, threshold=threshold)
    )
    return count(logits, jnp.asarray(counts.targets), jnp.asarray(counts.where))


def main() -> None:
    """Trains, shifts, compares."""
    folder, out = Path(cli.required(WORKDIR)).expanduser(), Path(cli.required(OUT))
    rows = [PLAIN.value, MASKED.value]
    module = runpy.run_path(CONFIG.value)
    configs = load_configs(module, None, rows, SET.value, SEEDS.value)
    (first, plain), (second, masked) = configs.items()
    dataset = load_dataset(plain.data)
    of_plain = trained(plain, folder / first, dataset)
    of_masked = trained(masked, folder / second, dataset)
    shift = final_shift(folder / second)
    counts, scoring = counts_of(plain, folder / first, dataset)
    moved = scores_of(scoring, shifted(counts, shift, plain.metrics.threshold))
    found = {"plain": of_plain, "plain, shifted": aggregate(moved), "masked": of_masked}
    for name, scores in found.items():
        cells = [f"{s} {with_deviation(scores['mean'][s], scores['std'][s])}" for s in SHOWN]
        say(f"{name}: {', '.join(cells)}")
    written: dict[str, Any] = {
        **environment.stamp(),
        "data": dataset.info(),
        "shift": shift.mean(axis=0).tolist(),
        "scores": {
            name: {k: {s: scores[k][s] for s in SHOWN} for k in ("mean", "std")}
            for name, scores in found.items()
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    cli.main(main)
