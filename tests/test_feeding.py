"""Batches on their way to the devices: each share once, to its device, the same after a resume."""

import contextlib
import re
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import PixelNet

from lt_jax import augment, feeding, models, sharding
from lt_jax.augment import augment as _unused  # noqa: F401
