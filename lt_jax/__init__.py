"""Long-tailed image recognition in JAX: losses, objectives and training runs.

Nothing is imported here, so that ``import lt_jax.losses`` loads jax and numpy only.
"""

__version__ = "0.1.0"
