"""DLSA on the features of long-tailed digits: both stages, two blocks, 80 seconds on two CPU cores.

    python launch/dlsa.py --config=configs/dlsa_digits.py --workdir=runs/dlsa_digits

After a colon comes how the features are trained (cross_entropy, cb_softmax, gcl ...). Fields of the
division are those of ``config.retrain``, such as ``--config.retrain.cascade.depth=1``.
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config


def get_config(features: str = "cross_entropy") -> ConfigDict:
    """Config of one kind of features.

    Args:
      features: a method of one stage, as `lt_jax.configuration.base_config` takes it.

    Returns:
      The config.
    """
    config = base_config(f"{features}/dlsa")
    config.name = f"digits_{features}_dlsa"
    config.replicas = 5
    config.retrain.cascade.depth = 2
    config.retrain.flow.num_clusters = 20  # of 312 samples, of which a third come to no block
    config.retrain.flow.batch_size = 64
    return config
