"""Runs in a bucket: everything that a run writes and reads, by HTTP from a server here."""

import importlib.util
import json

import numpy as np
import pytest
from bucket import Bucket
from tiny_runs import Killed, PixelNet, dying, leaves, rows, scores, tiny

from lt_jax import models, workdir
from lt_jax.errors import InputError, StorageError
from lt_jax.extract import extract_features
from lt_jax.files import files_in, folder_of, path_from
from lt_jax.retrain import retrain
from lt_jax.stage1 import config_of
from lt_jax.tables import write_tables
from lt_jax.train import train

pytestmark = [
    pytest.mark.skipif(not importlib.util.find_spec("gcsfs"), reason="needs lt_jax[gcs]"),
]


@pytest.fixture(scope="module")
def bucket():
    """An empty one, to which both clients are led; it must be the first that they see."""
    with Bucket() as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", made.url)  # gcsfs and google-cloud-storage
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", made.url)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "anyone")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it asks Google by gRPC
        patch.setenv("EPATH_USE_TF", "false")
        patch.setitem(models.MODELS, "pixels", PixelNet)
        yield made


def config(method="cross_entropy", **fields):
    return tiny(method, train__epochs=3, train__tensorboard=True, train__picture=True, **fields)


@pytest.fixture(scope="module")
def local(tmp_path_factory, bucket):
    """The same run on a disk."""
    folder = tmp_path_factory.mktemp("local")
    return folder, train(config(), folder)


@pytest.fixture(scope="module")
def killed(bucket):
    """A run that dropped dead in its third epoch and went on; what was there when it had died."""
    with pytest.raises(Killed), dying(2):
        train(config(), "gs://bucket/runs/a")
    left = dict(bucket.objects)
    return left, train(config(), "gs://bucket/runs/a")


def names(bucket, prefix):
    """Of what is directly in a folder."""
    return {n.removeprefix(prefix).split("/")[0] for n in bucket.objects if n.startswith(prefix)}


def copied(bucket, prefix, folder):
    """A folder of a bucket on the disk."""
    for name, (content, _) in bucket.objects.items():
        if name.startswith(prefix):
            path = folder / name.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def test_killed_and_resumed_it_ends_as_on_a_disk(bucket, local, killed, tmp_path):
    """The same bits, rows and files; and what a kill leaves has the rows of its checkpoint."""
    left, summary = killed
    at_death = [json.loads(line) for line in left["runs/a/metrics.jsonl"][0].splitlines()]
    assert max(row["step"] for row in at_death) == 6
    assert scores(summary) == scores(local[1])
    assert names(bucket, "runs/a/") == {path.name for path in local[0].iterdir()} - {workdir.LOCK}
    assert names(bucket, "runs/a/checkpoints/") == {"6", "9"}  # the oldest was deleted there too
    folder = copied(bucket, "runs/a/", tmp_path)
    assert rows(folder) == rows(local[0])
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert (folder / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert all(path.stat().st_size > 300 for path in (folder / "tensorboard").iterdir())
    for one, other in zip(leaves(folder), leaves(local[0]), strict=True):
        np.testing.assert_array_equal(one, other)
    before = dict(bucket.objects)
    assert train(config(), "gs://bucket/runs/a") == summary  # finished: left as it is
    assert bucket.objects == before


def test_second_stage_features_and_table(bucket, local, killed, tmp_path):
    """Read from a bucket and written into it; weights have the name that they have on a disk."""
    given = config_of("gs://bucket/runs/a").unlock()
    given.retrain = config("cross_entropy/crt").retrain
    given.train.tensorboard = given.train.picture = False
    summary = retrain(given, "gs://bucket/runs/crt", "gs://bucket/runs/a")
    assert summary["stage1"]["workdir"] == "gs://bucket/runs/a"
    there = copied(bucket, "runs/a/", tmp_path / "a")
    assert scores(retrain(given, tmp_path / "crt", there)) == scores(summary)
    start = json.loads(bucket.objects["runs/crt/stage1.json"][0])
    assert start == json.loads((tmp_path / "crt/stage1.json").read_text())
    assert path_from(folder_of("gs://bucket/runs/crt"), start["folder"]) == folder_of(
        "gs://bucket/runs/a"
    )
    (features,) = extract_features("gs://bucket/runs/a", "gs://bucket/features")
    kinds = [path.name.split("-")[0] for path in files_in(features)]
    assert kinds == ["test", "train", "validation"]
    extract_features(there, tmp_path / "features")
    with np.load(tmp_path / "features/seed_0/test-00000-of-00001.npz") as here:
        copied(bucket, "features/", tmp_path / "copied")
        with np.load(tmp_path / "copied/seed_0/test-00000-of-00001.npz") as remote:
            np.testing.assert_array_equal(here["features"], remote["features"])
    write_tables([killed[1], summary], folder_of("gs://bucket/runs"))
    assert b"| cross_entropy |" in bucket.objects["runs/table.md"][0]


def test_damaged_and_unfinished_checkpoints(bucket, local, killed, capsys):
    """Of a copy of the dead run: step 6 is damaged, and step 9 never got its last file."""
    for name, (content, _) in killed[0].items():
        bucket.put(name.replace("runs/a/", "runs/b/"), content)
    bucket.put("runs/b/checkpoints/6/state/manifest.ocdbt", b"")
    bucket.put("runs/b/checkpoints/9/state/manifest.ocdbt", b"half")
    summary = train(config(), "gs://bucket/runs/b")
    told = capsys.readouterr().err
    assert "the checkpoint of step 6 cannot be read" in told
    assert "going on from step 3 of 9" in told
    assert scores(summary) == scores(local[1])
    (aside,) = (name for name in names(bucket, "runs/b/") if name.startswith("damaged"))
    assert bucket.objects[f"runs/b/{aside}/state/manifest.ocdbt"][0] == b""


@pytest.mark.parametrize("refused", ["config.json", "checkpoints/3/state", "summary.json"])
def test_a_bucket_that_takes_no_more(refused, bucket, local, monkeypatch):
    folder, short = f"gs://bucket/runs/{refused.replace('/', '_')}", tiny(train__epochs=1)
    monkeypatch.setattr(bucket, "refused", refused)
    with pytest.raises(StorageError, match=r"^gs://bucket/runs/.* could not be written to \(.+\)"):
        train(short, folder)
    monkeypatch.undo()
    assert train(short, folder)["training"]["steps"] == 3


def test_folders_that_cannot_be(bucket, monkeypatch):
    with pytest.raises(StorageError, match=r"gs://nowhere/run could not be written to \(.*nowhere"):
        train(config(), "gs://nowhere/run")
    for name, sentence in [
        ("s3://bucket/run", "is of no known kind; expected a path, or gs://"),
        ("gs://", "is of no known kind"),
        ("gs:/bucket/run", "lacks a slash, as pathlib drops one"),
    ]:
        with pytest.raises(InputError, match=sentence):
            folder_of(name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'lt_jax\[gcs\]'"):
        folder_of("gs://bucket/run")
