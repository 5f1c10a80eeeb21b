"""What tests of classifiers on frozen features share: features, heads, and logits in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax.models import create_model
from lt_jax.state import make_network

R, B, D, C = 3, 9, 64, 5
COUNTS = [500, 120, 40, 6, 1]
TAUS = [0.0, 0.5, 1.0, 1.7]
RNG = np.random.default_rng(11)
# As of a network that ends in relu and a mean: not negative; some features are dead.
FEATURES = (np.abs(RNG.normal(size=(R, B, D))) * (RNG.random((R, 1, D)) > 0.1)).astype(np.float32)
# Lengths of the weight vectors differ by class, as after training on a long tail.
HEADS = {
    "kernel": (RNG.normal(size=(R, D, C)) * [3, 2, 1, 0.5, 0.2]).astype(np.float32),
    "bias": RNG.normal(size=(R, C)).astype(np.float32),
}
COSINE_HEADS = {"kernel": HEADS["kernel"]}
LABELS = np.random.default_rng(3).permutation(np.repeat(np.arange(C), [40, 12, 6, 2, 1]))
CENTRES = np.abs(RNG.normal(size=(R, C, D)))
TRAIN = np.abs(CENTRES[:, LABELS] + 0.7 * RNG.normal(size=(R, len(LABELS), D))).astype(np.float32)


def network_of(head="linear"):
    return make_network(
        lambda rngs: create_model(
            "small", image_shape=(8, 8, 1), num_classes=C, head=head, rngs=rngs
        )
    )


CLASSIFY = {head: network_of(head).classify for head in ("linear", "cosine")}


def over(made, features):
    """Logits ``[R, K, B, C]`` as `lt_jax.posthoc` has them: all values of all replicas at once."""
    over_values = jax.vmap(made.logits, in_axes=(0, None, None))
    over_replicas = jax.jit(jax.vmap(over_values))
    numbers = np.broadcast_to(made.numbers, (len(features), len(made.numbers)))
    return np.asarray(over_replicas(numbers, made.memory, jnp.asarray(features)))


def close(got, want, tolerance=1e-5):
    """Equal up to float32 rounding of sums whose terms are as large as the largest value."""
    want = np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


# Second implementations, in float64, entry by entry


def linear(head, x):
    w, b = np.asarray(head["kernel"], np.float64), np.asarray(head["bias"], np.float64)
    return np.array([w[:, j] @ x + b[j] for j in range(w.shape[1])])


def cosine(head, x):
    w = np.asarray(head["kernel"], np.float64)
    length = np.sqrt(x @ x)
    return np.array([w[:, j] @ x / length / np.sqrt(w[:, j] @ w[:, j]) for j in range(w.shape[1])])


def each(function, heads, features=FEATURES):
    """``[R, B, C]`` of a function of one head and one feature vector."""
    features = np.asarray(features, np.float64)
    return np.array(
        [
            [function({k: v[r] for k, v in heads.items()}, x) for x in features[r]]
            for r in range(len(features))
        ]
    )
