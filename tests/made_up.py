"""Made-up data: sets of one label an image and of several, as arrays of npz files; digit images."""

import numpy as np

MIXED = np.array([0] * 40 + [1] * 30 + [2] * 30)
NAMES = np.array(["ant", "bee", "cat", "dog"])
SHARES = (0.6, 0.3, 0.1, 0.05)
SIDE = 4  # of a digit image


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


def multi_hot(count=200, shares=SHARES, seed=0):
    """Labels whose classes occur together by chance; some examples have none."""
    return (np.random.default_rng(seed).random((count, len(shares))) < shares).astype(np.uint8)


def several_labels(count=200, test=100, **changes):
    """Feature vectors of several labels each."""
    rng = np.random.default_rng(1)
    arrays = {
        "x_train": rng.normal(5, [1, 2, 3], (count, 3)).astype(np.float32),
        "y_train": multi_hot(count),
        "x_test": rng.normal(5, [1, 2, 3], (test, 3)).astype(np.float32),
        "y_test": multi_hot(test, seed=2),
        "label_names": NAMES,
    }
    return changed(arrays, changes)


def changed(arrays, changes):
    """With some arrays in the place of others, or none."""
    return {k: v for k, v in {**arrays, **changes}.items() if v is not None}


def source_of(arrays, folder):
    """Writes the arrays there; ``arrays:<file>``."""
    np.savez(folder / "set.npz", **arrays)
    return f"arrays:{folder / 'set.npz'}"


def pool(count=400, seed=0, side=SIDE):
    """Digit images of noise, so that no two are equal, and their classes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 256, (count, side, side, 1)).astype(np.uint8)
    return images, rng.permutation(np.arange(count) % 10).astype(np.int32)
