r"""DLSA on features of ImageNet-LT, with the settings of its released code.

    python launch/dlsa.py --config=configs/dlsa_imagenet_lt.py:DIR --workdir=runs/dlsa_imagenet_lt

DIR has train and test, each a file of ``features`` [N, 2048] and ``labels`` [N], .npz or .h5; see
configs/dlsa_features.py. The release reads such files too, and keeps the best epoch by test
accuracy; here it is the one with the most pure clusters on train, as the paper says.
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.recipes import released_division

NUM_CLASSES, DIM = 1_000, 2048


def get_config(folder: str = "features/imagenet_lt") -> ConfigDict:
    """Config for a folder of features.

    Args:
      folder: where they are.

    Returns:
      The config.
    """
    config = base_config("cross_entropy/dlsa")
    config.name = "imagenet_lt_dlsa"
    config.data.source = f"features:{folder}"
    config.data.num_classes = NUM_CLASSES
    config.data.imbalance = 0.0  # as they are
    config.data.validation_size = 0
    config.model.name = "linear"
    config.train.epochs = 30
    config.train.batch_size = 512
    released_division(
        config,
        likelihood=2.0 * DIM / NUM_CLASSES,
        balance=1.0,
        purity=0.02,
        batch_size=1024,
        epochs=50,
    )
    return config
