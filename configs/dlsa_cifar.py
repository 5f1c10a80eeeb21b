r"""DLSA on the features of long-tailed CIFAR: ResNet-32 first, then the settings of its release.

    python launch/dlsa.py --config=configs/dlsa_cifar.py:cifar100,100,gcl --workdir=runs/dlsa_cifar
    python launch/dlsa.py --config=configs/dlsa_cifar.py --from_workdir=runs/ce --workdir=runs/dlsa

After the colon: the data set (cifar10, cifar100), the imbalance, and how features are trained: a
row of configs/cifar_lt.py with one stage. The release has no CIFAR: these are its settings for
ImageNet-LT, with fewer clusters, smaller batches and clipped gradients: without, one of three seeds
on features of GCL ended with a loss that was not finite.

200 epochs are hours on a CPU, minutes on a GPU.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from lt_jax.recipes import released_division

CLASSES = {"cifar10": 10, "cifar100": 100}
DIM = 64  # features of ResNet-32


def get_config(row: str = "cifar100,100,cross_entropy") -> ConfigDict:
    """Config of one kind of features.

    Args:
      row: ``data set,imbalance,features``, see `get_config` of configs/cifar_lt.py.

    Returns:
      The config.

    Raises:
      InputError: if the row is not of that form.
    """
    first_stage = runpy.run_path(str(Path(__file__).with_name("cifar_lt.py")))["get_config"]
    config = first_stage(f"{row}/dlsa")
    released_division(
        config,
        dim=DIM,
        num_classes=CLASSES[row.split(",")[0]],
        likelihood=2.0,
        balance=1.0,
        purity=0.02,
        batch_size=256,
        epochs=50,
    )
    config.retrain.flow.update(num_clusters=100, clip=1.0)
    return config
