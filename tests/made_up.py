"""Made-up data sets as arrays of an npz file."""

import numpy as np

MIXED = np.array([0] * 40 + [1] * 30 + [2] * 30)


def one_label(seed=0, counts=(40, 30, 30), test=5, shape=(4, 5, 3), **changes):
    """Images of one label each: every pixel is drawn around a value for its class."""
    rng = np.random.default_rng(seed)
    y_train = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    y_test = np.repeat(np.arange(len(counts)), test)

    def images(labels):
        noise = rng.integers(0, 20, (len(labels), *shape))
        return (noise + 30 * labels.reshape(-1, *[1] * len(shape))).astype(np.uint8)

    arrays = {
        "x_train": images(y_train),
        "y_train": y_train,
        "x_test": images(y_test),
        "y_test": y_test,
    }
    return changed(arrays, changes)


def changed(arrays, changes):
    """With some arrays in the place of others, or none."""
    return {k: v for k, v in {**arrays, **changes}.items() if v is not None}


def source_of(arrays, folder):
    """Writes the arrays there; ``arrays:<file>``."""
    np.savez(folder / "set.npz", **arrays)
    return f"arrays:{folder / 'set.npz'}"
