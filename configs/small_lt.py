r"""Long-tailed Fashion-MNIST, CIFAR-10 and -100 with small networks: methods on two CPU cores.

    python launch/train.py --config=configs/small_lt.py:fashion_mnist,gcl --workdir=runs/fashion_gcl
    python launch/sweep.py --config=configs/small_lt.py --sweep=all,fashion_mnist \
        --workdir=runs/fashion_lt

After the colon: the data set (fashion_mnist, cifar10, cifar100) and the method. The largest class
has 1,000 images and the smallest 10, 2,478 in all; 1,000 more are cut from train for validation.
About two minutes for five seeds of a first stage, seconds for most second ones. Scores:
results/fashion_lt and results/cifar10_lt_small; of partial label masking results/plm_fashion and
results/plm_cifar10 (`--sweep=masking,cifar10`).

cifar100 is for the features that DLSA divides: classes of 350 to 7 images, 300 for validation.
"""

import re

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.errors import InputError
from lt_jax.two_stage import knob_values

CROP = {"fashion_mnist": 1, "cifar10": 2, "cifar100": 2}
SAMPLING = {
    "class_sampling": "class",
    "square_root_sampling": "square_root",
    "progressive_sampling": "progressive",
}
# After an @ comes how stage 2 draws its images: a scheme, or CBEN with its beta; or the noise of
# its clouds.
SAMPLERS = ("class", "cben_0.9999", "cben_0.999", "cben_0.99", "square_root", "instance")
# Features of three kinds, and classifiers made of each.
OF_FEATURES = {
    "cross_entropy": ("crt", "tau_norm", "crt/balanced_softmax", "dlsa"),
    "cb_softmax": ("crt", "tau_norm", "crt/balanced_softmax", "dlsa"),
    "gcl_stage1": ("crt", "crt/balanced_softmax", "dlsa"),
}
SWEEPS = {
    "dlsa": tuple(
        name
        for first, stages in OF_FEATURES.items()
        for name in (first, *(f"{first.removesuffix('_stage1')}/{stage}" for stage in stages))
    ),
    "masking": ("cross_entropy", "plm_softmax", "sigmoid", "plm"),
    "samplers": tuple(f"{stage}@{sampler}" for stage in ("crt", "gcl") for sampler in SAMPLERS),
    "all": (
        "cross_entropy",
        "cross_entropy_mixup",
        "cosine",
        *SAMPLING,
        "cb_focal",
        "ldam_drw",
        "balanced_softmax",
        "posthoc_logit_adjustment",
        "tau_norm",
        "ncm",
        "lws",
        "crt",
        "gcl_stage1",
        "gcl",
        "gcl@noise_0.5",
        "gcl/crt",
        "gcl/posthoc_logit_adjustment",
    ),
}


def get_config(row: str = "fashion_mnist,cross_entropy") -> ConfigDict:
    """Config of one row.

    Args:
      row: ``data set,method``; the method is class_sampling, square_root_sampling,
        progressive_sampling, cross_entropy_mixup, or any that
        `lt_jax.configuration.base_config` takes, one of two stages followed by ``@`` and one of
        `SAMPLERS`, or ``noise_K``, for the second.

    Returns:
      The config.

    Raises:
      InputError: if the row is not of that form.
    """
    data_set, _, name = row.partition(",")
    if data_set not in CROP or not name:
        raise InputError(f"config string is {row!r}; expected such as 'fashion_mnist,gcl'")
    full_name, (name, _, variant) = name, name.partition("@")
    method = "cross_entropy" if name in (*SAMPLING, "cross_entropy_mixup") else name
    config = base_config(method)
    config.data.source = f"tfds:{data_set}"
    config.data.imbalance = 100.0
    config.data.max_count = 1000
    config.data.validation_size = 1000
    if data_set == "cifar100":
        config.data.imbalance = 50.0
        config.data.max_count = 350
        config.data.validation_size = 300
        config.model.name = "conv4"  # 9x9 pixels do not tell a hundred classes apart
    config.name = f"{data_set}_lt{config.data.imbalance:g}_{re.sub('[/@]', '_', full_name)}"
    config.sampling.scheme = SAMPLING.get(name, "instance")
    config.augment.crop_padding = CROP[data_set]
    config.augment.flip = True
    config.augment.mixup_alpha = 1.0 if name == "cross_entropy_mixup" else 0.0
    # Chosen on validation, the same for every method.
    config.train.epochs = 60 if data_set == "cifar100" else 40
    config.train.batch_size = 32
    config.train.eval_every_epochs = 5
    config.optimizer.learning_rate = 0.3
    config.optimizer.warmup_epochs = 5.0
    _methods(config)
    if config.retrain.method:
        _second_stage(config)
    if variant.startswith("noise_") and "gaussian_cloud" in _stage2_transforms(config):
        noise = _number(variant.removeprefix("noise_"))
        config.retrain.objective.transforms.gaussian_cloud.noise = noise
    elif variant:
        _sample(config, variant)
    return config


def _stage2_transforms(config: ConfigDict) -> ConfigDict:
    return config.retrain.get("objective", ConfigDict({"transforms": {}})).transforms


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"noise is {text!r}; expected a number such as 0.5") from error


def _sample(config: ConfigDict, sampler: str) -> None:
    if sampler not in SAMPLERS or "sampling" not in config.retrain:
        raise InputError(
            f"sampler is {sampler!r}; expected one of {', '.join(SAMPLERS)}, after a second stage"
            " that is trained"
        )
    scheme, _, beta = sampler.partition("_") if sampler.startswith("cben") else (sampler, "", "")
    config.retrain.sampling.scheme = "class_based_effective_number" if beta else scheme
    if beta:
        config.retrain.sampling.beta = float(beta)


def _methods(config: ConfigDict) -> None:
    """What belongs to a method."""
    transforms = config.objective.transforms
    if "class_balanced" in transforms:
        # 0.9999 is for classes of thousands.
        few = config.data.source == "tfds:cifar100"
        transforms.class_balanced.beta = 0.99 if few else 0.999
    if "partial_label_mask" in transforms:
        transforms.partial_label_mask.rate = 0.05  # chosen on validation for 40 updates


def _second_stage(config: ConfigDict) -> None:
    """Cached features, short training; knobs are chosen among these on validation."""
    retrain = config.retrain
    if "cascade" in retrain:
        _division(config)
    elif knob := knob_values(retrain):
        retrain.update(knob)
    else:
        retrain.epochs = 20
        retrain.batch_size = 32
        # Chosen on validation on both sets, as was GCL's noise: with the 0.5 of the paper, on top
        # of balanced sampling, the frequent classes lose more than the rare ones gain.
        retrain.optimizer.schedule = "cosine"
        retrain.optimizer.warmup_epochs = 2.0
        retrain.optimizer.learning_rate = 0.3 if retrain.method == "crt" else 0.1
        retrain.augment.mixup_alpha = 0.0  # underfits with it; without, features are computed once
        if "gaussian_cloud" in retrain.objective.transforms:
            retrain.objective.transforms.gaussian_cloud.noise = 0.25


def _division(config: ConfigDict) -> None:
    """Weight decay is chosen on validation, on the features of cross-entropy."""
    config.retrain.flow.purity = 0.1
    if config.data.source == "tfds:cifar100":
        config.retrain.heads.weight_decay = 5e-3
    else:
        config.retrain.flow.num_clusters = 50


def get_sweep(name: str) -> list[str]:
    """Rows of a table.

    Args:
      name: one of `SWEEPS`, then the data set: ``"all,fashion_mnist"``.

    Returns:
      Strings for `get_config`.

    Raises:
      InputError: if there is no such table.
    """
    table, _, data_set = name.partition(",")
    if table not in SWEEPS or data_set not in CROP:
        raise InputError(f"sweep is {name!r}; expected such as 'all,fashion_mnist'")
    return [f"{data_set},{method}" for method in SWEEPS[table]]
