"""What a second stage does to a trained network: the methods by name, their fields and defaults."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lt_jax.dlsa import CascadeOptions, FlowOptions, HeadOptions
from lt_jax.errors import InputError
from lt_jax.objectives import METHODS, method_spec
from lt_jax.objectives.registry import TRANSFORMS, balances, cosine_scale

Fields = dict[str, Any]

# How the classifier is made; the features of stage 1 stay as they are in all of them.
TRAINED = ("crt", "finetune", "lws")  # a fresh head, the head of stage 1, a scale for each class
# Computed, with a knob whose value is chosen on validation: the field that has the values.
POST_HOC = {"tau_norm": "tau", "ncm": "features", "logit_adjustment": "tau"}
DIVIDED = ("dlsa",)  # several, of the parts of a divided set
KINDS = (*TRAINED, *POST_HOC, *DIVIDED)
NCM_FEATURES = ("plain", "unit", "centred_unit")
_KNOBS: Fields = {"tau": (1.0,), "features": ("centred_unit",)}
# Values of them among which validation may choose.
KNOB_VALUES: Fields = {"tau": tuple(k / 8 for k in range(17)), "features": NCM_FEATURES}


class Stage(NamedTuple):
    """A named second stage.

    Attributes:
      kind: of `TRAINED`, `POST_HOC` or `DIVIDED`.
      changes: of the default fields of that kind.
      paper: its source.
    """

    kind: str
    changes: Fields
    paper: str


_KANG = "Kang et al., Decoupling, ICLR 2020"
STAGES: dict[str, Stage] = {
    "crt": Stage("crt", {}, _KANG),
    "lws": Stage("lws", {}, _KANG),
    "gcl": Stage(
        "finetune",
        {
            "epochs": 30,
            "batch_size": 64,
            "sampling": {"scheme": "class_based_effective_number"},
            "augment": {"mixup_alpha": 1.0},
            "optimizer": {"schedule": "constant", "warmup_epochs": 5.0},
        },
        "Li, Cheung and Lu, CVPR 2022",
    ),
    "finetune": Stage("finetune", {}, "continues the head of stage 1"),
    "tau_norm": Stage("tau_norm", {}, _KANG),
    "ncm": Stage("ncm", {}, _KANG),
    "posthoc_logit_adjustment": Stage("logit_adjustment", {}, "Menon et al., ICLR 2021"),
    "dlsa": Stage("dlsa", {}, "Xu et al., ECCV 2022"),
}

# Rows of tables that name two stages at once.
ALIASES = {
    "gcl": "gcl/gcl",
    "gcl_stage1": "gcl",
    **{name: f"cross_entropy/{name}" for name in STAGES if name not in ("gcl", "finetune")},
}


def _objectives(names: str) -> str:
    """Objectives joined by +, of which an alias of one stage is that stage's."""
    aliases = {alias: name for alias, name in ALIASES.items() if "/" not in name}
    return "+".join(aliases.get(name, name) for name in names.split("+"))


def split_name(name: str) -> tuple[str, str, str]:
    """Objective of stage 1, name of stage 2 and objective of stage 2 of a method's name.

    Args:
      name: ``OBJECTIVE``, ``OBJECTIVE/STAGE2``, ``OBJECTIVE/STAGE2/OBJECTIVE2``, or one of
        `ALIASES`. Objectives are those of `lt_jax.objectives.METHODS`, joined by ``+``.

    Returns:
      The three, empty where there is none.

    Raises:
      InputError: for more than three parts or an unknown second stage.

    Example:
      >>> split_name("crt"), split_name("gcl_stage1"), split_name("gcl/crt/balanced_softmax")
      (('cross_entropy', 'crt', ''), ('gcl', '', ''), ('gcl', 'crt', 'balanced_softmax'))
      >>> split_name("gcl_stage1+class_balanced"), split_name("gcl+class_balanced/gcl")
      (('gcl+class_balanced', '', ''), ('gcl+class_balanced', 'gcl', ''))
    """
    parts = ALIASES.get(name, name).split("/")
    if len(parts) > 3:
        raise InputError(
            f"method is {name!r}; expected OBJECTIVE, OBJECTIVE/STAGE2 or"
            " OBJECTIVE/STAGE2/OBJECTIVE2"
        )
    first, stage, second = (*parts, "", "")[:3]
    first, second = _objectives(first), _objectives(second)
    if stage and stage not in STAGES:
        raise InputError(
            f"second stage is {stage!r}; expected one of {', '.join(sorted(STAGES))}"
            f"{_hint(stage, STAGES)}"
        )
    _check_method(first)
    if second and STAGES[stage].kind not in TRAINED:
        raise InputError(f"method is {name!r}, but {stage} takes no objective")
    return first, stage, second


def _check_method(name: str) -> None:
    """Refuses an unknown method here, where methods of two stages are known too."""
    first = name.partition("+")[0]
    if first not in METHODS:
        known = sorted({*METHODS, *ALIASES})
        raise InputError(
            f"method is {first!r}; expected one of {', '.join(known)}, or with a second stage such"
            f" as cross_entropy/crt{_hint(first, known)}"
        )


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def lacking_transform(field: str, method: str = "cross_entropy") -> str:
    """What to say of a field of a transform that an objective does not have.

    Args:
      field: dotted name of the field.
      method: of the config, as for `split_name`.

    Returns:
      A sentence with the method that has it; empty for a field of anything else.

    Raises:
      InputError: for an unknown second stage.

    Example:
      >>> lacking_transform("objective.transforms.focal.gamma", "gcl_stage1")
      "config.objective has no transform 'focal'; expected a method that has, such as gcl+focal"
    """
    group, _, rest = field.partition(".transforms.")
    name = rest.partition(".")[0]
    if group not in ("objective", "retrain.objective") or name not in TRANSFORMS:
        return ""
    first, stage, second = split_name(method)
    if group == "objective":
        first += f"+{name}"
    else:
        stage, second = stage or "crt", f"{second or 'cross_entropy'}+{name}"
    full = "/".join(part for part in (first, stage, second) if part)
    return f"config.{group} has no transform {name!r}; expected a method that has, such as {full}"


def default_fields(kind: str) -> Fields:
    """The fields of a second stage of that kind: those it reads, no others.

    Args:
      kind: of `TRAINED`, `POST_HOC` or `DIVIDED`, or ``""`` for no second stage.

    Returns:
      New nested dictionaries.

    Raises:
      InputError: for an unknown kind.
    """
    if kind not in ("", *KINDS):
        raise InputError(
            f"config.retrain.method is {kind!r}; expected one of"
            f" {', '.join(KINDS)}, or '' for no second stage"
        )
    fields: Fields = {"method": kind}
    if not kind:
        return fields
    fields["weights"] = "last"
    if kind in POST_HOC:
        fields[POST_HOC[kind]] = _KNOBS[POST_HOC[kind]]
    elif kind in DIVIDED:
        fields["cascade"] = CascadeOptions()._asdict()
        fields["flow"] = FlowOptions()._asdict()
        fields["heads"] = HeadOptions()._asdict()
    else:
        fields |= {
            "epochs": 10,
            "batch_size": 128,
            "objective": method_spec("cross_entropy"),
            "sampling": sampling_fields("class"),
            "augment": augment_fields(),
            "optimizer": optimizer_fields(),
        }
    return fields


def augment_fields() -> Fields:
    """Random changes to images, all off."""
    return {
        "random_resized_crop": 0.0,
        "crop_padding": 0,
        "flip": False,
        "color_jitter": 0.0,
        "autoaugment": False,
        "cutout_size": 0,
        "mixup_alpha": 0.0,
    }


def sampling_fields(scheme: str) -> Fields:
    """Images drawn by that scheme."""
    return {"scheme": scheme, "beta": 0.9999, "beta_spread": 1e-5, "power": 1.0}


def optimizer_fields() -> Fields:
    """SGD with momentum and a cosine schedule."""
    return {
        "name": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 2e-4,
        "decay": "all_but_head_bias",
        "schedule": "cosine",
        "warmup_epochs": 0.0,
        "milestones": (),
        "factors": (),
    }


def gcl_objective() -> Fields:
    """GCL's second stage: clouds with a margin at a smaller scale, softmax focal.

    Source: Li, Cheung and Lu, CVPR 2022; see `lt_jax.losses.gaussian_clouded_cross_entropy`.
    """
    spec = method_spec("gcl+focal")
    spec["transforms"]["gaussian_cloud"] |= {"margin": 0.1, "scale": 20.0}
    spec["transforms"]["focal"] |= {"gamma": 1.0, "differentiate_modulator": False}
    return spec


def stage_fields(stage: str, objective: str = "", *, first: Fields | None = None) -> Fields:
    """The fields ``config.retrain`` of a named second stage.

    Args:
      stage: one of `STAGES`, or ``""`` for none.
      objective: what to train the classifier with instead of the stage's own: a name for
        `lt_jax.objectives.method_spec`. One that balances the classes itself, such as balanced
        softmax, sees the images as often as they are: balanced sampling would do it twice.
      first: spec of the objective of stage 1: where its head takes cosines, those stages do that
        keep it, and where its clouds are on the angle, so are GCL's.

    Returns:
      New nested dictionaries.

    Raises:
      InputError: for an unknown name.

    Example:
      >>> stage_fields("gcl")["objective"]["transforms"]["gaussian_cloud"]["scale"]
      20.0
      >>> [stage_fields("crt", name)["sampling"]["scheme"] for name in ("", "balanced_softmax")]
      ['class', 'instance']
    """
    if not stage:
        return default_fields("")
    kind, changes, _ = STAGES[stage]
    fields = default_fields(kind)
    for name, change in changes.items():
        fields[name] = {**fields[name], **change} if isinstance(change, dict) else change
    first = first or method_spec("cross_entropy")
    if stage == "gcl":
        fields["objective"] = gcl_objective()
        cloud = first["transforms"].get("gaussian_cloud", {})
        fields["objective"]["transforms"]["gaussian_cloud"]["angular"] = cloud.get("angular", False)
    elif cosine_scale(first) is not None and kind in ("lws", "finetune"):
        fields["objective"] = method_spec("cosine")
    if objective:
        fields["objective"] = method_spec(objective)
        if balances(fields["objective"]):
            fields["sampling"]["scheme"] = "instance"
    return fields


def knob_values(second: Mapping[str, Any]) -> Fields:
    """Values of the knob of a second stage among which validation may choose.

    Args:
      second: ``config.retrain``.

    Returns:
      The field and its values; nothing where there is no knob.

    Example:
      >>> list(knob_values(stage_fields("tau_norm"))), knob_values(stage_fields("crt"))
      (['tau'], {})
    """
    return {name: values for name, values in KNOB_VALUES.items() if name in second}


def suit(second: Fields, first: Fields) -> None:
    """Makes a stage with its defaults one for a given run.

    Batches are at most as large as those of the first stage, or small sets would see few updates;
    cosines have its scale, GCL's clouds two thirds of it, as in its paper; knobs are chosen among
    `KNOB_VALUES` if there is a validation split.

    Args:
      second: from `stage_fields`; changed in place.
      first: all fields of the config of the run.
    """
    if "batch_size" in second:
        second["batch_size"] = min(second["batch_size"], first["train"]["batch_size"])
        scale, transforms = cosine_scale(first["objective"]), second["objective"]["transforms"]
        keeps_head = second["method"] in ("lws", "finetune")
        for name in ("scale_logits", "label_distribution_margin", "gaussian_cloud"):
            if scale is not None and keeps_head and name in transforms:
                transforms[name]["scale"] = scale * (2 / 3 if name == "gaussian_cloud" else 1)
    validates = ("validation_size", "validation_split", "validation_list")
    if any(first["data"][name] for name in validates):
        second |= knob_values(second)
