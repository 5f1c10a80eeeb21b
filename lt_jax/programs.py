"""How the functions of a run are compiled: with which options, for which devices, and when."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lt_jax.models.conv import CPU_COMPILER_OPTIONS, GPU_COMPILER_OPTIONS
from lt_jax.models.convolution import conv2d
from lt_jax.sharding import replicated, split_largest, to_devices

Tree = Any
# A function that `jax.jit` gave, and its arguments; any of them may be a `jax.ShapeDtypeStruct`.
Program = tuple[Any, tuple[Any, ...]]


def compiler_options() -> dict[str, str] | None:
    """Options of XLA that the steps need to be fast on the backend in use."""
    backend = jax.default_backend()
    if backend == "gpu" and jax.__version_info__ >= (0, 11):  # earlier ones may not know them
        _start_cudnn()
        return GPU_COMPILER_OPTIONS
    return CPU_COMPILER_OPTIONS if backend == "cpu" else None


@functools.cache
def _start_cudnn() -> None:
    """Has each GPU of this process compute a convolution that is in no CUDA graph.

    XLA starts cuDNN with the first one, which fails while a graph is recorded. Compiling tries
    convolutions, and so starts it too; but programs may be found compiled.
    """
    images, kernel = np.ones((1, 8, 8, 16), np.float32), np.ones((3, 3, 16, 16), np.float32)
    for device in jax.local_devices():
        jax.block_until_ready(conv2d(*jax.device_put((images, kernel), device)))


def _draw_by_kernels(mesh: Mesh) -> None:
    """Has a single GPU draw random bits by the kernels that JAX brings along: the same bits.

    By default the generator's twenty rounds stand in a program wherever it draws, which XLA takes
    seconds to fuse. The kernels write their bits to memory. With several devices each would draw
    those of all. The setting is the process's, so that each run sets it;
    ``JAX_THREEFRY_GPU_KERNEL_LOWERING`` decides where it is given.
    """
    given = "JAX_THREEFRY_GPU_KERNEL_LOWERING" in os.environ
    if jax.default_backend() == "gpu" and not given:
        jax.config.update("jax_threefry_gpu_kernel_lowering", mesh.size == 1)


def compile_together(programs: Iterable[Program]) -> None:
    """Compiles functions at the same time, instead of each when it is called for the first time.

    One program keeps few cores of a host busy. They are traced one after another, as tracing holds
    Python's lock; XLA compiles the first while the next is traced.

    Args:
      programs: to compile; calls with arguments like theirs find them compiled. The later ones
        may be made while the first are compiled.
    """
    with ThreadPoolExecutor(thread_name_prefix="compiling") as threads:
        compiled = [threads.submit(f.lower(*arguments).compile) for f, arguments in programs]
        for future in compiled:
            future.result()


class Compiler:
    """How functions of one replica are compiled, and where states lie."""

    def __init__(self, mesh: Mesh, *, vmapped: bool, fsdp: bool) -> None:
        """Says what is common to all of them.

        Args:
          mesh: devices that share each batch.
          vmapped: whether all replicas run side by side.
          fsdp: whether what is in a state is split over the devices.
        """
        self.mesh, self.vmapped, self.fsdp = mesh, vmapped, fsdp
        _draw_by_kernels(mesh)

    def __call__(
        self, function: Callable[..., Any], in_axes: Any, *, whole: bool = False, **options: Any
    ) -> Any:
        """The function, of all replicas if they run side by side.

        Args:
          function: of one replica.
          in_axes: of its arguments, as for `jax.vmap`.
          whole: whether results lie whole on every device under FSDP too.
          **options: of `jax.jit`.
        """
        if self.vmapped:
            function = jax.vmap(function, in_axes=in_axes)
        where: NamedSharding | None = replicated(self.mesh)
        if self.fsdp and not whole:
            function, where = _laid_out(function, self.mesh), None
        return jax.jit(
            function, out_shardings=where, compiler_options=compiler_options(), **options
        )

    def put(self, states: Tree) -> Tree:
        """Stacked states where the programs expect them."""
        if self.fsdp:
            return jax.tree.map(lambda leaf: to_devices(leaf, _where(self.mesh, leaf)), states)
        return to_devices(states, replicated(self.mesh))


def _where(mesh: Mesh, leaf: Any) -> NamedSharding:
    """Where a leaf of a stacked state goes under FSDP."""
    return split_largest(mesh, np.shape(leaf), first=1)


def _laid_out(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The function with results split as `_where` says; small ones are whole everywhere."""

    def run(*arguments: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(leaf, _where(mesh, leaf)),
            function(*arguments),
        )

    return run
