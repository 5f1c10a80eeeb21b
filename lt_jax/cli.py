"""What the launch scripts share: flags read with care, errors told in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable

from absl import app, flags
from ml_collections import config_flags

from lt_jax.errors import InputError
from lt_jax.loop import NonFiniteError


def define_run_flags(default_config: str) -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """The flags ``--config=FILE[:STRING] --config.x=y`` and ``--workdir=FOLDER``.

    Args:
      default_config: file of the config if none is given.

    Returns:
      Holders of both flags.
    """
    config = config_flags.DEFINE_config_file("config", default_config, "File of the config.")
    workdir = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    return config, workdir


def _read_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise InputError(str(error).splitlines()[0]) from error
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # What ml_collections raises for a field that does not exist or a value of another type.
        message = str(error.args[0] if error.args else error).strip().splitlines()
        raise InputError(message[0] if message else repr(error)) from error


def main(function: Callable[[list[str]], None]) -> None:
    """Runs a script; bad input ends with one sentence on standard error and status 2.

    Args:
      function: called with the arguments that are not flags.
    """
    try:
        app.run(function, flags_parser=_read_flags)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except NonFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3)
