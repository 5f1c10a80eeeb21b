"""Training: from a config and a folder to a summary, resumable at any step.

Read from the top: `train` checks everything, `prepare` builds what a run consists of, `Loop` goes
through the steps (`lt_jax.loop`), `finish` reads the test set, once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax import sharding, workdir
from lt_jax.configuration import check_config
from lt_jax.data import Dataset, load_dataset
from lt_jax.errors import InputError
from lt_jax.loop import Config, Loop, NonFiniteError, Run, Stop, evaluate
from lt_jax.models import create_model, sigmoid_prior_bias
from lt_jax.objectives import Objective, build_objective
from lt_jax.optimizers import make_optimizer, make_schedule
from lt_jax.pictures import save_picture
from lt_jax.replicas import make_replicas, use_vmap
from lt_jax.report import summarize
from lt_jax.state import Network, init_state, make_network
from lt_jax.steps import Split, make_eval_step, make_train_step
from lt_jax.writers import say

__all__ = ["NonFiniteError", "make_model", "prepare", "train"]


def train(config: Config, folder: str | Path) -> dict[str, Any] | None:
    """Trains what a config describes, or goes on where an earlier call stopped.

    Args:
      config: from `lt_jax.configuration.base_config`, with fields changed.
      folder: of the run: checkpoints, metrics, summary and picture. One that already holds the
        finished run of this config is left as it is.

    Returns:
      The summary, as in ``summary.json``; None if a signal (SIGTERM, Ctrl-C) stopped the run, which
      has then been saved and goes on when `train` is called again.

    Raises:
      InputError: for anything in the config, the data or the folder that cannot be used, before
        anything is trained or overwritten.
      NonFiniteError: if the loss or the weights stop being finite; names the step.

    Example::

        from lt_jax.configuration import base_config
        from lt_jax.train import train

        config = base_config("cb_focal")
        summary = train(config, "runs/digits_cb_focal")
    """
    check_config(config)
    path = Path(folder).expanduser().absolute()
    workdir.check_config_matches(config, path)
    done = workdir.finished_summary(path)
    if done is not None:
        say(f"the run in {path} has finished already; nothing was changed.")
        return done
    run = prepare(config, path)
    workdir.claim(config, path)
    with Stop() as stop:
        loop = Loop(run, stop)
        try:
            finished = loop.go()
            return finish(run, loop.states, loop.seconds) if finished else None
        finally:
            loop.close()


def make_model(config: Config, dataset: Dataset, objective: Objective) -> Network:
    """The network of a run, with the head that its objective needs.

    Args:
      config: of the run.
      dataset: whose images and classes it is for.
      objective: cosine logits need a cosine head; sigmoids start at their prior.

    Returns:
      The pure functions of the model.

    Raises:
      InputError: for an unknown model, or a head that does not fit the objective.
    """
    model = config["model"]
    head = model["head"]
    if head == "auto":
        head = "cosine" if objective.wants_cosines else "linear"
    if (head == "cosine") != objective.wants_cosines:
        raise InputError(
            f"config.model.head is {head!r}, but the objective "
            + (
                "takes cosines: use 'cosine' or 'auto'"
                if objective.wants_cosines
                else "does not scale cosines: use 'linear', or add the transform scale_logits"
            )
        )
    prior = model["sigmoid_prior"] and not objective.competing and head == "linear"
    bias = sigmoid_prior_bias(dataset.num_classes) if prior else 0.0

    def build(rngs: Any) -> Any:
        return create_model(
            model["name"],
            image_shape=dataset.train_images.shape[1:],
            num_classes=dataset.num_classes,
            head=head,
            head_bias=bias,
            dtype=jnp.dtype(model["dtype"]),
            rngs=rngs,
        )

    return make_network(build)


def prepare(config: Config, folder: Path) -> Run:
    """Loads the data and builds every function of a run; writes nothing.

    Args:
      config: of the run, checked.
      folder: where it will write.

    Returns:
      A `Run`.

    Raises:
      InputError: for data or numbers that cannot be used.
    """
    options = config["train"]
    mesh = sharding.make_mesh(options["num_devices"])
    sharding.check_batch_size("config.train.batch_size", options["batch_size"], mesh)
    dataset = load_dataset(config["data"])
    num_examples = len(dataset.train_labels)
    if options["batch_size"] > num_examples:
        raise InputError(
            f"config.train.batch_size is {options['batch_size']}; expected at most"
            f" {num_examples}, the number of training images"
        )
    steps_per_epoch = num_examples // options["batch_size"]
    total = steps_per_epoch * options["epochs"]
    objective = build_objective(
        config["objective"], dataset.class_counts, steps_per_epoch=steps_per_epoch
    )
    schedule = make_schedule(config["optimizer"], steps_per_epoch, total)
    optimizer = make_optimizer(config["optimizer"], schedule)
    network = make_model(config, dataset, objective)
    has_validation = len(dataset.validation_labels) > 0
    replicas = make_replicas(
        lambda key: init_state(network, optimizer, objective, key, keep_best=has_validation),
        make_train_step(network, objective, optimizer, config["augment"], mesh),
        make_eval_step(network, objective, mesh),
        vmapped=use_vmap(config["replica_mode"], config["replicas"]),
        num_replicas=config["replicas"],
        num_examples=num_examples,
        batch_size=options["batch_size"],
        steps_per_call=options["steps_per_call"],
        mesh=mesh,
    )
    seeds = tuple(range(config["seed"], config["seed"] + config["replicas"]))
    splits = _put_splits(dataset, mesh)
    return Run(
        config, folder, dataset, mesh, replicas, schedule, splits, seeds, steps_per_epoch, total
    )


def _put_splits(dataset: Dataset, mesh: jax.sharding.Mesh) -> dict[str, Split]:
    """The splits that are not empty, whole on every device."""
    splits = {}
    for name in ("train", "validation", "test"):
        labels = getattr(dataset, f"{name}_labels")
        if len(labels):
            split = Split(
                getattr(dataset, f"{name}_images"),
                labels.astype(np.int32),
                dataset.mean.astype(np.float32),
                dataset.std.astype(np.float32),
            )
            splits[name] = jax.device_put(split, sharding.replicated(mesh))
    return splits


def finish(run: Run, states: Any, seconds: float) -> dict[str, Any]:
    """Reads the test set, once, and writes the summary and its picture.

    Args:
      run: what `prepare` gave.
      states: after the last step.
      seconds: spent training.

    Returns:
      The summary.
    """
    stacked = run.replicas.stack(states)
    selection = {"last": {"steps": [run.total_steps] * len(run.seeds)}}
    if stacked.best:
        selection["best_on_validation"] = {
            "steps": np.asarray(stacked.best.step).tolist(),
            "validation_balanced_accuracy": np.asarray(stacked.best.score, float).tolist(),
        }
    counts = {
        name: evaluate(run, states, "test", "last" if name == "last" else "best")
        for name in selection
    }
    sizes = [leaf[0].size for leaf in jax.tree.leaves(stacked.params)]
    summary = summarize(
        run.config,
        run.dataset.info(),
        seeds=run.seeds,
        counts=counts,
        selection=selection,
        training={
            "steps": run.total_steps,
            "steps_per_epoch": run.steps_per_epoch,
            "seconds": round(seconds, 3),
            "parameters": int(sum(sizes)),
            "devices": run.mesh.size,
        },
    )
    # Its presence says that the run has finished; a picture that fails must not undo that.
    workdir.write_json(run.folder / workdir.SUMMARY, summary)
    if run.config["train"]["picture"]:
        save_picture(summary, run.folder / workdir.METRICS, run.folder / workdir.PICTURE)
    return summary
