"""Several digits on a canvas, long-tailed (scikit-learn's digits, bundled): needs no download.

    python launch/train.py --config=configs/multi_digits.py:plm --workdir=runs/multi_digits_plm
    python launch/sweep.py --config=configs/multi_digits.py --sweep=all --workdir=runs/multi_digits

After the colon: a method, or several methods and transforms joined by ``+``. 2,000 canvases of
20x20 pixels with two to four digits each, whose frequencies differ by a factor of 50; validation
and test canvases are made of other digits, all equally frequent. Less than a minute for one seed
on 2 CPU cores.
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.errors import InputError

SWEEPS = {
    "all": (
        "sigmoid",
        "weighted_sigmoid",
        "focal",
        "cb_focal",
        "asymmetric",
        "distribution_balanced",
        "plm",
        "plm+class_balanced",
    ),
}


def get_config(method: str = "plm") -> ConfigDict:
    """Config of one method on canvases of digits.

    Args:
      method: one of `lt_jax.objectives.METHODS` whose classes do not compete, or names joined by
        ``+``.

    Returns:
      The config.
    """
    config = base_config(method)
    config.name = f"multi_digits_{config.name}"
    config.data.source = "multi_digits"
    config.data.imbalance = 50.0
    config.data.validation_size = 500
    config.data.canvas.images = 2000
    config.data.canvas.test_images = 1000
    config.train.epochs = 40
    config.train.batch_size = 50
    config.train.eval_every_epochs = 5
    config.train.checkpoint_every_epochs = 20
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.003
    config.optimizer.warmup_epochs = 2.0
    transforms = config.objective.transforms
    if "class_balanced" in transforms:
        transforms.class_balanced.beta = 0.999  # 0.9999 is for classes of thousands
    if "partial_label_mask" in transforms:
        transforms.partial_label_mask.rate = 0.05  # 40 updates of 0.01 hardly move the ratios
    return config


def get_sweep(name: str) -> list[str]:
    """Rows of a table.

    Args:
      name: ``"all"``.

    Returns:
      Strings for `get_config`.

    Raises:
      InputError: if there is no such table.
    """
    if name not in SWEEPS:
        raise InputError(f"sweep is {name!r}; expected {' or '.join(map(repr, SWEEPS))}")
    return list(SWEEPS[name])
