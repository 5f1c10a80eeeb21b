"""What every test shares: eight virtual CPU devices, the reference values, float64 on demand."""

import json
import os
from pathlib import Path

# Before jax is imported anywhere: sharding is tested on devices that every machine has.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()

import jax
import pytest

GOLDEN = Path(__file__).parent / "golden"
CASES = {n: json.loads((GOLDEN / f"case_{n}.json").read_text()) for n in (1, 2, 3)}


@pytest.fixture(params=sorted(CASES), ids=lambda n: f"case_{n}")
def golden(request):
    """One of the three sets of float64 reference values, each on another class distribution."""
    return CASES[request.param]


@pytest.fixture
def x64():
    """The test runs in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def compiled_quickly(tmp_path_factory):
    """Programs of a module are compiled quickly, and once for all workers."""
    from tiny_runs import compiled_folder, compiled_once

    with compiled_once(compiled_folder(tmp_path_factory)):
        yield
