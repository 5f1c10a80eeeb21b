"""Checkpoints that are damaged: the one before is taken and it is told, nothing is deleted."""

import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import snapshot

from lt_jax.checkpoint import Checkpoints, read_step
from lt_jax.errors import InputError

# Orbax leaves tasks behind when a read fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# Every kind of file and folder of a checkpoint, by a pattern; those that are read to restore it.
READ = (
    "notes",
    "notes/metadata",
    "state",
    "state/manifest.ocdbt",
    "state/d",
    "state/d/*",
    "state/ocdbt.process_0",
    "state/ocdbt.process_0/d",
)
# Without these it is still read, and right; if they are there, they are read.
DISPENSABLE = ("state/_METADATA", "state/array_metadatas", "state/array_metadatas/process_0")
FOLDERS = (
    "notes",
    "state",
    "state/d",
    "state/ocdbt.process_0",
    "state/ocdbt.process_0/d",
    "state/array_metadatas",
)
UNREAD = (
    "_CHECKPOINT_METADATA",
    "commit_success.txt",
    "notes/commit_success.txt",
    "state/_sharding",
    "state/commit_success.txt",
    "state/ocdbt.process_0/manifest.ocdbt",
)


def state_of(step):
    """Arrays that differ from those of other steps, of several sizes and types."""
    return {"w": jnp.arange(5000.0) + step, "b": {"c": jnp.full((3,), step, jnp.int32)}}


def assert_is(state, step):
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(state_of(step)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("good") / "checkpoints"
    saved = Checkpoints(folder, 3)
    for step in (1, 2):
        saved.save(step, state_of(step), {"told": step})
    saved.close()
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "run/checkpoints"))


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def emptied(path):
    os.truncate(path, 0)


def changed(path):
    """One byte, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def missing(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def restored(folder):
    saved = Checkpoints(folder, 3)
    try:
        return saved.restore(state_of(0))
    finally:
        saved.close()


def assert_fell_back(folder, damaged, told):
    """To step 1; what is left of step 2 lies beside the checkpoints, as it was."""
    found = restored(folder)
    assert (found.step, found.notes["told"]) == (1, 1)
    assert_is(found.state, 1)
    errors = told.readouterr().err
    assert "the checkpoint of step 2 cannot be read (" in errors
    assert "the run goes on from the one before, of step 1" in errors
    (aside,) = folder.parent.glob("damaged_checkpoint_2_*")
    assert {name: content for name, (_, content) in snapshot(aside).items()} == damaged
    with pytest.raises(InputError, match="has no checkpoint of step 2"):
        read_step(folder, 2, state_of(0))


def contents(folder):
    return {name: content for name, (_, content) in snapshot(folder).items()}


def test_every_file_of_a_checkpoint_is_of_a_known_kind(good):
    """A new version of Orbax that writes others must be looked at."""
    known = {p for name in (*READ, *DISPENSABLE, *UNREAD) for p in (good / "2").glob(name)}
    known |= set((good / "2").glob("state/ocdbt.process_0/d/*"))
    assert set((good / "2").rglob("*")) == known


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in (*READ, *DISPENSABLE)
        for damage in (truncated, emptied, changed, missing)
        if damage is missing or name not in FOLDERS
    ],
)
def test_what_is_needed_to_read_it_is_damaged(name, damage, folder, capsys):
    (path,) = (folder / "2").glob(name)
    damage(path)
    if name in DISPENSABLE and damage is missing:
        assert_is(restored(folder).state, 2)
        return
    before = snapshot(folder)
    if not name.startswith("notes") or damage is not missing:
        with pytest.raises(InputError, match=r"the checkpoint of step 2 in .* cannot be read"):
            read_step(folder, 2, state_of(0))
    assert snapshot(folder) == before
    assert_fell_back(folder, contents(folder / "2"), capsys)


@pytest.mark.parametrize("damage", [truncated, emptied, changed, missing])
def test_any_other_file_changes_nothing_of_what_is_read(damage, folder, capsys):
    for name in UNREAD:
        damage(folder / "2" / name)
    found = restored(folder)
    assert found.step == 2
    assert_is(found.state, 2)
    assert_is(read_step(folder, 2, state_of(0)), 2)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("damage", [truncated, emptied, changed, missing])
def test_each_file_with_arrays(damage, good, tmp_path, capsys):
    """Only some hold what is read; of the others nothing is noticed, and the arrays are right."""
    noticed = 0
    for number, file in enumerate(sorted((good / "2/state/ocdbt.process_0/d").iterdir())):
        folder = Path(shutil.copytree(good, tmp_path / str(number) / "checkpoints"))
        damage(folder / "2/state/ocdbt.process_0/d" / file.name)
        damaged = contents(folder / "2")
        if restored_step(folder) == 1:
            noticed += 1
            (aside,) = folder.parent.glob("damaged_checkpoint_2_*")
            assert contents(aside) == damaged
            assert "the checkpoint of step 2 cannot be read (" in capsys.readouterr().err
    assert noticed >= 1


def restored_step(folder):
    """Of the checkpoint that was restored, whose arrays are right."""
    found = restored(folder)
    assert_is(found.state, found.step)
    return found.step


def test_checkpoints_of_an_earlier_version_have_no_checksum(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lt_jax.checkpoint.checksum", lambda state: None)
        saved = Checkpoints(tmp_path, 3)
        saved.save(2, state_of(2), {"told": 2})
        saved.close()
    assert restored_step(tmp_path) == 2
    assert_is(read_step(tmp_path, 2, state_of(0)), 2)


def test_none_can_be_read(folder):
    for step in ("1", "2"):
        emptied(folder / step / "state/manifest.ocdbt")
    before = snapshot(folder.parent)
    sentence = r"none of the checkpoints in .* \(steps \[1, 2\]\) can be read \(step 2: [^\n]+\);"
    with pytest.raises(InputError, match=sentence):
        restored(folder)
    assert snapshot(folder.parent) == before


def test_what_a_kill_left_is_removed_and_nothing_else(folder):
    partial = folder / "3.orbax-checkpoint-tmp/state"
    partial.mkdir(parents=True)
    (partial / "half").write_text("a")
    saved = Checkpoints(folder, 3)
    saved.save(3, state_of(3), {"told": 3})
    saved.close()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]
    assert restored_step(folder) == 3
