"""Advice from class counts alone: measures, methods, settings, each with reason and source.

Needs numpy only. ``lt_jax.advise`` is its entry.
"""

from lt_jax.advice.advisor import Advice, advice_for, advise
from lt_jax.advice.choices import Choice
from lt_jax.advice.measured import Group, Measures
from lt_jax.advice.settings import Numbers, Setting, Vectors, least_scale

__all__ = [
    "Advice",
    "Choice",
    "Group",
    "Measures",
    "Numbers",
    "Setting",
    "Vectors",
    "advice_for",
    "advise",
    "least_scale",
]
