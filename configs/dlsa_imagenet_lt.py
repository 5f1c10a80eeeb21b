r"""DLSA on features of ImageNet-LT, with the settings of its released code.

    python launch/dlsa.py --config=configs/dlsa_imagenet_lt.py:DIR --workdir=runs/dlsa_imagenet_lt

DIR has train and test, each a file of ``features`` [N, 2048] and ``labels`` [N], .npz or .h5; see
configs/dlsa_features.py. The release reads such files too, and keeps the best epoch by test
accuracy; here it is the one with the most pure clusters on train, as the paper says.
"""

from ml_collections import ConfigDict

from lt_jax.recipes import released_features


def get_config(folder: str = "features/imagenet_lt") -> ConfigDict:
    """Config for a folder of features.

    Args:
      folder: where they are.

    Returns:
      The config.
    """
    return released_features(
        "imagenet_lt",
        folder,
        1_000,
        likelihood=2.0,
        balance=1.0,
        purity=0.02,
        batch_size=1024,
        epochs=50,
    )
