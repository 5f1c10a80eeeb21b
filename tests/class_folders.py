"""Folders of images, a sub-folder for each class, and what has to come out of them."""

import numpy as np
import pytest

from lt_jax.data import StreamedImages, load_dataset

pytest.importorskip("grain")
Image = pytest.importorskip("PIL.Image")

CLASSES = ("ant", "bee", "cat")
COUNTS = {"train": (6, 4, 3), "val": (2, 2, 2), "test": (1, 2, 1)}


def pixels(split, c, i):
    """An image of its own, of one of two sizes."""
    rng = np.random.default_rng([len(split), c, i])
    return rng.integers(0, 256, ((12, 9, 3), (8, 10, 3))[i % 2]).astype(np.uint8)


def write(root, splits=("train", "val"), counts=COUNTS):
    for split in splits:
        for c, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(counts[split][c]):
                Image.fromarray(pixels(split, c, i)).save(folder / f"{i}.png")
    (root / "train/ant/notes.txt").write_text("no image")
    (root / "train/ant/.hidden.png").write_text("no image")
    return root


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path)


def load(folder, **options):
    options = {"image_size": 8, "imbalance": 0, "validation_size": 0, **options}
    return load_dataset({"source": f"folder:{folder}", **options})


def arrays(images):
    return images.read(np.arange(len(images))) if isinstance(images, StreamedImages) else images


def resized(split, order=None):
    """Pixels and labels as they have to come out, in the order of the names."""
    order = order or [(c, i) for c in range(3) for i in range(COUNTS[split][c])]
    images = [Image.fromarray(pixels(split, *pair)).resize((8, 8), 2) for pair in order]
    return np.stack([np.asarray(x) for x in images]), [c for c, _ in order]
