"""Long-tailed image recognition in JAX: losses, objectives and training runs.

Nothing is imported here before it is asked for, so that ``import lt_jax.losses`` loads jax and
numpy only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lt_jax.advice import advise as advise

__version__ = "0.1.0"
__all__ = ["advise"]


def __getattr__(name: str) -> Any:
    if name == "advise":
        from lt_jax.advice import advise

        return advise
    raise AttributeError(f"module 'lt_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
