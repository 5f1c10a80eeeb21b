"""Long-tailed CIFAR with ResNet-32: every row of the class-balanced paper's table, stage 1 of GCL.

    python launch/train.py --config=configs/cifar_lt.py:cifar10,100,cb_focal --workdir=runs/cb_focal

After the colon: the data set (cifar10, cifar100), the imbalance, the method (see `get_config`). The
rows of the paper: softmax, sigmoid, focal_0.5, focal_1, focal_2, cb_softmax, cb_sigmoid,
cb_focal_0.5, cb_focal_1, cb_focal_2, each at imbalance 200, 100, 50, 20, 10 and 1; beta is
``--config.objective.transforms.class_balanced.beta``. As in the papers all of train is used, so
that only the last epoch counts; ``--config.data.validation_size=1000`` cuts a validation split.

200 epochs at imbalance 100 are 19,400 steps: hours on a CPU, minutes on a GPU.
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.errors import InputError

CB_ROWS = {
    "softmax": ("cross_entropy", None),
    "focal_0.5": ("focal", 0.5),
    "focal_1": ("focal", 1.0),
    "focal_2": ("focal", 2.0),
    "cb_focal_0.5": ("cb_focal", 0.5),
    "cb_focal_1": ("cb_focal", 1.0),
    "cb_focal_2": ("cb_focal", 2.0),
}


def get_config(row: str = "cifar10,100,cb_focal") -> ConfigDict:
    """Config of one row.

    Args:
      row: ``data set,imbalance,method``; the method is a row of the paper's table, one of
        `lt_jax.objectives.METHODS`, or names joined by ``+``.

    Returns:
      The config.

    Raises:
      InputError: if the row is not of that form.
    """
    parts = row.split(",")
    if len(parts) != 3 or parts[0] not in ("cifar10", "cifar100"):
        raise InputError(f"config string is {row!r}; expected such as 'cifar10,100,cb_focal'")
    data_set, imbalance, name = parts
    try:
        ratio = float(imbalance)
    except ValueError as error:
        raise InputError(f"imbalance is {imbalance!r}; expected a number such as 100") from error
    method, gamma = CB_ROWS.get(name, (name, None))
    config = base_config(method)
    config.name = f"{data_set}_lt{imbalance}_{name}"
    config.data.source = f"tfds:{data_set}"
    config.data.imbalance = ratio
    config.data.validation_size = 0
    config.augment.crop_padding = 4
    config.augment.flip = True
    config.model.name = "resnet32"
    config.train.epochs = 200
    config.train.batch_size = 128
    config.train.eval_every_epochs = 5
    config.optimizer.schedule = "step"
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.milestones = (160.0, 180.0)
    config.optimizer.factors = (0.01, 0.01)
    if gamma is not None:
        config.objective.transforms.focal.gamma = gamma
    if "gaussian_cloud" in config.objective.transforms:
        _gcl_recipe(config)
    return config


def _gcl_recipe(config: ConfigDict) -> None:
    """What stage 1 of GCL does differently."""
    config.train.batch_size = 64
    config.augment.mixup_alpha = 1.0
    config.optimizer.factors = (0.1, 0.1)
