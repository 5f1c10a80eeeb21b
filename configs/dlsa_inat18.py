r"""DLSA on features of iNaturalist 2018, with the settings of ImageNet-LT.

    python launch/dlsa.py --config=configs/dlsa_inat18.py:DIR --workdir=runs/dlsa_inat18

DIR has train and test, each a file of ``features`` [N, 2048] and ``labels`` [N], .npz or .h5; see
configs/dlsa_features.py. The release reads such files too. Its settings for this set are not
known to us: they are those of ImageNet-LT.
"""

from ml_collections import ConfigDict

from lt_jax.recipes import released_features


def get_config(folder: str = "features/inat18") -> ConfigDict:
    """Config for a folder of features.

    Args:
      folder: where they are.

    Returns:
      The config.
    """
    return released_features(
        "inat18",
        folder,
        8_142,
        likelihood=2.0,
        balance=1.0,
        purity=0.02,
        batch_size=1024,
        epochs=50,
    )
