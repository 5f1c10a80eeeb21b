"""Advice as commands and code: a line for a shell, a few for somebody's own training loop."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lt_jax.advice.choices import LARGE, THOUSANDS, Choice, Value
from lt_jax.advice.measured import Measures
from lt_jax.advice.settings import SMALL, Numbers

_CLOUD = "objective.transforms.gaussian_cloud"
_HEADER = """\
from lt_jax import losses  # counts: training images of each class, in the order of the labels"""
# What stands for the loss of a method; the others are built by their names.
_LOSSES = {
    "cross_entropy": "losses.softmax_cross_entropy(logits, labels).mean()",
    "sigmoid": "losses.sigmoid_cross_entropy(logits, labels).mean()",
    "balanced_softmax": "losses.balanced_softmax_cross_entropy(logits, labels, counts).mean()",
    "gcl": """\
losses.gaussian_clouded_cross_entropy(
    cosines, labels, counts, key=key, noise={noise:g}, scale={scale:g}
).mean()  # cosines of features and class vectors; a new key each step""",
    "cb_focal": """\
losses.class_balanced_focal_loss(logits, labels, counts, beta={beta:g}, gamma={gamma:g}).mean()""",
    "distribution_balanced": """\
losses.distribution_balanced_loss(logits, labels, counts, num_examples={num_examples}).mean()""",
    "weighted_sigmoid": """\
losses.weighted_sigmoid_cross_entropy(
    logits, labels, counts, num_examples={num_examples}
).mean()""",
}


def fields_of(choice: Choice, numbers: Numbers) -> dict[str, Value]:
    """Fields of a config that a choice sets, with the advised numbers.

    Args:
      choice: a method.
      numbers: from `numbers_for`.

    Returns:
      Values by the names of their fields.

    Example:
      >>> numbers = Numbers(0.999, 15.0, 10.0, 0.5, 0.25, 0.05)
      >>> fields_of(Choice("cb_focal", "", "", {}), numbers)
      {'objective.transforms.class_balanced.beta': 0.999}
    """
    fields: dict[str, Value] = {}
    if choice.method in ("gcl", "gcl_stage1"):
        fields |= {f"{_CLOUD}.scale": numbers.scale, f"{_CLOUD}.noise": numbers.noise}
    if choice.method == "gcl":
        fields |= {
            f"retrain.{_CLOUD}.scale": numbers.scale2,
            f"retrain.{_CLOUD}.noise": numbers.noise2,
        }
    if choice.method == "cb_focal":
        fields["objective.transforms.class_balanced.beta"] = numbers.beta
    if choice.method == "plm":
        fields["objective.transforms.partial_label_mask.rate"] = numbers.rate
    return {**fields, **choice.fields}


def command_for(
    choice: Choice,
    numbers: Numbers,
    measures: Measures,
    multi_label: bool,
    config: Sequence[str] = (),
    image_shape: Sequence[int] = (),
) -> str:
    """How to train a choice with this project's scripts.

    Args:
      choice: a method.
      numbers: from `numbers_for`.
      measures: of the set.
      multi_label: whether an example may have several labels, or none.
      config: ``FILE:STRING`` whose data are meant, and whose string ends with a method; then maybe
        ``FIELD=VALUE`` of what was set in it. If empty, or without a string, a file is chosen whose
        recipe is for sets of this size.
      image_shape: ``(H, W, C)``, or ``(D,)`` of feature vectors, for a network that suits them
        where the file is chosen; empty if not known.

    Returns:
      A command of several lines. FILE or FOLDER stand for where the data are.
    """
    file, _, string = (*config, "")[0].rpartition(":")
    start, fields = _own_data(choice.method, measures, multi_label, image_shape)
    if file:
        start, fields = f"{file}:{_with_method(string, choice.method)}", {}
    fields |= dict(text.split("=", 1) for text in config[1:])
    fields |= fields_of(choice, numbers)
    lines = [
        "python launch/train.py",
        shlex.quote(f"--config={start}"),
        *(shlex.quote(f"--config.{name}={value}") for name, value in fields.items()),
        f"--workdir=runs/{choice.method.replace('/', '_')}",
    ]
    return " \\\n    ".join(lines)


def _with_method(string: str, method: str) -> str:
    before, comma, _ = string.rpartition(",")
    return f"{before}{comma}{method}"


def held_out(num_examples: int) -> int:
    """How many of so many training examples to cut off for validation: a tenth, at most 1,000."""
    return min(1000, num_examples // 10)


def network_for(image_shape: Sequence[int]) -> str:
    """A network for images of a size.

    Args:
      image_shape: ``(H, W, C)``.

    Returns:
      A name for ``config.model.name``.

    Example:
      >>> [network_for(shape) for shape in [(8, 8, 1), (64, 64, 3), (96, 224, 3)]]
      ['small', 'conv4', 'resnet18']
    """
    side = max(image_shape[:2])
    return "small" if side <= 28 else "conv4" if side <= 64 else "resnet18"


def _own_data(
    method: str, measures: Measures, multi_label: bool, image_shape: Sequence[int]
) -> tuple[str, dict[str, Value]]:
    """A config with a recipe for a set of this size, and its fields for data of one's own."""
    size = measures.num_examples
    arrays: dict[str, Value] = {"data.source": "arrays:FILE.npz", "data.imbalance": 0}
    folder: dict[str, Value] = {"data.source": "folder:FOLDER", "data.test_split": "test"}
    own: dict[str, Value] = {
        "data.validation_size": held_out(size),
        "name": method.replace("/", "_"),
    }
    if len(image_shape) == 1:
        vectors: dict[str, Value] = {"model.name": "mlp", "augment.crop_padding": 0}
        file = "multi_digits" if multi_label else "digits"
        return f"configs/{file}.py:{method}", arrays | own | vectors
    network: dict[str, Value] = {"model.name": network_for(image_shape)} if image_shape else {}
    if network.get("model.name") == "small":  # these files have it, or one for 32 pixels
        network = {}
    if multi_label and size < LARGE:
        return f"configs/multi_digits.py:{method}", arrays | own | network
    if multi_label:
        return f"configs/coco.py:coco,resnet50,224,{method}", folder | own
    if size < SMALL:
        return f"configs/digits.py:{method}", arrays | own | network
    if measures.num_classes < THOUSANDS and size < 5 * LARGE:
        if image_shape and max(image_shape[:2]) <= 32:
            network = {}
        return f"configs/cifar_lt.py:cifar10,100,{method}", arrays | own | network
    return f"configs/photographs.py:inat2018,resnet50,224,{method}", folder | own


def snippet_for(choice: Choice, numbers: Numbers, measures: Measures) -> str:
    """The loss of a choice in somebody's own training step.

    Args:
      choice: a method; of two stages the first.
      numbers: from `numbers_for`.
      measures: of the set.

    Returns:
      Lines of Python that need ``logits`` (or ``cosines``), ``labels``, ``counts`` and maybe
      ``key``.
    """
    if choice.method == "plm":
        return f"""\
from lt_jax import objectives

objective = objectives.chain(
    objectives.partial_label_mask(
        counts, update_every=STEPS_PER_EPOCH, rate={numbers.rate:g},
        num_examples={measures.num_examples},
    ),
    base=objectives.sigmoid_cross_entropy,
)
state = objective.init()
loss, state = objective.apply(state, key, logits, labels)  # each step: loss is [B]"""
    first = choice.method.partition("/")[0].removesuffix("_stage1")
    loss = _LOSSES.get(first, _LOSSES["cross_entropy"]).format(
        **numbers._asdict(),
        num_examples=measures.num_examples,
        gamma=choice.fields.get("objective.transforms.focal.gamma", 1.0),
    )
    return f"{_HEADER}\n\nloss = {loss}"
