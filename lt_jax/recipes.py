"""What configs have in common: multi-label sets, photographs, the release of DLSA."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from lt_jax.configuration import base_config

# Rows of a table: the baselines, partial label masking, and both methods for rare classes together.
MULTI_LABEL_ROWS = (
    "sigmoid",
    "weighted_sigmoid",
    "focal",
    "cb_focal",
    "asymmetric",
    "distribution_balanced",
    "plm",
    "plm+class_balanced",
)


def multi_label_losses(config: ConfigDict, *, beta: float = 0.999) -> None:
    """Options of the methods, for runs of 30 to 60 epochs.

    Args:
      config: of a run; changed in place, where its method has them.
      beta: of class-balanced weights; 0.9999 is for classes of thousands.

    Example:
      >>> from lt_jax.configuration import base_config
      >>> config = base_config("plm+class_balanced")
      >>> multi_label_losses(config)
      >>> config.objective.transforms.partial_label_mask.rate
      0.05
    """
    transforms = config.objective.transforms
    if "class_balanced" in transforms:
        transforms.class_balanced.beta = beta
    if "partial_label_mask" in transforms:
        transforms.partial_label_mask.rate = 0.05  # so few updates of 0.01 hardly move the ratios


def small_multi_label(config: ConfigDict, *, epochs: int, learning_rate: float) -> None:
    """A recipe for a few thousand examples on a CPU: Adam, batches of 50, options of the methods.

    Args:
      config: of a run; changed in place.
      epochs: how many.
      learning_rate: the highest.

    Example:
      >>> from lt_jax.configuration import base_config
      >>> config = base_config("plm")
      >>> small_multi_label(config, epochs=40, learning_rate=0.003)
      >>> config.optimizer.name, config.train.epochs
      ('adam', 40)
    """
    config.train.epochs = epochs
    config.train.batch_size = 50
    config.train.eval_every_epochs = 5
    config.train.checkpoint_every_epochs = 20
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.warmup_epochs = 2.0
    multi_label_losses(config)


def _photographs(config: ConfigDict) -> None:
    """Images that are read while they train, cropped as ImageNet's usually are, in bfloat16."""
    config.data.imbalance = 0.0  # as they are
    config.data.validation_size = 0
    config.data.stream = True
    config.data.workers = 8
    config.data.resize = "crop"
    config.data.normalization = "imagenet"
    config.model.dtype = "bfloat16"
    config.optimizer.schedule = "step"
    config.optimizer.warmup_epochs = 5.0
    config.train.eval_batch_size = 256
    config.train.eval_every_epochs = 5
    config.train.checkpoint_every_epochs = 1
    augmentations = [config.augment]
    if "augment" in config.retrain:
        augmentations.append(config.retrain.augment)
    for augmentation in augmentations:
        augmentation.random_resized_crop = 0.08
        augmentation.flip = True


def class_balanced_photographs(config: ConfigDict) -> None:
    """The recipe of the class-balanced loss for ImageNet and iNaturalist, 90 epochs.

    Args:
      config: of a run on photographs; changed in place.

    Example:
      >>> from lt_jax.configuration import base_config
      >>> config = base_config("cb_focal")
      >>> class_balanced_photographs(config)
      >>> config.objective.transforms.focal.gamma, config.train.epochs
      (0.5, 90)

    Source: Cui et al., CVPR 2019; batches and rates as Goyal et al., 2017.
    """
    _photographs(config)
    config.train.epochs = 90
    config.train.batch_size = 1024
    config.optimizer.learning_rate = 0.4
    config.optimizer.weight_decay = 1e-4
    config.optimizer.milestones = (30.0, 60.0, 80.0)
    config.optimizer.factors = (0.1, 0.1, 0.1)
    transforms = config.objective.transforms
    if "class_balanced" in transforms:
        transforms.class_balanced.beta = 0.999
    if "focal" in transforms:
        transforms.focal.gamma = 0.5
    if "batch_size" in config.retrain:  # a classifier re-trained: Kang et al., ICLR 2020
        config.retrain.batch_size = 512
        config.retrain.optimizer.learning_rate = 0.2


def gcl_photographs(config: ConfigDict) -> None:
    """The recipe of GCL for sets of photographs: 200 epochs, then 30 of the classifier.

    Args:
      config: of a run on photographs; changed in place.

    Example:
      >>> from lt_jax.configuration import base_config
      >>> config = base_config("gcl")
      >>> gcl_photographs(config)
      >>> config.train.epochs, config.retrain.epochs, config.augment.mixup_alpha
      (200, 30, 1.0)

    Source: Li, Cheung and Lu, CVPR 2022; crops and colours as Kang et al., ICLR 2020.
    """
    _photographs(config)
    config.train.epochs = 200
    config.train.batch_size = 256
    config.optimizer.milestones = (160.0, 180.0)
    config.optimizer.factors = (0.1, 0.1)
    config.augment.mixup_alpha = 1.0
    config.augment.color_jitter = 0.4
    if "augment" in config.retrain:
        config.retrain.augment.color_jitter = 0.4
        config.retrain.batch_size = 256


def released_division(
    config: ConfigDict,
    *,
    dim: int,
    num_classes: int,
    likelihood: float,
    balance: float,
    purity: float,
    batch_size: int,
    epochs: int,
) -> None:
    """The settings of DLSA's released code.

    Its likelihood is a sum over dimensions whose weights sum to 1 over classes, ours a mean with
    weights of mean 1: the coefficient becomes that of the release times D / C. Log-scales
    stay bounded, and so does the purity term; a training sample is not counted among the classes
    of its own cluster; and the epoch kept is that of the paper, not the best on test.

    Args:
      config: of a run with a division; changed in place.
      dim: D.
      num_classes: C.
      likelihood: coefficient of the term in the release.
      balance: coefficient of the term.
      purity: coefficient of the term.
      batch_size: pairs in a step.
      epochs: of a block's flow.

    Example:
      >>> from lt_jax.configuration import base_config
      >>> config = base_config("cross_entropy/dlsa")
      >>> terms = {"likelihood": 2.0, "balance": 1.0, "purity": 0.02}
      >>> released_division(config, dim=2048, num_classes=1000, **terms, batch_size=1024, epochs=50)
      >>> config.retrain.flow.likelihood, config.retrain.flow.num_clusters
      (4.096, 500)

    Source: Xu et al., ECCV 2022, and their code.
    """
    division = config.retrain
    division.cascade.update(
        depth=1, take=0.3, measured_on="train", select="pure_clusters", eval_every=1
    )
    division.flow.update(
        num_clusters=500,
        separation=3.2,  # deviation 0.05 of the coordinates at D = 2048
        likelihood=likelihood * dim / num_classes,
        balance=balance,
        purity=purity,
        weight_power=2.0,
        epochs=epochs,
        batch_size=batch_size,
        optimizer="sgd",
        learning_rate=0.2,
        clip=0.0,
    )
    division.heads.update(own=1.0, epochs=150, batch_size=128, learning_rate=0.01)


def released_features(name: str, folder: str, num_classes: int, **released: Any) -> ConfigDict:
    """DLSA on a folder of features of a ResNet of dimension 2048, as its released code takes them.

    Args:
      name: of the data set.
      folder: with train and test, see `lt_jax.data.feature_files`.
      num_classes: C.
      **released: for `released_division`.

    Returns:
      A config without a validation split, as the release has none.

    Example:
      >>> terms = {"likelihood": 1.0, "balance": 2.0, "purity": 0.03}
      >>> released_features("mine", "features/mine", 365, **terms, batch_size=512, epochs=60).name
      'mine_dlsa'
    """
    config = base_config("cross_entropy/dlsa")
    config.name = f"{name}_dlsa"
    config.data.source = f"features:{folder}"
    config.data.num_classes = num_classes
    config.data.imbalance = 0.0  # as they are
    config.data.validation_size = 0
    config.model.name = "linear"
    config.train.epochs = 30
    config.train.batch_size = 512
    released_division(config, dim=2048, num_classes=num_classes, **released)
    return config
