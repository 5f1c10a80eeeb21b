"""No room on the disk: one sentence, what was saved stays, and the run goes on when there is."""

import contextlib
import functools
import os
import resource
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_runs import ROOT, PixelNet, leaves, rows, scores, tiny

from lt_jax import finish, loop, models, pictures, workdir
from lt_jax.checkpoint import Checkpoints
from lt_jax.errors import InputError, StorageError
from lt_jax.extract import extract_features
from lt_jax.files import write_text
from lt_jax.train import train
from lt_jax.writers import MetricsFile, TensorBoard, read_metrics

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _pixel_net(monkeypatch):
    monkeypatch.setitem(models.MODELS, "pixels", PixelNet)


@contextlib.contextmanager
def only(size):
    """No file can grow beyond so many bytes: works for every user, on every disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    # Python 3.12 would leave a part of the bytecode of what is imported meanwhile, for good.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[0][1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        sys.dont_write_bytecode = before[1]


QUICK = {"XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1")}


class Disk:
    """A real one of 4 MB that can be filled; mounted in memory, for which one must be root."""

    def __init__(self, folder):
        self.folder, self.filler = folder, folder / "filler"
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
        try:
            self.mounted = not subprocess.run(command, capture_output=True).returncode
        except FileNotFoundError:
            self.mounted = False

    def fill(self, left):
        """Leaves so many bytes free."""
        with self.filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        size = self.filler.stat().st_size
        os.truncate(self.filler, max(size - left, 0) // 4096 * 4096)

    def clear(self):
        self.filler.unlink()


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    made = Disk(folder)
    if not made.mounted:
        pytest.skip("only root can mount a small disk; the limits of files are tested without one")
    yield made
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def at_epoch(number, action):
    """Does something before that epoch."""
    original = loop.Loop._epoch

    def epoch(self, at):
        if at == number:
            self.checkpoints.wait()  # that of the epoch before is whole
            action()
        original(self, at)

    loop.Loop._epoch = epoch
    try:
        yield
    finally:
        loop.Loop._epoch = original


CONFIG = tiny(train__epochs=3, train__keep_checkpoints=5)  # a checkpoint every three steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The undisturbed run: its folder and summary."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "pixels", PixelNet)
        return folder, train(CONFIG, folder)


def assert_goes_on_to_the_same_end(folder, whole):
    summary = train(CONFIG, folder)
    assert scores(summary) == scores(whole[1])
    assert rows(folder) == rows(whole[0])
    for one, other in zip(leaves(folder), leaves(whole[0]), strict=True):
        np.testing.assert_array_equal(one, other)


def assert_first_checkpoint_is_intact(folder, whole):
    """That of step 3 alone, bit for bit, and nothing half written beside it."""
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["3"]
    kept = leaves(folder)
    for step in (6, 9):  # so that the newest is that of step 3 there too
        (whole[0] / f"checkpoints/{step}").rename(whole[0] / f"{step}")
    try:
        for one, other in zip(kept, leaves(whole[0]), strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        for step in (6, 9):
            (whole[0] / f"{step}").rename(whole[0] / f"checkpoints/{step}")
    assert not list(folder.rglob("*.partial"))


KEPT = "; the checkpoint of step 3 is kept; make room and start again to go on"


def test_checkpoints_too_large_for_the_disk(tmp_path, whole):
    """Orbax writes in threads, and tells it later."""
    with contextlib.ExitStack() as stack:
        full = functools.partial(stack.enter_context, only(2000))
        sentence = rf"run/checkpoints could not be written to \(File too large\), .* MB are.*{KEPT}"
        with at_epoch(1, full), pytest.raises(StorageError, match=sentence):
            train(CONFIG, tmp_path / "run")
    assert not (tmp_path / "run/summary.json").exists()
    assert_first_checkpoint_is_intact(tmp_path / "run", whole)
    assert_goes_on_to_the_same_end(tmp_path / "run", whole)


@pytest.mark.parametrize("left", [0, 8 * 4096])
def test_a_disk_that_is_full(disk, whole, left):
    """Without any room, and with some that a checkpoint uses up before it is whole."""
    folder = disk.folder / "run"
    with at_epoch(1, lambda: disk.fill(left)), pytest.raises(StorageError) as error:
        train(CONFIG, folder)
    assert "(No space left on device), 0." in str(error.value)
    assert str(error.value).endswith(KEPT)
    assert_first_checkpoint_is_intact(folder, whole)
    disk.clear()
    assert_goes_on_to_the_same_end(folder, whole)


@pytest.mark.parametrize("between", ["", ' [tensorstore_spec=\'{"path":"a/"}\']'])
def test_the_cause_is_found_wherever_tensorstore_says_it(tmp_path, between):
    """Which of its threads fails first decides what stands before the number."""
    path = "x" * 400
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    with pytest.raises(StorageError, match=r"\(No space left on device\)"), checkpoints._saving():
        raise ValueError(
            f'RESOURCE_EXHAUSTED: Error writing "{path}": Failed to write 274 bytes to file 27: No'
            f" space left on device{between} [os_error_code='28']"
        )
    checkpoints.close()


def test_a_disk_that_is_full_at_the_start_and_at_the_end(disk, whole, monkeypatch):
    """Neither a config nor a summary is left half written."""
    folder = disk.folder / "run"
    disk.fill(0)
    with pytest.raises(StorageError, match="No space left on device"):
        train(CONFIG, folder)
    assert [path.name for path in folder.glob("*")] == [workdir.LOCK]
    disk.clear()
    original = finish.summarize
    with monkeypatch.context() as patch:
        patch.setattr(finish, "summarize", lambda *a, **k: (disk.fill(0), original(*a, **k))[1])
        with pytest.raises(StorageError, match=r"run could not be written to \(No space left"):
            train(CONFIG, folder)
    assert not list(folder.glob("summary*"))
    disk.clear()
    assert_goes_on_to_the_same_end(folder, whole)


def test_rows_without_room_are_told_and_those_before_stay(tmp_path):
    """Also when the disk takes half of a row, and when there is room again and the run goes on."""
    path = tmp_path / "metrics.jsonl"
    written = MetricsFile(path, 0)
    for step in (1, 2, 3):
        written.write({"step": step, "split": "train"})
    with only(100), pytest.raises(StorageError, match=r"could not be written to \(File too large"):
        written.write({"step": 4, "split": "train"})
    with only(100), contextlib.suppress(StorageError):
        written.close()
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert path.stat().st_size == 100
    again = MetricsFile(path, 2)
    again.write({"step": 3, "split": "train"})
    again.close()
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


@pytest.mark.parametrize("last", ["12", '{"step": 3, "spl', "[]", '{"other": 1}', "\0\0"])
def test_a_last_line_that_is_no_row_is_left_out(tmp_path, last):
    """Before others it is refused, as then no kill has cut it short."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train"}\n' + last)
    again = MetricsFile(path, 5)
    again.close()
    assert path.read_text() == '{"step": 1, "split": "train"}\n'
    path.write_text(last + '\n{"step": 1, "split": "train"}\n')
    with pytest.raises(InputError, match=r"line 1 of .*metrics\.jsonl is not a row of it: "):
        MetricsFile(path, 5)


def test_a_picture_without_room_does_not_undo_a_finished_run(tmp_path, monkeypatch, capsys):
    config = tiny(train__epochs=1, train__picture=True)
    original = pictures.write_figure
    with contextlib.ExitStack() as stack:

        def write(figure, path):
            stack.enter_context(only(2000))
            original(figure, path)

        monkeypatch.setattr(pictures, "write_figure", write)
        summary = train(config, tmp_path)
    assert workdir.finished_summary(tmp_path) == summary
    told = capsys.readouterr().err
    assert "the run has finished, but a picture is missing: " in told
    assert "(File too large)" in told
    assert not list(tmp_path.glob("picture*"))


def test_tensorboard_without_room_goes_off_and_does_not_wait(tmp_path, capsys):
    """Its own writer would: its thread dies, and then its queue is full."""
    board = TensorBoard(tmp_path, 0, enabled=True)
    with only(200):
        for step in range(50):
            board.write({"step": step, "split": "train", "loss": [1.0]})
        board.sync()
        board.close()
    assert capsys.readouterr().err.count("TensorBoard is off from here") == 1


def test_features_without_room_are_extracted_when_there_is(tmp_path, whole):
    with only(2000), pytest.raises(StorageError, match=r"seed_0 could not be written to \(File"):
        extract_features(whole[0], tmp_path)
    assert [path.name for path in (tmp_path / "seed_0").iterdir()] == []
    (folder,) = extract_features(whole[0], tmp_path)
    assert len(list(folder.iterdir())) == 3


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path):
    write_text(tmp_path / "table.md", "before")
    with only(100), pytest.raises(StorageError):
        write_text(tmp_path / "table.md", "a" * 200)
    assert (tmp_path / "table.md").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


HANGING = """
import threading
from lt_jax import cli
from lt_jax.errors import StorageError
cli._THREADS = 0.2
threading.Thread(target=threading.Event().wait).start()
with cli.told():
    raise StorageError("no room")
"""


def test_threads_that_wait_for_what_cannot_be_written_are_not_waited_for():
    """Those of Orbax do, where there is no room for the folder of a checkpoint."""
    command = [sys.executable, "-c", HANGING]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (4, "error: no room\n")


def test_the_cause_is_told_where_the_folder_cannot_be_read_either(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)

    def unreadable():
        raise NotADirectoryError("not that")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "steps", unreadable)
        with pytest.raises(StorageError, match="No space left"), checkpoints._saving():
            raise OSError(28, "No space left on device")
    checkpoints.close()


@pytest.mark.parametrize("kind", [ValueError, jax.errors.JaxRuntimeError])
def test_a_process_that_has_gone_is_no_fault_of_the_disk(tmp_path, kind):
    """JAX raises both; processes tell each other when they save."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    with pytest.raises(kind, match="Gloo"), checkpoints._saving():
        raise kind("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    checkpoints.close()


def test_command_line_ends_with_one_sentence_and_status_4(tmp_path):
    """A real process, in which Orbax and its threads have nothing to add."""
    command = [
        sys.executable, "launch/train.py", "--config.train.epochs=2",
        "--config.train.checkpoint_every_epochs=1", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    ended = subprocess.run(
        command,
        cwd=ROOT,
        # JAX would warn of every program that it cannot keep; of bytecode see `only`.
        env={
            **os.environ,
            **QUICK,
            "JAX_ENABLE_COMPILATION_CACHE": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert ended.returncode == 4, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if not line.startswith("lt_jax: ")]
    assert len(errors) == 1, ended.stderr
    assert errors[0].startswith("error: ")
    assert "run/checkpoints could not be written to (File too large), " in errors[0]
