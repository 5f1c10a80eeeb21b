"""Devices: one mesh over the batch, and where arrays lie on it."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lt_jax.errors import InputError

BATCH_AXIS = "batch"


def make_mesh(num_devices: int = 0) -> Mesh:
    """A mesh of one axis, over which batches are split.

    Args:
      num_devices: how many devices; 0 for all.

    Returns:
      The mesh.

    Raises:
      InputError: if there are fewer devices.
    """
    devices = jax.devices()
    if not 0 <= num_devices <= len(devices):
        raise InputError(
            f"num_devices is {num_devices}; expected 0 (all) to {len(devices)},"
            f" the {devices[0].platform} devices there are"
        )
    chosen = devices[: num_devices or len(devices)]
    return Mesh(np.asarray(chosen), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def split_columns(mesh: Mesh) -> NamedSharding:
    """The second axis split over the devices: of arrays ``[R, B, ...]``, a batch a replica."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH_AXIS))


def check_batch_size(name: str, batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share evenly."""
    if batch_size < 1:
        raise InputError(f"{name} is {batch_size}; expected at least 1")
    if batch_size % mesh.size:
        raise InputError(
            f"{name} is {batch_size}; expected a multiple of the {mesh.size} devices in use"
        )
