r"""Long-tailed CIFAR with ResNet-32: the rows of the tables of GCL and of the class-balanced loss.

    python launch/train.py --config=configs/cifar_lt.py:cifar10,100,gcl --workdir=runs/gcl
    python launch/sweep.py --config=configs/cifar_lt.py --sweep=gcl_table,cifar10,100 \
        --workdir=runs/gcl_table

After the colon: the data set (cifar10, cifar100), the imbalance, the method (see `get_config`).
`gcl`, `crt`, `lws`, `tau_norm`, `ncm` and `posthoc_logit_adjustment` have two stages;
``--config.retrain...`` sets the second one's fields. As in the papers all of train is used, so that
only the last epoch counts; ``--config.data.validation_size=1000`` cuts a validation split.

200 epochs of CIFAR-10 at imbalance 100 are 19,200 steps, of GCL 38,600 and 5,790: hours on a CPU,
minutes on a GPU.
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.errors import InputError

# Rows whose objective has another name in lt_jax, with the gamma of their focal factor.
FOCAL_ROWS = {
    f"{prefix}focal_{gamma:g}": (f"{prefix}focal", gamma)
    for prefix in ("", "cb_")
    for gamma in (0.5, 1.0, 2.0)
}
SAMPLING_ROWS = {
    "class_sampling": "class",
    "square_root_sampling": "square_root",
    "progressive_sampling": "progressive",
}
# The best row of the class-balanced paper by data set and imbalance: method and beta.
CB_BEST = {
    "cifar10": {
        "200": ("cb_softmax", 0.9999),
        "100": ("cb_focal_1", 0.9999),
        "50": ("cb_focal_2", 0.9999),
        "20": ("cb_softmax", 0.9999),
        "10": ("cb_sigmoid", 0.9999),
        "1": ("sigmoid", None),  # there all weights are 1
    },
    "cifar100": {
        "200": ("cb_focal_1", 0.9),
        "100": ("cb_focal_1", 0.9),
        "50": ("cb_sigmoid", 0.99),
        "20": ("cb_focal_0.5", 0.99),
        "10": ("cb_focal_0.5", 0.999),
        "1": ("sigmoid", None),
    },
}
GCL_TABLE = (
    "cross_entropy",
    "focal_1",
    "cb_focal_1",
    "ldam_drw",
    "balanced_softmax",  # at tau = 1 the logit-adjusted loss is the same
    "posthoc_logit_adjustment",
    "crt",
    "lws",
    "tau_norm",
    "gcl_stage1",
    "gcl",
)
SWEEPS = {
    "gcl_table": GCL_TABLE,
    "both_tables": (*GCL_TABLE, "sigmoid", "focal_0.5", "focal_2", "cb_best"),
    "cb_table": ("softmax", "sigmoid", "focal_0.5", "focal_1", "focal_2", "cb_best"),
    "sampling": ("cross_entropy", *SAMPLING_ROWS, "crt"),
    "strong": ("balanced_softmax_strong", "gcl_strong"),
}


def get_config(row: str = "cifar10,100,cb_focal") -> ConfigDict:
    """Config of one row.

    Args:
      row: ``data set,imbalance,method``; the method is a row of a table (softmax, sigmoid,
        focal_0.5, focal_1, focal_2, cb_softmax, cb_sigmoid, cb_focal_0.5, cb_focal_1, cb_focal_2,
        cb_best, class_sampling, square_root_sampling, progressive_sampling), or any that
        `lt_jax.configuration.base_config` takes; ``_strong`` after it adds AutoAugment and Cutout
        and trains twice as long.

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
    method, strong = name.removesuffix("_strong"), name.endswith("_strong")
    beta = None
    if method == "cb_best":
        if imbalance not in CB_BEST[data_set]:
            raise InputError(
                f"imbalance is {imbalance!r}; cb_best is known for"
                f" {', '.join(CB_BEST[data_set])} only"
            )
        method, beta = CB_BEST[data_set][imbalance]
    config = _with_objective(method)
    config.name = f"{data_set}_lt{imbalance}_{name}".replace("/", "_")
    config.data.source = f"tfds:{data_set}"
    config.data.imbalance = ratio
    config.data.validation_size = 0
    config.model.name = "resnet32"
    _recipe(config)
    if "gaussian_cloud" in config.objective.transforms:
        _gcl_recipe(config)
    if beta is not None:
        config.objective.transforms.class_balanced.beta = beta
    if strong:
        _strong_recipe(config)
    return config


def get_sweep(name: str) -> list[str]:
    """Rows of a table.

    Args:
      name: a key of `SWEEPS`, then data set and imbalance:
        ``"gcl_table,cifar10,100"``.

    Returns:
      Strings for `get_config`.

    Raises:
      InputError: if there is no such table.
    """
    table, _, rest = name.partition(",")
    if table not in SWEEPS or not rest:
        raise InputError(
            f"sweep is {name!r}; expected one of {', '.join(SWEEPS)}, then data set and imbalance,"
            " such as 'gcl_table,cifar10,100'"
        )
    return [f"{rest},{method}" for method in SWEEPS[table]]


def _with_objective(name: str) -> ConfigDict:
    """The base config of a row, with its gamma or sampling."""
    method, gamma = FOCAL_ROWS.get(name, (name, None))
    method = {"softmax": "cross_entropy"}.get(method, method)
    config = base_config("cross_entropy" if name in SAMPLING_ROWS else method)
    config.sampling.scheme = SAMPLING_ROWS.get(name, "instance")
    if gamma is not None:
        config.objective.transforms.focal.gamma = gamma
    return config


def _recipe(config: ConfigDict) -> None:
    """What all rows have in common."""
    config.augment.crop_padding = 4
    config.augment.flip = True
    config.train.epochs = 200
    config.train.batch_size = 128
    config.train.eval_every_epochs = 5
    config.optimizer.schedule = "step"
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.milestones = (160.0, 180.0)
    config.optimizer.factors = (0.01, 0.01)
    if "augment" in config.retrain:
        config.retrain.augment.crop_padding = 4
        config.retrain.augment.flip = True


def _gcl_recipe(config: ConfigDict) -> None:
    """What stage 1 of GCL does differently."""
    config.train.batch_size = 64
    config.augment.mixup_alpha = 1.0
    config.optimizer.factors = (0.1, 0.1)


def _strong_recipe(config: ConfigDict) -> None:
    """AutoAugment and Cutout, 400 epochs."""
    config.augment.autoaugment = True
    config.augment.cutout_size = 16
    config.train.epochs = 400
    config.optimizer.milestones = (320.0, 360.0)
