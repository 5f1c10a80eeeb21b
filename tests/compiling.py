"""Tests compile quickly, as conftest.py says; where the compiled code matters, as users do."""

from functools import partial
from importlib.metadata import version

import jax

OPTIMISED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
if version("jaxlib").startswith("0.10."):
    OPTIMISED["xla_cpu_use_fusion_emitters"] = True
optimised_jit = partial(jax.jit, compiler_options=OPTIMISED)
