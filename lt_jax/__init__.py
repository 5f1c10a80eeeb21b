"""Long-tailed image recognition in JAX: losses, objectives and training runs.

Nothing is imported here before it is asked for, so that ``import lt_jax.losses`` loads jax and
numpy only.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["advise"]

if TYPE_CHECKING:
    from lt_jax.advice import advise
else:  # seen by type checkers, it would make every name one of the package

    def __getattr__(name):
        if name == "advise":
            from lt_jax.advice import advise

            return advise
        raise AttributeError(f"module 'lt_jax' has no attribute {name!r}")
