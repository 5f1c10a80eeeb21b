r"""DLSA on features of Places-LT, with the settings of its released code.

    python launch/dlsa.py --config=configs/dlsa_places_lt.py:DIR --workdir=runs/dlsa_places_lt

DIR has train and test, each a file of ``features`` [N, 2048] and ``labels`` [N], .npz or .h5; see
configs/dlsa_features.py. The release reads such files too, and keeps the best epoch by test
accuracy; here it is the one with the most pure clusters on train, as the paper says.
"""

from ml_collections import ConfigDict

from lt_jax.recipes import released_features


def get_config(folder: str = "features/places_lt") -> ConfigDict:
    """Config for a folder of features.

    Args:
      folder: where they are.

    Returns:
      The config.
    """
    return released_features(
        "places_lt",
        folder,
        365,
        likelihood=1.0,
        balance=2.0,
        purity=0.03,
        batch_size=512,
        epochs=60,
    )
