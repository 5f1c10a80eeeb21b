"""What cannot be exported, replaced or read is refused; a model that is there stays whole."""

# ruff: noqa: F811 (fixtures are imported, and named again as arguments)

import shutil

import jax
import pytest
from exported import exported, images, run, served  # noqa: F401 (fixtures)
from shared_runs import _tiny_network  # noqa: F401 (a fixture)
from tiny_runs import snapshot

from lt_jax import export as export_module
from lt_jax.artifact import load_artifact
from lt_jax.errors import InputError, StorageError
from lt_jax.export import export_run

# Runs


def unfinished(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    return {"workdir": tmp_path / "run"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (unfinished, r"the run in .*run has not finished: there is no summary\.json"),
        (lambda _, tmp_path: {"workdir": tmp_path}, r"holds no config\.json; expected the folder"),
        (lambda *_: {"seed": 7}, r"seed is 7, but the run in .* has seeds \[0, 1\]"),
        (lambda *_: {"weights": "worst"}, r"weights is 'worst', .* has 'last' or 'best_on_valid"),
        (lambda *_: {"platforms": ["gpu"]}, r"platforms has 'gpu'; expected some of cpu, cuda"),
        (lambda *_: {"platforms": []}, r"platforms has empty; expected"),
        (lambda *_: {"out": "gs://bucket/model"}, r"expected a local folder"),
    ],
)
def test_what_cannot_be_exported_is_refused(change, sentence, run, tmp_path, monkeypatch):
    monkeypatch.setattr("lt_jax.export.folder_of", lambda name: type(tmp_path)(name))
    monkeypatch.setattr("lt_jax.export.is_remote", lambda path: str(path).startswith("gs:"))
    given = {"workdir": run[1], "out": tmp_path / "out"}
    with pytest.raises(InputError, match=sentence):
        export_run(**{**given, **change(run[1], tmp_path)})
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_there_is_kept_or_replaced_as_a_whole(run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    exported(run[1], out)
    before = snapshot(out)
    with pytest.raises(InputError, match="is there already; choose another out, or give --overwr"):
        exported(run[1], out, seed=1)

    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export_module, "write_bytes", full)
        with pytest.raises(StorageError, match="No space left"):
            exported(run[1], out, seed=1, overwrite=True)
    assert snapshot(out) == before
    assert exported(run[1], out, seed=1, overwrite=True).facts["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="mine is no exported model, and is not overwritten"):
        exported(run[1], tmp_path / "mine", overwrite=True)


# Models


def changed(path, text):
    path.write_text(text)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda m: (m / "model.json").unlink(),
            r"is not an exported model, as it holds no model\.",
        ),
        (lambda m: changed(m / "model.json", "{}"), r"has format None; expected 'lt_jax model 1'"),
        (lambda m: changed(m / "model.json", "{"), r"model\.json cannot be read"),
        (lambda m: (m / "weights.npz").unlink(), r"lacks weights\.npz; expected all files"),
        (lambda m: changed(m / "model.stablehlo", "x"), r"model\.stablehlo is damaged"),
    ],
)
def test_what_is_no_exported_model_is_refused(damage, sentence, served, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(served.folder, folder)
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        load_artifact(folder)


def test_a_platform_it_was_not_exported_for_is_named(served, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert load_artifact(served.folder)  # cuda is one of them
    monkeypatch.setattr(jax, "default_backend", lambda: "metal")
    with pytest.raises(InputError, match=r"for cpu, cuda, tpu, and JAX runs on metal here"):
        load_artifact(served.folder)
