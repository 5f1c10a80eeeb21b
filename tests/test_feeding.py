"""Batches on their way to the devices: each gets its share, whoever reads, and after a resume."""

import contextlib
import dataclasses
import re
import time

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_runs import PixelNet, StopAfter, leaves, rows, tiny

from lt_jax import feeding, models, sharding
from lt_jax.assembly import make_training
from lt_jax.build import make_model
from lt_jax.data import StreamedImages, load_dataset, make_order
from lt_jax.data.decoding import Decoding
from lt_jax.data.folder_source import Files
from lt_jax.data.workers import Workers
from lt_jax.errors import InputError
from lt_jax.prepare import prepare
from lt_jax.steps import Split, make_train_step
from lt_jax.train import train

pytest.importorskip("grain")
Image = pytest.importorskip("PIL.Image")
COUNT, SIZE, BATCH, STEPS = 60, 6, 16, 3
LABELS = np.arange(COUNT) % 3


@pytest.fixture(autouse=True)
def _pixel_net(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(COUNT):
        pixels = np.random.default_rng(i).integers(0, 256, (10 + i % 5, 12, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return Files(folder, [f"{i}.png" for i in range(COUNT)])


@pytest.fixture(scope="module")
def readers(files):
    """The images, read by threads and by two processes."""
    workers = Workers(2)
    options = {"decoding": Decoding(SIZE), "what": files.path}
    shape = (SIZE, SIZE, 3)
    return {
        0: StreamedImages(files, COUNT, shape, **options).cropping(0.08),
        2: StreamedImages(files, COUNT, shape, workers=workers, **options).cropping(0.08),
    }


def split_of(images):
    mean = np.zeros(3, np.float32)
    return Split(images, LABELS.astype(np.int32), mean, mean + 1)


def order_of(scheme, epoch=2):
    """Batches of two replicas."""
    sampling = {"scheme": scheme, "beta": 0.9, "beta_spread": 1e-5}
    make = make_order(sampling, LABELS, 3, BATCH, 4)
    return np.stack([make(jax.random.key(seed), epoch) for seed in (5, 6)])


def batches(images, order, done=0):
    """All steps from one on: images and labels of both replicas."""
    place = feeding.Place((5, 6), 1, 2, done)
    mesh = sharding.make_mesh()
    split = split_of(images)
    with contextlib.closing(feeding.training_steps(split, order[:, done:], mesh, place)) as rest:
        found = [rest.take(1)[0] for _ in range(order.shape[1] - done)]
    return [(np.asarray(part.images), np.asarray(part.labels)) for part in found]


@pytest.mark.parametrize("scheme", ["instance", "class", "effective_number"])
def test_batches_are_the_same_whoever_reads_them_and_after_a_resume(readers, scheme):
    order = order_of(scheme)
    whole = batches(readers[0], order)
    assert len(whole) == STEPS
    for step, (images, labels) in enumerate(whole):
        assert images.shape == (2, BATCH, SIZE, SIZE, 3)
        np.testing.assert_array_equal(labels, LABELS[order[:, step]])
    plain = [np.asarray(x) for x in readers[0].batches(order.swapaxes(0, 1).reshape(STEPS, -1))]
    assert (np.stack([x for x, _ in whole]) != np.reshape(plain, (STEPS, 2, BATCH, 6, 6, 3))).any()
    for workers in (0, 2):
        for done in (0, 2):
            again = batches(readers[workers], order, done)
            for (images, labels), (x, y) in zip(whole[done:], again, strict=True):
                np.testing.assert_array_equal(images, x)
                np.testing.assert_array_equal(labels, y)


def test_crops_are_others_for_each_replica_epoch_and_stage(readers):
    order = np.zeros((2, 2, BATCH), np.int32)
    mesh = sharding.make_mesh()

    def first(seeds, stage, epoch, step):
        place = feeding.Place(seeds, stage, epoch, step)
        with contextlib.closing(
            feeding.training_steps(split_of(readers[0]), order, mesh, place)
        ) as rest:
            return np.asarray(rest.take(1)[0].images)

    one = first((0, 1), 1, 0, 0)
    assert len({image.tobytes() for image in one.reshape(-1, SIZE, SIZE, 3)}) > BATCH
    for other in (first((1, 0), 1, 0, 0), first((0, 1), 2, 0, 0), first((0, 1), 1, 1, 0)):
        assert (one != other).any()
    np.testing.assert_array_equal(one[::-1], first((1, 0), 1, 0, 0))


def test_a_device_gets_its_share_and_no_more(readers):
    mesh = sharding.make_mesh()
    order = order_of("instance")
    with contextlib.closing(
        feeding.training_steps(split_of(readers[0]), order, mesh, feeding.Place((5, 6), 1, 2, 0))
    ) as rest:
        split, numbers = rest.take(1)
    assert numbers.tolist() == [[0], [1]]
    for array in (split.images, split.labels):
        assert array.sharding == sharding.split_columns(mesh)
        assert {s.data.shape[:2] for s in array.addressable_shards} == {(2, BATCH // 8)}


def test_two_batches_are_on_their_way_while_a_step_runs(readers, monkeypatch):
    """One is read while another is copied; no more, as each takes memory of the devices."""
    put, real = [], feeding._put
    monkeypatch.setattr(feeding, "_put", lambda part, **how: put.append(part) or real(part, **how))
    order = np.zeros((2, 8, BATCH), np.int32)
    place = feeding.Place((5, 6), 1, 2, 0)
    split = split_of(readers[0])
    with contextlib.closing(
        feeding.training_steps(split, order, sharding.make_mesh(), place)
    ) as rest:
        for taken in (1, 2):
            rest.take(1)
            expected = 2 * (taken + 2)  # images and labels
            deadline = time.monotonic() + 20
            while len(put) < expected and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            assert len(put) == expected


class TwoOfFour:
    """A sharding of four devices, of which this process has the second and the last."""

    def addressable_devices_indices_map(self, shape):
        share = shape[1] // 4
        return {d: (slice(None), slice(d * share, (d + 1) * share)) for d in (3, 1)}


def test_a_process_reads_only_what_its_devices_hold(monkeypatch):
    read, put = [], []

    def load(i):
        read.append(i)
        return np.full((1, 1, 1), i, np.uint8)

    images = StreamedImages(load, 64, (1, 1, 1))
    split = Split(images, np.arange(64, dtype=np.int32), np.zeros(1), np.ones(1))

    def make(shape, sharding, data):
        held = sharding.addressable_devices_indices_map(shape[:2]).values()
        put.append((shape, [data(index).ravel().tolist() for index in held]))

    monkeypatch.setattr(jax, "make_array_from_callback", make)
    monkeypatch.setattr(feeding, "split_columns", lambda mesh: TwoOfFour())
    order = np.arange(32).reshape(2, 16)[:, None]
    place = feeding.Place((0, 1), 1, 0, 0)
    rest = feeding.training_steps(split, order, sharding.make_mesh(), place)
    rest.take(1)
    rest.close()
    second, last = [*range(4, 8), *range(20, 24)], [*range(12, 16), *range(28, 32)]
    assert put[:2] == [((2, 16, 1, 1, 1), [last, second]), ((2, 16), [last, second])]
    assert sorted(read) == sorted(second + last)
    np.testing.assert_array_equal(
        place.draws(1, np.array([4, 12]), 16)[0, 1], [[1, 1, 0, 4], [1, 1, 0, 12]]
    )


def streamed(images):
    return StreamedImages(lambda i: images[i], len(images), images.shape[1:])


def test_the_compiled_step_gathers_nothing(tmp_path):
    """Eight devices: gradients are reduced, and no part of the batch leaves its device."""
    config = tiny(train__num_devices=8, augment__flip=True, augment__crop_padding=1)
    whole = load_dataset(config.data)
    lazy = dataclasses.replace(whole, train_images=streamed(whole.train_images))
    run = prepare(config, tmp_path, lazy)
    training = make_training(config, config.train, whole)
    network = make_model(config, whole, training.objective)
    step = make_train_step(network, *training[:1], training.optimizer, config.augment, run.mesh)
    keys = jax.vmap(jax.random.key)(np.arange(1))
    (state,), order = run.replicas.init(keys), np.asarray(run.replicas.order(keys, 0))
    place = feeding.Place((0,), 1, 0, 0)
    rest = feeding.training_steps(run.splits["train"], order, run.mesh, place)
    split, numbers = rest.take(1)
    rest.close()
    text = jax.jit(step).lower(state, keys[0], split, numbers[0, 0]).compile().as_text()
    assert re.search(r" all-reduce(-start)?\(", text)
    assert not re.search(r" (all-gather|all-to-all|collective-permute)(-start)?\(", text)


@pytest.mark.parametrize("mode", ["vmap", "sequential"])
def test_streaming_on_eight_devices_is_training_in_memory(tmp_path, mode):
    """Two replicas, with validation and test, whose last batches are not full."""
    config = tiny(replicas=2, replica_mode=mode, train__num_devices=8, train__eval_batch_size=56)
    whole = load_dataset(config.data)
    names = ("train_images", "validation_images", "test_images")
    lazy = dataclasses.replace(whole, **{n: streamed(getattr(whole, n)) for n in names})
    train(config, tmp_path / "memory", dataset=whole)
    train(config, tmp_path / "streamed", dataset=lazy)
    for one, other in zip(*(rows(tmp_path / n) for n in ("memory", "streamed")), strict=True):
        assert one.keys() == other.keys()
        assert one["step"] == other["step"]
    for one, other in zip(*(leaves(tmp_path / n) for n in ("memory", "streamed")), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def write_folder(root):
    """Photographs of three classes, each brighter than the last."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for c in range(3):
            (root / split / str(c)).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(60 * c, 60 * c + 100, (12, 10 + i % 3, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / str(c) / f"{i}.png")
    return root


def folder_config(root, **fields):
    config = tiny(train__batch_size=8, train__eval_batch_size=16, train__epochs=2, **fields)
    config.data.update(source=f"folder:{root}", image_size=8, stream=True, max_count=0)
    config.data.update(imbalance=0.0, validation_size=6, normalization="imagenet")
    config.augment.update(random_resized_crop=0.2, flip=True)
    config.sampling.scheme = "effective_number"
    return config


class FlatNet(PixelNet):
    """The same of 8 x 8 pixels of three colours."""

    num_features = 192

    def __init__(self, num_channels, *, head, dtype, rngs):
        self.norm = nnx.BatchNorm(192, momentum=0.9, dtype=dtype, rngs=rngs)
        self.head = head


def test_a_run_with_random_crops_goes_on_as_if_never_stopped(tmp_path, monkeypatch):
    """In the middle of an epoch; and the second stage crops too."""
    monkeypatch.setitem(models.MODELS, "pixels", FlatNet)
    root = write_folder(tmp_path / "images")
    config = folder_config(root, method="cross_entropy/crt")
    config.retrain.update(epochs=1, batch_size=8)
    config.retrain.augment.random_resized_crop = 0.2
    whole = train(config, tmp_path / "whole")
    assert not whole["retrain"]["cached_features"]
    with monkeypatch.context() as patch:
        patch.setattr(StopAfter, "step", 13)
        patch.setattr("lt_jax.finish.Stop", StopAfter)
        assert train(config, tmp_path / "twice") is None
    train(config, tmp_path / "twice")
    for stage in ("stage1", "stage2"):
        assert rows(tmp_path / "whole" / stage) == rows(tmp_path / "twice" / stage)
    plain = folder_config(root)
    plain.augment.random_resized_crop = 0.0
    train(plain, tmp_path / "plain")
    assert rows(tmp_path / "plain") != rows(tmp_path / "whole/stage1")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"data__stream": False}, r"augment.random_resized_crop is 0.2, but .*data.stream=True"),
        ({"augment__random_resized_crop": 1.5}, r"random_resized_crop is 1.5; expected at most 1"),
        ({"data__resize": "fit"}, r"config.data.resize is 'fit'; expected one of stretch, crop"),
        ({"data__on_corrupt": "x"}, r"on_corrupt is 'x'; expected one of refuse, skip"),
        (
            {"data__stream": False, "data__workers": 2, "augment__random_resized_crop": 0.0},
            r"data.workers is 2 and data.stream False; expected 0 workers, or --config.data.stream",
        ),
        ({"data__workers": -1}, r"config.data.workers is -1; expected at least 0"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, fields, sentence):
    config = folder_config(write_folder(tmp_path / "images"))
    for name, value in fields.items():
        group, field = name.split("__")
        config[group][field] = value
    with pytest.raises(InputError, match=sentence):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
