"""The network and the objective of a run, from its config and for its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_jax.data import Dataset
from lt_jax.errors import InputError
from lt_jax.models import MODELS, create_model, load_pretrained, sigmoid_prior_bias
from lt_jax.models.requirements import num_features_of
from lt_jax.objectives import Objective, build_objective, check_multi_label
from lt_jax.state import Network, make_network

Config = Mapping[str, Any]


def make_model(config: Config, dataset: Dataset, objective: Objective) -> Network:
    """The network of a run, with the head that its objective needs.

    Args:
      config: of the run.
      dataset: whose images and classes it is for.
      objective: cosine logits need a cosine head; sigmoids start at their prior, the mean share of
        the classes that an example has.

    Returns:
      The pure functions of the model.

    Raises:
      InputError: for an unknown model, one that lacks what is needed of it or is random in
        evaluation mode, or a head that does not fit the objective.
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
    bias = _prior_bias(dataset) if prior else None

    def build(rngs: Any) -> Any:
        return create_model(
            model["name"],
            image_shape=dataset.train_images.shape[1:],
            num_classes=dataset.num_classes,
            head=head,
            head_bias=bias,
            dtype=jnp.dtype(model["dtype"]),
            fused=model["fused"],
            rngs=rngs,
        )

    network = make_network(build)
    if network.draws:
        _check_evaluation(model["name"], network, dataset)
    return network


def _check_evaluation(name: str, network: Network, dataset: Dataset) -> None:
    """Refuses a network whose results on the test set would be a matter of chance."""

    def evaluate(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        return network.apply(params, stats, images, False)[0]

    program = jax.make_jaxpr(evaluate)(*_shapes(network, dataset))
    if "random_bits" in str(program):  # the primitive in which every draw ends
        raise InputError(
            f"model {name!r} draws random numbers in evaluation mode; expected it to draw only"
            " where train is True, as nnx.Dropout does with deterministic=not train"
        )


def check_features(config: Config, network: Network, dataset: Dataset) -> None:
    """Refuses a network on whose features no classifier can be trained, before stage 1 is.

    Args:
      config: of the run.
      network: from `make_model`.
      dataset: it is for.

    Raises:
      InputError: if it gives no features, or others than its head takes.
    """
    params, stats, images = _shapes(network, dataset)
    found = jax.eval_shape(network.features, params, stats, images)
    name = config["model"]["name"]
    expected = (len(images), num_features_of(name, MODELS[name], images.shape[-1]))
    shape = getattr(found, "shape", type(found).__name__)
    if shape != expected:
        raise InputError(
            f"model {name!r} gives features of shape {shape} for {len(images)}"
            f" images; expected {expected}, which its head takes: num_features of each"
        )


def _shapes(network: Network, dataset: Dataset) -> tuple[Any, Any, Any]:
    """Weights, statistics and a batch of a network, without their values."""
    images = jax.ShapeDtypeStruct((2, *dataset.train_images.shape[1:]), jnp.float32)
    return *jax.eval_shape(network.init, jax.random.key(0)), images


def check_fused(config: Config, mesh: jax.sharding.Mesh) -> None:
    """Refuses fused kernels where they do not run.

    Args:
      config: of the run.
      mesh: devices that share each batch.

    Raises:
      InputError: without a GPU that has them, with several devices, or with another dtype than
        bfloat16.
    """
    if not config["model"]["fused"]:
        return
    dtype, device = config["model"]["dtype"], mesh.devices.flat[0]
    if dtype != "bfloat16":
        raise InputError(
            f"config.model.fused is True and dtype {dtype!r}; expected 'bfloat16', in which the"
            " fused kernels compute"
        )
    if mesh.size > 1 or not _has_bfloat16_products(device):
        raise InputError(
            f"config.model.fused is True on {mesh.size} device(s), {device.device_kind}; expected"
            " one NVIDIA GPU of compute capability 8.0 (Ampere) or more: set"
            " config.train.num_devices to 1, or fused to False"
        )


def _has_bfloat16_products(device: Any) -> bool:
    """Whether a device is an NVIDIA GPU that multiplies matrices of bfloat16."""
    # Such as 9.0; of AMD's such as gfx90a.
    capability = str(getattr(device, "compute_capability", ""))
    return capability.replace(".", "", 1).isdigit() and float(capability) >= 8.0


def _prior_bias(dataset: Dataset) -> float | None:
    """At which every sigmoid starts at the mean probability of a label; None if that is 0 or 1."""
    if not dataset.multi_label:
        return sigmoid_prior_bias(dataset.num_classes)
    share = float(dataset.train_labels.mean())
    return float(np.log(share / (1.0 - share))) if 0 < share < 1 else None


def initial_weights(
    config: Config, network: Network
) -> Callable[[jax.Array, int], tuple[Any, Any]]:
    """Weights at the start: drawn, or all but the head's read from a file.

    Args:
      config: of the run.
      network: from `make_model`.

    Returns:
      ``(key, number of the replica) -> (params, stats)``.

    Raises:
      InputError: if the file cannot be read or is of another network.
    """
    name, path = config["model"]["name"], config["model"]["pretrained"]
    if not path:
        return lambda key, _: network.init(key)
    # Read now, once: a file that does not fit is refused before anything is written.
    loaded = load_pretrained(path, name, *jax.eval_shape(network.init, jax.random.key(0)))

    def weights(key: jax.Array, _: int) -> tuple[Any, Any]:
        # Copies, as the buffers of each replica are given up to its steps.
        return jax.tree.map(
            lambda read, drawn: (
                drawn if isinstance(read, jax.ShapeDtypeStruct) else jnp.array(read)
            ),
            loaded,
            network.init(key),
        )

    return weights


def make_objective(
    spec: Config, dataset: Dataset, *, steps_per_epoch: int = 1, epochs: int = 1
) -> Objective:
    """The objective of a stage, for the labels of its data.

    Args:
      spec: see `lt_jax.objectives.build_objective`.
      dataset: it is trained on.
      steps_per_epoch: of the stage, if its steps are to be made.
      epochs: likewise.

    Returns:
      An `Objective`.

    Raises:
      InputError: for a spec that cannot be used, or not with several labels an example.
    """
    objective = build_objective(
        spec,
        dataset.class_counts,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        num_examples=len(dataset.train_labels) if dataset.multi_label else None,
    )
    if dataset.multi_label:
        check_multi_label(objective)
    return objective
