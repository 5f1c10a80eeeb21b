"""What losses refuse, in a sentence; and that they need JAX and NumPy alone."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_loss import COUNTS, IDEAL, KEY, LOSSES, RATIO

from lt_jax import losses, objectives
from lt_jax.errors import InputError
from lt_jax.losses import partial_label

ROOT = Path(__file__).parents[1]


def call(name, logits, labels):
    # Traced, not computed: nothing is compiled for a call that is to fail.
    return jax.eval_shape(LOSSES[name], logits, labels)


@pytest.mark.parametrize("name", LOSSES)
def test_bad_shapes_and_types_are_refused(name):
    z, y = np.zeros((2, 5), np.float32), np.array([0, 1])
    for logits, labels, sentence in (
        (z, y.astype(np.float32), r"labels of shape \(2,\) have dtype float32; expected integers"),
        (z, y > 0, r"labels of shape \(2,\) have dtype bool; expected integers"),
        (z, np.array([0, 1, 2]), "there are 3 labels for 2 rows of logits"),
        (z, np.zeros((2, 4)), r"labels have shape \(2, 4\); expected \[B\] or that of the logits"),
        (z, np.array(1), r"labels have shape \(\); expected \[B\]"),
        (z[0], y, r"logits have shape \(5,\); expected \[batch, classes\]"),
        (z.astype(np.int32), y, "logits have dtype int32; expected a floating type"),
    ):
        with pytest.raises(InputError, match=sentence):
            call(name, logits, labels)


@pytest.mark.parametrize("name", LOSSES)
def test_counts_of_another_length_are_refused(name):
    if "class_counts" in LOSSES[name].keywords:
        with pytest.raises(InputError, match=r"class_counts are 5, but the logits have 4 classes"):
            call(name, np.zeros((2, 4), np.float32), np.array([0, 1]))
    elif name.startswith("partial_label"):
        with pytest.raises(InputError, match="need one value for each of 4 classes"):
            call(name, np.zeros((2, 4), np.float32), np.array([0, 1]))


Z, Y = jnp.zeros((2, 5)), jnp.array([0, 1])
GCL = partial(losses.gaussian_clouded_cross_entropy, Z, Y, COUNTS, key=KEY)
ASL = partial(losses.asymmetric_loss, Z, Y)
EQL = partial(losses.equalization_loss, Z, Y, COUNTS, key=KEY)
DB = partial(losses.distribution_balanced_loss, Z, Y, COUNTS)
BAD_GAMMAS = (
    (r"gamma is -1; expected a number in \[0, inf\)", losses.softmax_focal_loss, -1),
    (r"gamma is nan; expected a number in \[0, inf\)", losses.sigmoid_focal_loss, np.nan),
    (r"gamma is 'one'; expected a number", losses.sigmoid_focal_loss, "one"),
)
BAD_NUMBERS = (
    (r"noise is -1; expected", partial(GCL, noise=-1)),
    (r"margin is -1; expected", partial(GCL, margin=-1)),
    (r"scale is 0; expected a number in \(0, inf\)", partial(GCL, scale=0)),
    (r"scale is 0; expected", partial(losses.ldam_loss, Z, Y, COUNTS, scale=0)),
    (r"max_margin is -1; expected", partial(losses.ldam_loss, Z, Y, COUNTS, max_margin=-1)),
    (
        r"tau is inf; expected a number in \(-inf, inf\)",
        partial(losses.logit_adjusted_cross_entropy, Z, Y, COUNTS, tau=np.inf),
    ),
    ("mitigation is -1", partial(losses.seesaw_loss, Z, Y, COUNTS, mitigation=-1)),
    ("compensation is -1", partial(losses.seesaw_loss, Z, Y, COUNTS, compensation=-1)),
    ("gamma_positive is -1", partial(ASL, gamma_positive=-1)),
    ("gamma_negative is -1", partial(ASL, gamma_negative=-1)),
    (r"clip is 1; expected a number in \[0, 1\)", partial(ASL, clip=1)),
    (r"clip is -0.1; expected a number in \[0, 1\]", partial(ASL, clip=-0.1)),
    (r"threshold is 2; expected a number in \[0, 1\]", partial(EQL, threshold=2)),
    (r"probability is 2; expected a number in \[0, 1\]", partial(EQL, probability=2)),
    ("base is 'tanh'; expected 'sigmoid' or 'softmax'", partial(EQL, base="tanh")),
    (
        "base is 'tanh'; expected 'sigmoid' or 'softmax'",
        partial(
            losses.partial_label_masked_cross_entropy, Z, Y, RATIO, IDEAL, key=KEY, base="tanh"
        ),
    ),
    ("negative_scale is 0", partial(DB, negative_scale=0)),
    ("kappa is -1", partial(DB, kappa=-1)),
    (r"alpha is -1; expected a number in \[0, inf\)", partial(DB, alpha=-1)),
    (r"beta is 0.0; expected a number in \(0, inf\)", partial(DB, beta=0.0)),
    ("mu is nan; expected a number", partial(DB, mu=np.nan)),
    ("beta is 0; expected a number", partial(objectives.rebalanced, COUNTS, beta=0)),
    ("alpha is 'x'; expected a number", partial(objectives.rebalanced, COUNTS, alpha="x")),
    ("bins is 1000000000000", partial(partial_label.check_plm, 0.1, 100, 1e30, 1)),
    (
        "num_examples is 499; expected at least the largest count 500",
        partial(DB, num_examples=499),
    ),
    (
        "num_examples is 499; expected at least the largest count 500",
        partial(losses.weighted_sigmoid_cross_entropy, Z, Y, COUNTS, num_examples=499),
    ),
    (
        "power is inf; expected a finite number",
        partial(losses.weighted_sigmoid_cross_entropy, Z, Y, COUNTS, power=np.inf),
    ),
    (
        "num_examples is 499; expected at least the largest count 500",
        partial(losses.label_ratio, COUNTS, 499),
    ),
    ("ratio kind is 'log'", partial(losses.label_ratio, COUNTS, kind="log")),
    ("rate is -1", partial(partial_label.check_plm, -1, 100.0, 10, 1)),
    ("bound is 0.5", partial(partial_label.check_plm, 0.1, 0.5, 10, 1)),
    ("bins is 1; expected a whole number", partial(partial_label.check_plm, 0.1, 100, 1, 1)),
    ("update_every is 0", partial(partial_label.check_plm, 0.1, 100, 10, 0)),
    (
        r"the constant 1e\+45, which float32 cannot hold",
        partial(
            losses.weighted_sigmoid_cross_entropy,
            Z,
            Y,
            [1, 2, 3, 4, 5],
            num_examples=10**9 + 1,
            power=5.0,
        ),
    ),
    (
        r"weights has shape \(3, 2, 5\); expected one that broadcasts .*\(2, 5\)",
        partial(losses.softmax_cross_entropy, Z, Y, weights=np.ones((3, 2, 5))),
    ),
    (
        r"weights has shape \(4,\); expected one that broadcasts",
        partial(losses.sigmoid_cross_entropy, Z, Y, weights=np.ones(4)),
    ),
    (
        r"keep has shape \(3, 1, 5\); expected one that broadcasts",
        partial(ASL, keep=np.ones((3, 1, 5), bool)),
    ),
    (
        r"class_counts\[4\] is 0; expected at least 1",
        partial(losses.balanced_softmax_cross_entropy, Z, Y, [5, 4, 3, 2, 0]),
    ),
)


def test_numbers_outside_their_range_are_refused():
    for sentence, loss, gamma in BAD_GAMMAS:
        with pytest.raises(InputError, match=sentence):
            jax.eval_shape(partial(loss, gamma=gamma), Z, Y)
    for sentence, refused in BAD_NUMBERS:
        with pytest.raises(InputError, match=sentence):
            jax.eval_shape(refused)


def modules_after(statement):
    code = f"import sys, {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(run.stdout.split())


def test_losses_need_jax_and_numpy_only():
    needed = modules_after("jax, jax.numpy, numpy, numpy.typing")
    assert modules_after("lt_jax.losses") - needed <= {"lt_jax"}
