"""Long-tailed digits (scikit-learn's, bundled): needs no download.

    python launch/train.py --config=configs/digits.py:cb_focal --workdir=runs/digits_cb_focal

The part after the colon is a method, or several methods and transforms joined by ``+``. About 10 s
for one seed on 2 CPU cores. Scores of nine methods, five seeds each: results/digits/table.md.
"""

from ml_collections import ConfigDict

from lt_jax.configuration import base_config
from lt_jax.two_stage import knob_values


def get_config(method: str = "cross_entropy") -> ConfigDict:
    """Config of one method on long-tailed digits.

    ``gcl``, ``crt``, ``lws``, ``tau_norm``, ``ncm`` and ``posthoc_logit_adjustment`` have two
    stages.

    Args:
      method: one of `lt_jax.objectives.METHODS`, or names joined by ``+``.

    Returns:
      The config.
    """
    config = base_config(method)
    # Chosen on validation: batch, rate and crop, each as good or better for every method tried.
    config.train.epochs = 60
    config.train.batch_size = 32
    config.optimizer.learning_rate = 0.3
    # Without it the training images are fitted exactly, and weights then change little.
    config.augment.crop_padding = 1
    config.train.checkpoint_every_epochs = 20
    config.train.log_every_steps = 20
    config.optimizer.warmup_epochs = 5.0
    transforms = config.objective.transforms
    if "class_balanced" in transforms:
        transforms.class_balanced.beta = 0.999  # 0.9999 is for classes of thousands
    if "partial_label_mask" in transforms:
        transforms.partial_label_mask.rate = 0.05  # 60 updates of 0.01 hardly move the ratios
    for name in ("gaussian_cloud", "label_distribution_margin", "scale_logits"):
        if name in transforms:
            transforms[name].scale = 15.0  # 30 diverges on so few images
    if config.retrain.method:
        _second_stage(config.retrain)
    return config


def _second_stage(retrain: ConfigDict) -> None:
    """Smaller batches for few images; knobs are chosen among these on validation."""
    if knob := knob_values(retrain):
        retrain.update(knob)
    elif "cascade" in retrain:
        retrain.cascade.depth = 2
        retrain.flow.num_clusters = 20  # of 312 samples, of which a third come to no block
        retrain.flow.batch_size = 64
    else:
        retrain.epochs = 20
        retrain.batch_size = 32
        retrain.augment.mixup_alpha = 0.0  # so that features are computed once
        retrain.optimizer.schedule = "cosine"
        transforms = retrain.objective.transforms
        if "gaussian_cloud" in transforms:
            transforms.gaussian_cloud.scale = 10.0
        for name in ("scale_logits", "label_distribution_margin"):
            if name in transforms:
                transforms[name].scale = 15.0
