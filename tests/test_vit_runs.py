"""Whole runs of a network without batch statistics: both stages, stops, DLSA, weights of a file."""

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_runs import Killed, checkpoint, dying, leaves, tiny

from lt_jax import models
from lt_jax.extract import extract_features
from lt_jax.models import VisionTransformer, create_model
from lt_jax.models.names import vit_name
from lt_jax.train import train

WIDTH, SEEDS = 16, 2


class Small(VisionTransformer):
    """For digits of 8x8 pixels; compiles in no time."""

    num_features, num_heads, depth, patch_size = WIDTH, 2, 1, 4


def run(method, **fields):
    """Replicas side by side."""
    given = {"replicas": SEEDS, "replica_mode": "vmap"}
    given |= {"model__name": "small_vit", "optimizer__name": "adam"}
    return tiny(method, **given | {"optimizer__learning_rate": 3e-3} | fields)


@pytest.fixture(scope="module", autouse=True)
def _small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "small_vit", Small)
        yield


@pytest.fixture(scope="module")
def gcl():
    """Both stages with fields that are quick."""
    return run("gcl", retrain__epochs=2, retrain__optimizer__warmup_epochs=1.0)


@pytest.fixture(scope="module")
def done(gcl, tmp_path_factory):
    """Both stages of GCL, undisturbed."""
    folder = tmp_path_factory.mktemp("gcl")
    return folder, train(gcl, folder)


def test_a_killed_run_of_two_stages_ends_with_the_same_bits(gcl, done, tmp_path):
    with dying(1, stage=2), pytest.raises(Killed):
        train(gcl, tmp_path)
    summary = train(gcl, tmp_path)
    folder, undisturbed = done
    assert summary["test"] == undisturbed["test"]
    for part in ("stage1", "stage2"):
        pairs = zip(leaves(tmp_path / part), leaves(folder / part), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)


def test_features_are_extracted(done, tmp_path):
    folder, _ = done
    for path in extract_features(folder, tmp_path / "features"):
        for split in ("train", "validation", "test"):
            (file,) = path.glob(f"{split}-*.npz")
            features = np.load(file)["features"]
            assert features.shape[1] == WIDTH
            # The layer norm of a class token: mean 0 and variance 1, as training hardly moves it.
            np.testing.assert_allclose(features.std(1), 1, atol=0.3)


def test_a_run_starts_from_pretrained_weights(tmp_path):
    """A rate so small that nothing moves: what was trained is what the file holds."""
    shape = {"image_shape": (8, 8, 1), "num_classes": 10}
    weights = {}
    made = nnx.to_pure_dict(nnx.state(create_model("small_vit", **shape, rngs=nnx.Rngs(7))))
    for keys, leaf in jax.tree_util.tree_leaves_with_path(made):
        name = vit_name(tuple(key.key for key in keys))
        if name and name != "pos_embed":
            theirs = {4: (3, 2, 0, 1), 2: (1, 0)}  # where PyTorch has the axes elsewhere
            weights[name] = np.transpose(leaf, theirs.get(leaf.ndim, range(leaf.ndim)))
    positions = made["class_position"], *made["positions"].reshape(-1, WIDTH)
    np.savez(tmp_path / "w.npz", pos_embed=np.stack(positions)[None], **weights)
    config = run("cross_entropy", optimizer__learning_rate=1e-12, train__epochs=1)
    config.model.pretrained = str(tmp_path / "w.npz")
    train(config, tmp_path / "run")
    params = checkpoint(tmp_path / "run")["params"]
    expected = {name: part for name, part in made.items() if name != "head"}
    found = {name: part for name, part in params.items() if name != "head"}
    for one, many in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        for replica in range(SEEDS):
            np.testing.assert_allclose(many[replica], one, atol=1e-7)
    assert np.ptp(params["head"]["kernel"], axis=0).max() > 0.1  # heads are each replica's own
