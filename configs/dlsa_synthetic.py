"""DLSA on made features, where it is known whether it helps: 90 seconds on two CPU cores.

    python launch/dlsa.py --config=configs/dlsa_synthetic.py --workdir=runs/dlsa_synthetic
    python launch/dlsa.py --config=configs/dlsa_synthetic.py:1 --workdir=runs/dlsa_one_mode

After the colon comes how many modes each frequent class has. With several, a rare class lies
between two of each, where no linear classifier can follow; with one, there is nothing to divide.
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config


def get_config(modes: str = "4") -> ConfigDict:
    """Config of one kind of made features.

    Args:
      modes: of each frequent class, see `lt_jax.data.made.made_features`.

    Returns:
      The config.
    """
    config = base_config("cross_entropy/dlsa")
    config.name = f"made_features_{modes}_dlsa"
    config.replicas = 5
    config.data.source = f"made_features:{modes}"
    config.data.validation_size = 1000
    config.model.name = "linear"
    config.train.epochs = 20
    config.train.batch_size = 128
    # Found in trials on these features, not tuned on any others.
    config.retrain.cascade.update(depth=2, select="pure_clusters")
    config.retrain.flow.update(num_clusters=50, hidden=64, purity=3.0, epochs=60)
    return config
