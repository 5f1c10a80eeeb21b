"""Features that no network has seen: the first principal components of the pixels of a TFDS set.

    python benchmarks/pixel_features.py --data_dir=DIR --out=features/fashion_pixels

On features of a network that was trained on the same classes a linear classifier is hard to beat:
they were made for one. These were not. Writes train.npz and test.npz for
`configs/dlsa_features.py`; the components are those of train.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

from lt_jax.data import load_source


def main():
    """Reads the set, and writes the features."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="tfds:fashion_mnist")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    source = load_source(args.source, data_dir=args.data_dir)
    train, test = (
        np.asarray(images, np.float32).reshape(len(images), -1) / 255
        for images in (source.train_images, source.test_images)
    )
    pca = PCA(args.components, random_state=0).fit(train)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, x, y in (
        ("train", train, source.train_labels),
        ("test", test, source.test_labels),
    ):
        np.savez(args.out / f"{name}.npz", features=pca.transform(x).astype(np.float32), labels=y)
    share = pca.explained_variance_ratio_.sum()
    print(f"{args.components} components with {100 * share:.1f} % of the variance in {args.out}")


if __name__ == "__main__":
    main()
