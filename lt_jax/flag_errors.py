"""What was wrong with flags and config files, in one sentence, with the file and line if any."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from absl import flags

from lt_jax.errors import InputError, first_line

_PACKAGE = str(Path(__file__).parent)
_QUOTED = "Error whilst parsing config file"
_FIELD = re.compile(r"""^\W*(?:Key )?["'](\w+)["']""")  # which ml_collections lacks


class _Place(NamedTuple):
    """Where somebody's own file raised something, itself or in a library that it calls."""

    file: str
    line: int | None
    in_configs: bool  # whether ml_collections raised it


@contextlib.contextmanager
def told_of_flags() -> Iterator[None]:
    """Turns what is raised inside while flags are read and a config is made into one sentence.

    Raises:
      InputError: for what is wrong with a flag, or in a file of the user's own; what else is raised
        is a defect of the library and goes through.
    """
    try:
        yield
    except Exception as error:
        # ml_collections raises some again with their traceback as text, which says no more.
        chain = [one for one in _chain(error) if not str(one).startswith(_QUOTED)]
        inner = next((one for one in chain if isinstance(one, InputError)), None)
        if inner is error:
            raise
        sentence = str(inner) if inner else _of_file(chain) or _of_flags(error, chain)
        if not sentence:
            raise
        raise InputError(sentence) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _of_file(chain: list[BaseException]) -> str:
    """What a file of the user's own raised; empty if none did."""
    for error in chain:
        place = _place(error)
        if place:
            told = _lacking_field(error) if place.in_configs else ""
            told = told or f"{type(error).__name__}: {_message(error)}"
            line = f"line {place.line}: " if place.line else ""
            return f"{place.file} cannot be used ({line}{told})"
    return ""


def _place(error: BaseException) -> _Place | None:
    """The innermost line of a file that is no library's and not the script itself."""
    if isinstance(error, SyntaxError) and error.filename:  # it has not begun to run
        return _Place(error.filename, error.lineno, False)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _of_library(frame.filename)]
    if not own:
        return None
    return _Place(own[-1].filename, own[-1].lineno, _in_configs(error))


def _in_configs(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and f"{os.sep}ml_collections{os.sep}" in frames[-1].filename


def _of_library(file: str) -> bool:
    path = os.path.abspath(file)
    folders = (_PACKAGE, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return (
        file.startswith("<")
        or path == os.path.abspath(sys.argv[0])
        or "site-packages" in path
        or any(path.startswith(folder + os.sep) for folder in folders)
    )


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    return " ".join(first_line(error).split())


def _lacking_field(error: BaseException) -> str:
    """That a config has no such field, as ml_collections says it in several ways; else empty."""
    if not isinstance(error, (AttributeError, KeyError)):
        return ""
    text = _text(error)
    found = _FIELD.search(text)
    if not found:
        return ""
    close = re.search(r'Did you mean "(\w+)"', text)
    return f"config has no field {found[1]!r}{f'; did you mean {close[1]}?' if close else ''}"


def _text(error: BaseException) -> str:
    """What an exception says that may have been raised of another one."""
    inner = error.args[0] if error.args else error
    return _text(inner) if isinstance(inner, KeyError) else str(inner)


def _of_flags(error: BaseException, chain: list[BaseException]) -> str:
    """What was wrong on the command line; empty for what has nothing to do with it."""
    if not isinstance(error, (flags.Error, AttributeError, KeyError, OSError)):
        return ""
    missing = re.search(r"No such file or directory: '(.+?)'", str(error))
    if missing:
        return no_config_file(missing[1])
    if isinstance(error, (AttributeError, KeyError)):
        if not _in_configs(error):
            return ""
        if "has no attribute 'get_config'" in str(error):
            return "the config file has no get_config"
        told = _lacking_field(error)
        return _with_whole_name(told) if told else _message(error)
    if _QUOTED in str(error):  # such as get_config with no argument
        return f"the config cannot be made ({type(chain[-1]).__name__}: {_message(chain[-1])})"
    return " ".join(str(error).split())


def no_config_file(name: str) -> str:
    """What to say of a config file that is not there, and of where it was looked for."""
    where = "" if os.path.isabs(name) else f" in {os.getcwd()}"
    return f"there is no config file {name}{where}; expected such as configs/digits.py"


def _with_whole_name(told: str) -> str:
    """The same of a field that was given on the command line, of which others may have the name."""
    name = told.split("'")[1]
    given = re.findall(r"--config\.([\w.]+)", " ".join(sys.argv))
    if lacking := _lacking_transform([full for full in given if name in full.split(".")]):
        return lacking
    full = next((full for full in given if full.rpartition(".")[2] == name), name)
    return told.replace(repr(name), repr(full), 1)


def _lacking_transform(given: list[str]) -> str:
    """What to say of fields of a transform that the method on the command line does not have."""
    from lt_jax.configuration import base_config  # predicting needs no configs
    from lt_jax.settings import lacking

    strings = re.findall(r"--config[= ]\S+?:(\S+)", " ".join(sys.argv))
    method = strings[-1].rpartition(",")[2] if strings else "cross_entropy"
    try:
        config = base_config(method)
    except InputError:  # the file has names of its own
        return ""
    return next(filter(None, (lacking(config, field, method) for field in given)), "")
