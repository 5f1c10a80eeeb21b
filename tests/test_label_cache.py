"""Labels remembered from start to start: found again, never those of other files."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lt_jax.data import label_cache
from lt_jax.data.label_cache import remembered


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(label_cache, "LARGE", 5)
    return tmp_path / "cache/lt_jax"


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"1234")
    return [str(path) for path in paths]


class Read:
    """Counts how often it is called."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"labels": np.arange(3) + self.calls, "names": np.array([b"x", b"yy", b""])}


def test_what_was_read_is_known_at_the_next_start(cache, files):
    first, again = Read(), Read()
    one, other = (remembered(files, "train", read) for read in (first, again))
    assert (first.calls, again.calls) == (1, 0)
    for name in ("labels", "names"):
        np.testing.assert_array_equal(one[name], other[name])
    assert remembered(files, "test", again)["labels"].tolist() == [1, 2, 3]
    assert again.calls == 1
    assert len(list(cache.glob("*.npz"))) == 2


def test_one_reads_and_the_others_wait_for_it(cache, files):
    """Processes of a machine that start together; locks of files tell threads apart as well."""
    read = Read()

    def slowly():
        time.sleep(0.3)
        return read()

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: remembered(files, "train", slowly), range(4)))
    assert read.calls == 1
    assert all(one["labels"].tolist() == [1, 2, 3] for one in found)


def test_other_files_are_read_anew(cache, files, tmp_path):
    read = Read()
    remembered(files, "train", read)
    (tmp_path / "b").write_bytes(b"12345")
    assert remembered(files, "train", read)["labels"].tolist() == [2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", None])
def test_a_damaged_file_is_read_anew_and_replaced(cache, files, content):
    read = Read()
    remembered(files, "train", read)
    (path,) = cache.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100] if content is None else content)
    assert remembered(files, "train", read)["labels"].tolist() == [2, 3, 4]
    assert remembered(files, "train", read)["labels"].tolist() == [2, 3, 4]


def test_small_and_distant_files_are_not_kept(cache, files):
    read = Read()
    for given in (files[:1], ["/no/such/file"]):
        assert remembered(given, "train", read)["names"].tolist() == [b"x", b"yy", b""]
    assert read.calls == 2
    assert not cache.exists()


def test_without_a_place_to_write_everything_is_read(cache, files):
    cache.parent.write_text("a file where the folder should be")
    read = Read()
    for _ in range(2):
        remembered(files, "train", read)
    assert read.calls == 2
