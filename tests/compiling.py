"""Tests compile quickly, as conftest.py says; where the compiled code matters, as users do."""

from functools import partial

import jax

optimised_jit = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
    },
)
