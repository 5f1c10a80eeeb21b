"""Multi-hot labels for partial label masking, of classes that none or all have too; and runs."""

from functools import cache

import jax
import numpy as np

from lt_jax import objectives
from lt_jax.objectives import chain, partial_label_mask

SIGMOID = objectives.sigmoid_cross_entropy
NUM_EXAMPLES = 64
# Of 64 examples: the first class is always there, the second never, the last in one alone.
COUNTS = np.array([64, 0, 30, 12, 5, 1])
CLASSES, BATCH = len(COUNTS), 16
EVERY = NUM_EXAMPLES // BATCH
VARIABLE = (COUNTS > 0) & (COUNTS < NUM_EXAMPLES)


@cache
def examples():
    """Logits, worse for rarer classes, and multi-hot labels, in an order that stays."""
    rng = np.random.default_rng(8)
    labels = np.argsort(rng.random((NUM_EXAMPLES, CLASSES)), axis=0) < COUNTS
    logits = rng.normal(size=labels.shape) * 2 + np.where(labels, np.linspace(2, -2, CLASSES), -1)
    return logits.astype(np.float32), labels.astype(np.uint8)


def masked(**options):
    options = {"update_every": EVERY, "num_examples": NUM_EXAMPLES, **options}
    return chain(partial_label_mask(COUNTS, **options), base=SIGMOID)


def run(objective, steps, step=None, place=lambda x, rows: x):
    """The states after each of so many steps over the examples, the first not counted."""
    logits, labels = examples()
    step = step or jax.jit(objective.apply)
    state, states = place(objective.init(), False), []
    for n in range(steps):
        rows = np.arange(n * BATCH, (n + 1) * BATCH) % NUM_EXAMPLES
        # Each epoch other logits, as if the network had learnt.
        z = logits[rows] * np.float32(1 + n // EVERY)
        _, state = step(state, jax.random.key(n), *place((z, labels[rows]), True))
        states.append(state)
    return states


def data_ratio():
    with np.errstate(divide="ignore"):
        return np.where(VARIABLE, COUNTS / (NUM_EXAMPLES - COUNTS), np.nan)
