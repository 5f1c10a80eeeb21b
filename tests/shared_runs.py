"""What files of tests on whole runs share: runs that are made once, and a network for them."""

import os
import pickle

import pytest
from filelock import FileLock
from tiny_runs import PixelNet

from lt_jax import models


@pytest.fixture(scope="module", autouse=True)
def _tiny_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "pixels", PixelNet)
        yield


def once(tmp_path_factory, name, make):
    """What `make` returns for a new folder; the first process that asks for the name calls it.

    Others wait for it, so that files of tests on the same runs cost no more than one file would.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of all processes of this test run
    kept = root / f"{name}.pickle"
    with FileLock(kept.with_suffix(".lock")):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(make(tmp_path_factory.mktemp(name))))
    return pickle.loads(kept.read_bytes())
