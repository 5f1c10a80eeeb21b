"""What tests share: eight virtual CPU devices, reference values, float64, made-up sets, advice."""

import atexit
import gc
import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

# Before jax is imported anywhere, and for processes that tests start: sharding is tested on devices
# that every machine has.
os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" not in os.environ:  # which has what is set here from its controller
    QUICK_FLAGS = "--xla_force_host_platform_device_count=8"
    if version("jaxlib").startswith("0.10."):  # later ones have no other way, and refuse the flag
        # Compiles in half the time, and in one thread.
        QUICK_FLAGS += " --xla_cpu_use_fusion_emitters=false"
        QUICK_FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_FLAGS}".strip()
    # Compiling is most of the time of tiny programs: done quickly, and once for all processes of
    # this test run; what is to be compiled as users have it takes `compiling.optimised_jit`. The
    # folder is new each time, so nothing that was compiled before is tested.
    COMPILED = tempfile.mkdtemp(prefix="lt_jax_compiled_")
    atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    # Which Python line an operation comes from is a tenth of the time of tracing and lowering.
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jax
import pytest
from made_up import one_label, several_labels, source_of

from lt_jax.models import MODELS
from lt_jax.objectives import METHODS, TRANSFORMS

# JAX keeps what it traces: looking through all of it for garbage takes longer the longer we test.
gc.freeze()
gc.set_threshold(100_000, 20, 100)

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


@pytest.fixture
def registries_restored():
    """What examples add to a registry does not stay."""
    before = [(table, dict(table)) for table in (MODELS, TRANSFORMS, METHODS)]
    yield
    for table, content in before:
        table.clear()
        table.update(content)


@pytest.fixture
def npz(tmp_path):
    """Writes a set of images of one label each, with changes, and returns ``arrays:<file>``."""
    return lambda **changes: source_of(one_label(**changes), tmp_path)


@pytest.fixture
def hot_npz(tmp_path):
    """The same of feature vectors with multi-hot labels."""
    return lambda **changes: source_of(several_labels(**changes), tmp_path)


@pytest.fixture(scope="session")
def advised():
    """The advice for each of the sets of `counted_sets`."""
    from counted_sets import SETS

    from lt_jax.advice import advice_for

    return {
        name: advice_for(counts, total is not None, num_examples=total)
        for name, (counts, total) in SETS.items()
    }
