"""Devices: one mesh over the batch, and where arrays lie on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lt_jax.errors import InputError

T = TypeVar("T")

BATCH_AXIS = "batch"
_SMALL = 1 << 14  # elements; splitting fewer saves no memory worth the traffic


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
    if jax.process_count() > 1 and num_devices not in (0, len(devices)):
        raise InputError(
            f"num_devices is {num_devices}; expected 0 or {len(devices)}, all that the"
            f" {jax.process_count()} processes of this run have"
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


def to_devices(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays of the host on the devices, also on those of other processes.

    Args:
      tree: of arrays that every process has whole, and all have the same.
      sharding: where each of them goes.

    Returns:
      The tree with `jax.Array` leaves.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def everywhere(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(everywhere, tree)


def awaited(program: Callable[..., T], mesh: Mesh) -> Callable[..., T]:
    """A compiled program that is called many times in a row; of several CPU devices, one at a time.

    XLA runs all CPU devices in one pool of threads. There a program waits for the same one on the
    other devices, and where 32 are queued on a device the next one waits for room: when those waits
    hold all threads, none is left for what they wait for, and XLA ends the process.

    Args:
      program: whose results take a while.
      mesh: devices that it runs on.

    Returns:
      The program itself, or one whose results are there when it returns.
    """
    if mesh.size == 1 or mesh.devices.flat[0].platform != "cpu":
        return program
    return lambda *arguments: jax.block_until_ready(program(*arguments))


def automatic(function: Callable[..., T], like: Any, as_like: Any = True) -> Callable[..., T]:
    """A function inside which XLA decides where arrays lie, also on a mesh with explicit axes.

    There JAX asks for the place of what is gathered, scattered or mapped over.

    Args:
      function: of arrays.
      like: one of its arguments.
      as_like: whether its results lie as that one does, or are whole on every device; or a tree
        of the form of the results.

    Returns:
      The function itself where axes are not explicit.
    """
    there = jax.typeof(like).sharding
    if AxisType.Explicit not in there.mesh.axis_types:
        return function
    whole = NamedSharding(there.mesh, PartitionSpec())
    where = jax.tree.map(lambda same: there if same else whole, as_like)
    return cast(Callable[..., T], jax.sharding.auto_axes(function, out_sharding=where))


def split_largest(mesh: Mesh, shape: tuple[int, ...], *, first: int = 0) -> NamedSharding:
    """The longest axis that the devices can share evenly split over them, if the array is large.

    Args:
      mesh: of one axis.
      shape: of the array.
      first: the first axis that may be split.

    Returns:
      Where it goes; whole on every device if it is small or has no such axis.
    """
    axes = [a for a in range(first, len(shape)) if shape[a] % mesh.size == 0]
    if not axes or np.prod(shape) < _SMALL:
        return replicated(mesh)
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, BATCH_AXIS))


def check_batch_size(name: str, batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share evenly."""
    if batch_size < 1:
        raise InputError(f"{name} is {batch_size}; expected at least 1")
    if batch_size % mesh.size:
        raise InputError(
            f"{name} is {batch_size}; expected a multiple of the {mesh.size} devices in use"
        )
