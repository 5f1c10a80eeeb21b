"""What the launch scripts share: flags read with care, errors told in one sentence."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jax
from absl import app, flags, logging

from lt_jax import processes
from lt_jax.errors import InputError, NonFiniteError, StorageError, first_line
from lt_jax.files import cache_folder
from lt_jax.flag_errors import told_of_flags

if TYPE_CHECKING:
    from ml_collections import ConfigDict

BAD_INPUT, NOT_FINITE, NOT_SAVED, LEFT_ALONE, INTERRUPTED = 2, 3, 4, 5, 130  # exit statuses
_XLA = re.compile(r"[A-Z]+(_[A-Z]+)*: ")  # how its errors begin
# And those that have nothing to do with other processes.
_OWN_FAULT = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")

# Seconds that an end may take: the other processes may come to the same, and JAX aborts after 30;
# threads that write may have something to end.
_OTHERS, _THREADS = 20, 5

IMPORT = flags.DEFINE_multi_string(
    "import", [], "Python file to run first, which may register losses, methods, networks."
)
_FORMATTED = warnings.formatwarning

DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other processes that the cluster knows of (TPU VM, SLURM, ...)."
)
COORDINATOR = flags.DEFINE_string("coordinator", "", "Address of the first process, host:port.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many processes the run has.")
PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which of them this is, from 0.")


def _run_imports(argv: list[str]) -> None:
    """Runs the files of ``--import``, before the flags are read, which loads the config."""
    early = flags.FlagValues()
    files = flags.DEFINE_multi_string(IMPORT.name, [], "", flag_values=early)
    early.set_gnu_getopt()  # values of other flags may stand by themselves
    with told_of_flags():
        early(argv, known_only=True)
    for file in files.value:
        _import_file(file)


def _import_file(file: str) -> None:
    """Runs a Python file once, as a module, so that its classes are found under their names."""
    path = Path(file).expanduser().resolve()
    name = str(path)
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"--import is {file!r}; expected a Python file, such as my_losses.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == name]
        line = f"line {lines[-1]}: " if lines else ""
        raise InputError(
            f"{file} of --import cannot be run ({line}{type(error).__name__}: {first_line(error)})"
        ) from error


def _read_flags(argv: list[str], arguments: bool = False) -> list[str]:
    """Parses the flags, and loads the config, so that its errors come now."""
    _run_imports(argv)
    with told_of_flags():
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS and not isinstance(flags.FLAGS.config, str | None):
            flags.FLAGS.config.to_dict()  # one that could not be loaded fails here
    if len(rest) > 1 and not arguments:
        raise InputError(f"{rest[1]!r} is not a flag; expected such as --workdir=runs/a")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every file it touches
        # and, with a traceback for each of its threads and tasks, what it raises too.
        logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
        sys.unraisablehook = _but_closed_loops
    return rest


def _but_closed_loops(unraisable: sys.UnraisableHookArgs) -> None:
    """Leaves out what tasks of Orbax meet that were not awaited once one of them had failed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def plain_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Warnings of this library as its other messages, without a line of its code.

    Args:
      message: what is warned about.
      category: of the warning.
      filename: of the code that warns.
      lineno: where in it.
      line: what stands there.

    Returns:
      Lines of text.
    """
    if Path(filename).is_relative_to(Path(__file__).parent):
        return f"lt_jax: {message}\n"
    return _FORMATTED(message, category, filename, lineno, line)


def _keep_compiled() -> None:
    """Compiles once for all runs: programs are kept in the user's cache, unless JAX was told where.

    ``JAX_COMPILATION_CACHE_DIR`` names another folder, ``JAX_ENABLE_COMPILATION_CACHE=0`` none.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        # Also what is quick to compile: before a run starts there are dozens of small programs.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _fail(error: BaseException | str, status: int) -> NoReturn:
    print(f"error: {error}", file=sys.stderr, flush=True)
    patience = _patience(status)
    if patience is not None:
        sys.stdout.flush()
        if not patience:
            os._exit(status)
        timer = threading.Timer(patience, os._exit, (status,))
        timer.daemon = True
        timer.start()
    sys.exit(status)


def _patience(status: int) -> int | None:
    """Seconds until this process is ended, should it not have ended by itself; None for no limit.

    When it does not: JAX's own way out waits for the other processes of a run, and aborts where
    they have gone; threads of Orbax wait forever for what could not be written.
    """
    if status == LEFT_ALONE:
        return 0
    if processes.are_several():
        return _OTHERS
    return _THREADS if status == NOT_SAVED else None


def required(flag: flags.FlagHolder[str | None]) -> str:
    """The value of a flag that names a folder; refuses a missing one."""
    if not flag.value:
        raise InputError(f"no --{flag.name} was given; expected such as --{flag.name}=runs/a")
    return flag.value


def given(*holders: flags.FlagHolder[str | None]) -> dict[str, str]:
    """The values of those flags that were given, by name."""
    return {holder.name: holder.value for holder in holders if holder.value}


def main(function: Callable[..., None], *, arguments: bool = False) -> None:
    """Runs a script; bad input ends with one sentence on standard error and status 2.

    Args:
      function: called once the flags have been read.
      arguments: whether it takes what was given beside the flags; else that is refused.
    """

    def start(argv: list[str]) -> None:
        processes.start(
            automatic=DISTRIBUTED.value,
            coordinator=COORDINATOR.value,
            num_processes=NUM_PROCESSES.value,
            process_id=PROCESS_ID.value,
        )
        warnings.formatwarning = plain_warning
        _keep_compiled()
        function(*([argv[1:]] if arguments else []))

    with told():
        app.run(start, flags_parser=functools.partial(_read_flags, arguments=arguments))


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Ends the program with one sentence for what is raised inside and is no defect."""
    try:
        yield
    except InputError as error:
        _fail(error, BAD_INPUT)
    except NonFiniteError as error:
        _fail(error, NOT_FINITE)
    except StorageError as error:
        _fail(error, NOT_SAVED)
    except KeyboardInterrupt as error:
        _fail(str(error) or "interrupted; what was saved before is kept", INTERRUPTED)
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # both are raised for XLA's errors
        of_xla = isinstance(error, jax.errors.JaxRuntimeError) or _XLA.match(str(error))
        if not of_xla or str(error).startswith(_OWN_FAULT) or not processes.are_several():
            raise
        gone = InputError(f"another process of the run has gone ({first_line(error)[:200]})")
        _fail(gone, LEFT_ALONE)


def check_retrain_alone() -> None:
    """Refuses fields set by ``--config.x=y`` that are those of a finished run, so would do nothing.

    Raises:
      InputError: naming the first that is not of ``config.retrain``.
    """
    from ml_collections import config_flags

    given = config_flags.get_override_values(flags.FLAGS["config"])
    ignored = next((name for name in given if not name.startswith("retrain.")), None)
    if ignored:
        raise InputError(
            f"config.{ignored} is {given[ignored]!r}, but all but config.retrain is that of the run"
            " in --from_workdir; expected no such flag"
        )


def config_flag(default_config: str | None) -> flags.FlagHolder[ConfigDict]:
    """Defines ``--config=FILE[:STRING]``, whose fields ``--config.x=y`` sets.

    Args:
      default_config: file of the config if none is given; None for no config.

    Returns:
      The flag; a config that cannot be loaded ends the program with one sentence.
    """
    from ml_collections import config_flags  # predicting needs no configs

    with told():
        # ml_collections looks at the command line already when the flag is defined.
        _run_imports(sys.argv)
        with told_of_flags():
            return config_flags.DEFINE_config_file("config", default_config, "FILE[:STRING].")
    raise AssertionError  # what `told` is told of ends the program


def run_with_config(function: Callable[[ConfigDict, str], Any], default_config: str) -> None:
    """Runs a script with ``--config=FILE[:STRING] --config.x=y --workdir=FOLDER``.

    Args:
      function: called with the config and the folder of the run.
      default_config: file of the config if none is given.
    """
    config = config_flag(default_config)
    workdir = flags.DEFINE_string("workdir", None, "Folder of the run.")

    def start() -> None:
        function(config.value, required(workdir))

    main(start)
