"""Programs of a run are compiled at the same time, once, as they are called later."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections import Counter

import jax
import numpy as np
import pytest
from tiny_runs import ROOT, PixelNet, leaves, tiny

from lt_jax import finish, loop, models, programs, sharding
from lt_jax.data import StreamedImages, load_dataset
from lt_jax.prepare import put_splits
from lt_jax.retrain import retrain
from lt_jax.second_run import Ahead
from lt_jax.train import train

COMPILED = []
STEP, EVALUATION = "jit(run)", "jit(step)"  # as JAX calls their programs


def _note(event, _seconds, **facts):
    if event.endswith("backend_compile_duration"):
        COMPILED.append(facts["fun_name"])


jax.monitoring.register_event_duration_secs_listener(_note)


@pytest.fixture(autouse=True)
def _pixel_net(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


def streamed(dataset):
    """The same images, as if they were read when they are needed."""
    names = ("train_images", "validation_images", "test_images")
    whole = {name: getattr(dataset, name) for name in names}
    lazy = {
        name: StreamedImages(images.__getitem__, len(images), images.shape[1:])
        for name, images in whole.items()
    }
    return dataclasses.replace(dataset, **lazy)


RUNS = {
    "in turn": {"replicas": 2, "replica_mode": "sequential"},
    "side by side": {"replicas": 2, "replica_mode": "vmap"},
    "eight devices": {"train__num_devices": 8},
    "calls of two steps": {"train__steps_per_call": 2},
    "fsdp": {"train__num_devices": 8, "train__fsdp": True},
    "computed features": {"method": "cross_entropy/crt", "retrain__epochs": 2},
    "without validation": {"data__validation_size": 0},
    "batches of one size": {"train__eval_batch_size": 50},
}


@pytest.mark.parametrize("stream", [False, True], ids=["in memory", "streamed"])
@pytest.mark.parametrize("kind", RUNS)
def test_what_was_compiled_together_is_not_compiled_again(kind, stream, tmp_path, monkeypatch):
    """A shape, a type or a place that differs from a later call's would be one more program."""
    together, later = [], []
    compile_all = loop.Loop._compile

    def watched(call):
        def run(*given):
            COMPILED.clear()
            result = call(*given)
            later.extend(COMPILED)
            return result

        return run

    def compiled(self, *given):
        COMPILED.clear()
        compile_all(self, *given)
        together.append([name for name in COMPILED if name in (STEP, EVALUATION)])
        replicas = self.run.replicas
        replicas = replicas._replace(advance=watched(replicas.advance))
        self.run = self.run._replace(replicas=replicas)

    monkeypatch.setattr(loop.Loop, "_compile", compiled)
    for module in (loop, finish):
        monkeypatch.setattr(module, "evaluate", watched(loop.evaluate))
    fields = dict(RUNS[kind])
    config = tiny(fields.pop("method", "cross_entropy"), **fields)
    dataset = load_dataset(config.data)
    train(config, tmp_path, dataset=streamed(dataset) if stream else dataset)
    calls = 2 if kind == "calls of two steps" and not stream else 1  # an epoch has an odd number
    one = kind == "without validation" or (kind == "batches of one size" and stream)
    splits = 1 if one else 2
    expected = {STEP: calls, EVALUATION: splits}
    assert [Counter(names) for names in together] == [expected] * len(together)
    assert len(together) == 1 + bool(config.retrain.method)
    assert not {STEP, EVALUATION} & set(later)


def test_weights_are_those_without_compiling_ahead(tmp_path, monkeypatch):
    """Bit for bit, of a step whose state is given up."""
    train(tiny(), tmp_path / "ahead")
    monkeypatch.setattr(loop.Loop, "_compile", lambda *_: None)
    train(tiny(), tmp_path / "when needed")
    for one, other in zip(
        *map(leaves, (tmp_path / "ahead", tmp_path / "when needed")), strict=True
    ):
        np.testing.assert_array_equal(one, other)


AHEAD = {
    **RUNS,
    "one seed": {},
    "one call an epoch": {"train__steps_per_call": 50},
    "another head": {"method": "cross_entropy/crt/gcl"},
}


@pytest.mark.parametrize(
    ("kind", "calls", "splits"),
    [
        ("one seed", 1, 2),
        ("side by side", 1, 2),
        ("eight devices", 1, 2),
        ("calls of two steps", 2, 2),
        ("one call an epoch", 1, 2),
        ("another head", 1, 2),
        ("without validation", 1, 1),
    ],
)
def test_programs_of_a_second_stage_are_compiled_with_those_of_the_first(
    kind, calls, splits, tmp_path, monkeypatch
):
    """Its steps on images and its evaluation; and it calls those."""
    together, compile_all = [], loop.Loop._compile

    def watched(self, *given):
        compiled = len(COMPILED)
        compile_all(self, *given)
        names = [name for name in COMPILED[compiled:] if name in (STEP, EVALUATION)]
        together.append(Counter(names))

    monkeypatch.setattr(loop.Loop, "_compile", watched)
    fields = {"method": "cross_entropy/crt", "retrain__augment__flip": True, **AHEAD[kind]}
    config = tiny(**fields, retrain__batch_size=64)
    COMPILED.clear()
    train(config, tmp_path)
    both = Counter({STEP: 2 * calls, EVALUATION: 2 * splits})
    assert together == [both, Counter()]
    assert Counter(name for name in COMPILED if name in both) == both


@pytest.mark.parametrize("fields", [{}, {"replicas": 2, "replica_mode": "vmap"}])
def test_a_second_stage_made_ahead_is_the_one_made_later(fields, tmp_path):
    """Bit for bit: it starts from the weights of the first stage, which it has not seen."""
    config = tiny("cross_entropy/finetune", retrain__augment__flip=True, **fields)
    train(config, tmp_path / "ahead")
    retrain(config, tmp_path / "later", from_workdir=tmp_path / "ahead")
    both = tmp_path / "ahead" / "stage2", tmp_path / "later"
    for one, other in zip(*map(leaves, both), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["streamed", "computed features", "fsdp"])
def test_no_program_of_a_second_stage_is_compiled_ahead_where_it_would_not_fit(kind, tmp_path):
    """Streamed images have batches of another kind; under FSDP memory is short."""
    fields = RUNS.get(kind, {"method": "cross_entropy/crt"})
    method = {"method": "cross_entropy/crt", **fields}
    config = tiny(**method, retrain__augment__flip=kind != "computed features")
    dataset = load_dataset(config.data)
    dataset = streamed(dataset) if kind == "streamed" else dataset
    splits = put_splits(dataset, sharding.make_mesh(config.train.num_devices))
    ahead = Ahead(config, tmp_path, dataset, splits)
    assert list(ahead.programs()) == []
    assert (ahead.run is None) == (kind != "fsdp")


def test_a_run_made_ahead_of_another_config_is_not_used(tmp_path):
    """Nor one for another folder: it would write there, and train otherwise."""
    config = tiny("cross_entropy/finetune", retrain__augment__flip=True)
    train(config, tmp_path / "run")
    dataset = load_dataset(config.data)
    other = tiny("cross_entropy/finetune", retrain__augment__flip=True, retrain__epochs=3)
    splits = put_splits(dataset, sharding.make_mesh(1))
    for number, (known, folder) in enumerate([(other, "0"), (config, "elsewhere")]):
        ahead = Ahead(known, tmp_path / folder, dataset, splits)
        summary = retrain(config, tmp_path / str(number), tmp_path / "run", ahead=ahead)
        assert summary["config"]["retrain"]["epochs"] == config.retrain.epochs
        assert summary["training"]["steps"] == 10 * summary["training"]["steps_per_epoch"]
        assert (tmp_path / str(number) / "summary.json").exists()
    assert not (tmp_path / "elsewhere").exists()


def test_one_compiles_while_the_next_does(monkeypatch):
    """Each in a thread of its own: they meet, which one after another never would."""
    meeting = threading.Barrier(3, timeout=60)

    class Lowered:
        def compile(self):
            meeting.wait()

    class Program:
        def lower(self, *_):
            assert threading.current_thread() is threading.main_thread()
            return Lowered()

    monkeypatch.setattr("os.cpu_count", lambda: 1)
    programs.compile_together([(Program(), ())] * 3)


SCRIPT = """
import jax
from lt_jax import cli
cli.main(lambda: print(jax.jit(lambda x: x * 2 + 1)(3.0)))
"""


@pytest.mark.parametrize("folder", ["XDG_CACHE_HOME", "HOME", "JAX_COMPILATION_CACHE_DIR"])
def test_scripts_keep_what_they_compile_for_the_next_start(folder, tmp_path):
    """In the user's cache, also what is compiled in no time; or where JAX is told to."""
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("JAX_")}
    inherited.pop("XDG_CACHE_HOME", None)
    plain = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")}
    if folder.startswith("JAX"):
        plain["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**inherited, **plain, folder: str(tmp_path / "kept")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "7.0\n", done.stderr
    below = {"XDG_CACHE_HOME": "lt_jax/compiled", "HOME": ".cache/lt_jax/compiled"}.get(folder, "")
    assert {path.parent for path in tmp_path.rglob("jit_*-cache")} == {tmp_path / "kept" / below}


def test_what_cannot_be_compiled_says_so():
    class Lowered:
        def compile(self):
            raise RuntimeError("no room")

    class Program:
        def lower(self, *_):
            return Lowered()

    with pytest.raises(RuntimeError, match="no room"):
        programs.compile_together([(Program(), ())])
