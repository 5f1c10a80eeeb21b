"""The second stage: a classifier re-trained, or re-computed, on the frozen features of a first.

Read from the top: `retrain` checks everything and finds stage 1 (`lt_jax.stage1`); `_trained`
makes a run like any other in which only the classifier has gradients (`lt_jax.second_run`);
`lt_jax.posthoc` evaluates one classifier for each value of a knob on validation, all in one call;
`lt_jax.dividing` divides the set and makes one for each part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lt_jax import sharding
from lt_jax import workdir as workdirs
from lt_jax.build import check_features, make_model, make_objective
from lt_jax.configuration import check_config
from lt_jax.data import Dataset
from lt_jax.dividing import check_division, divide_and_classify
from lt_jax.errors import InputError
from lt_jax.files import folder_of
from lt_jax.finish import carry_out
from lt_jax.longtail import log_prior
from lt_jax.objectives import Objective
from lt_jax.objectives.registry import ONE_LABEL
from lt_jax.optimizers import make_optimizer, make_schedule
from lt_jax.posthoc import compute
from lt_jax.prepare import check_augmentation, check_fits, load, told_finished
from lt_jax.run import Config
from lt_jax.second_run import Ahead, is_cached, prepare_classifier
from lt_jax.stage1 import (
    SecondStage,
    check_same_images,
    check_same_start,
    describe,
    find_stage1,
    load_frozen,
)
from lt_jax.two_stage import DIVIDED, POST_HOC, TRAINED


@workdirs.until_done()
def retrain(
    config: Config,
    workdir: str | Path,
    from_workdir: str | Path,
    *,
    dataset: Dataset | None = None,
    ahead: Ahead | None = None,
) -> dict[str, Any] | None:
    """Runs the second stage of a config on a finished first stage, or goes on with it.

    The backbone stays as it is, in evaluation mode. Where the second stage changes no images
    (``config.retrain.augment`` all off), features are computed once.

    Args:
      config: as for `lt_jax.train.train`, with a second stage; its other fields say what stage 1
        must have been. `lt_jax.configuration.read_config` reads those of a run.
      workdir: folder of the second stage: checkpoints, metrics, summary and picture.
      from_workdir: folder of the run of stage 1; nothing in it is changed.
      dataset: of ``config.data``, if it has been loaded already.
      ahead: the run, if it has been made already; one of another config or folder is not used.

    Returns:
      The summary, with the scores of stage 1 under ``"stage1"``; None if a signal stopped it.

    Raises:
      InputError: for anything in the config, the data or the folders that cannot be used, before
        anything is trained or overwritten.
      NonFiniteError: if the loss or the weights stop being finite.
      StorageError: if something cannot be saved; the same call goes on from what was saved before.

    Example::

        config = base_config("cross_entropy/crt")
        train(first_stage(config), "runs/ce")
        summary = retrain(config, "runs/crt", from_workdir="runs/ce")
    """
    workdirs.check_alike(config)
    check_config(config)
    path = folder_of(workdir)
    stage1 = find_stage1(config, from_workdir)
    if path == stage1.folder.parent or path.is_relative_to(stage1.folder):
        raise InputError(f"workdir {path} is that of stage 1; choose another for stage 2")
    workdirs.check_config_matches(config, path)
    check_same_start(path, stage1)
    done = told_finished(config, path, dataset)
    if done is not None:
        return done
    dataset = load(config, dataset)
    stage = start_second_stage(config, path, from_workdir, dataset)
    method = config["retrain"]["method"]
    if method in DIVIDED:
        return divide_and_classify(stage)
    return compute(stage) if method in POST_HOC else _trained(stage, ahead)


def start_second_stage(
    config: Config, path: Path, from_workdir: str | Path, dataset: Dataset
) -> SecondStage:
    """What the second stage starts from, once it has been checked against the first.

    Args:
      config: of both stages.
      path: folder of the second.
      from_workdir: of the first, which has finished.
      dataset: of both.

    Returns:
      A `SecondStage`.

    Raises:
      InputError: if the first is another one than the config says, or the second could not run.
    """
    stage1 = find_stage1(config, from_workdir)
    check_same_images(stage1, dataset)
    check_second_stage(config, dataset)
    frozen = load_frozen(stage1, dataset, config["retrain"]["weights"])
    facts = {"stage1": describe(stage1, from_workdir)}
    return SecondStage(config, path, dataset, stage1, frozen, facts)


def check_second_stage(config: Config, dataset: Dataset) -> None:
    """Refuses a second stage that could not run, so that it is known before the first is trained.

    Args:
      config: of both stages.
      dataset: it is for.

    Raises:
      InputError: naming the field.
    """
    fields = config["retrain"]
    method = fields["method"]
    if not method:
        raise InputError(
            "config.retrain.method is ''; expected a second stage, such as that of"
            " base_config('cross_entropy/crt')"
        )
    first = make_objective(config["objective"], dataset)
    if fields["weights"] == "best_on_validation" and not len(dataset.validation_labels):
        raise InputError(
            "config.retrain.weights is 'best_on_validation', but there is no validation split;"
            " use 'last', or set config.data.validation_size"
        )
    check_features(config, make_model(config, dataset, first), dataset)
    if method in DIVIDED:
        check_division(config, dataset)
    elif method in POST_HOC:
        _check_computed(fields, dataset, first)
    else:
        _check_trained(config, dataset, first)


def _check_computed(fields: Config, dataset: Dataset, first: Objective) -> None:
    """Refuses a classifier that cannot be computed of the first one."""
    method = fields["method"]
    if dataset.multi_label:
        raise InputError(
            f"config.retrain.method is {method!r}, which is for one label an example, but"
            f" {dataset.source} has several; expected one of {', '.join(TRAINED)}"
        )
    if method == "logit_adjustment":
        log_prior(dataset.class_counts)  # refuses a class without images
    if method == "tau_norm" and first.wants_cosines:
        raise InputError(
            "config.retrain.method is 'tau_norm', but the head of stage 1 takes cosines, in which"
            " lengths of weights do not count; expected a stage 1 with a linear head"
        )
    knob = POST_HOC[method]
    if len(fields[knob]) > 1 and not len(dataset.validation_labels):
        raise InputError(
            f"config.retrain.{knob} has {len(fields[knob])} values, but there is no validation"
            " split to choose on; give one value, or set config.data.validation_size"
        )


def _check_trained(config: Config, dataset: Dataset, first: Objective) -> None:
    """Refuses a classifier that cannot be trained on the features of the first stage."""
    fields = config["retrain"]
    method = fields["method"]
    mesh = sharding.make_mesh(config["train"]["num_devices"])
    sharding.check_batch_size("config.retrain.batch_size", fields["batch_size"], mesh)
    check_fits("config.retrain.batch_size", fields["batch_size"], dataset)
    check_augmentation("config.retrain.augment", fields["augment"], dataset)
    make_optimizer(fields["optimizer"], make_schedule(fields["optimizer"], 1, fields["epochs"]))
    try:
        second = make_objective(fields["objective"], dataset)
    except InputError as error:
        if not (dataset.multi_label and ONE_LABEL in str(error)):
            raise
        raise InputError(
            f"config.retrain.objective does not fit: {error}; it is named after the second stage,"
            " as in 'sigmoid/crt/sigmoid'"
        ) from error
    if method == "crt":
        make_model(config, dataset, second)  # refuses a head that does not fit
    elif first.wants_cosines != second.wants_cosines:
        heads = ["cosine" if o.wants_cosines else "linear" for o in (first, second)]
        raise InputError(
            f"config.retrain.method is {method!r}, which keeps the {heads[0]} head of stage 1, but"
            f" config.retrain.objective needs a {heads[1]} one; use 'crt' for a fresh head, after"
            " which its objective may be named: crt/gcl for that of GCL"
        )


def _trained(stage: SecondStage, ahead: Ahead | None) -> dict[str, Any] | None:
    """Trains a classifier on the frozen features."""
    made = ahead.run_from(stage) if ahead else None
    run = made or prepare_classifier(stage)
    facts = {**stage.facts, "retrain": {"cached_features": is_cached(stage.fields)}}
    return stage.claim() or carry_out(run, facts)
