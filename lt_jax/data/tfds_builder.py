"""Finds a set of TensorFlow Datasets on this machine, or says how to get it here.

Nothing here waits for a network unless a download was asked for, and a download that cannot work
is refused within seconds: TFDS by itself retries for minutes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from lt_jax.errors import InputError, first_line

CONNECT_TIMEOUT = 5.0  # seconds to wait for the first sign of a network
PORTS = {"https": 443, "http": 80, "ftp": 21}


def import_tfds() -> Any:
    """TensorFlow Datasets, or a sentence that says how to install it."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise InputError(
            f"TensorFlow Datasets cannot be imported ({error}): pip install 'lt_jax[tfds]'"
        ) from error
    return tensorflow_datasets


def prepared_builder(name: str, data_dir: str, download: bool) -> Any:
    """The builder of a set that can be read here.

    Args:
      name: ``<name>``, ``<name>/<config>`` or either with ``:<version>``.
      data_dir: where prepared directories lie; empty for where TFDS looks itself.
      download: whether to download and prepare (as array_record) what is not there.

    Returns:
      A TFDS builder.

    Raises:
      InputError: if TFDS is not installed, does not know the set, cannot prepare it or needs
        TensorFlow to read it, or if the set is not prepared and must not be downloaded.
    """
    tfds = import_tfds()
    builder = _builder(tfds, name, data_dir)
    if not builder.is_prepared():
        if not download:
            raise InputError(f"tfds:{name} is not in {builder.data_path}; {_offline_hint(builder)}")
        _prepare(tfds, builder)
    _check_format(builder)
    return builder


def full_name(builder: Any) -> str:
    """``<name>`` or ``<name>/<config>``."""
    config = builder.builder_config
    return f"{builder.name}/{config.name}" if config and config.name else builder.name


def has_array_record(builder: Any) -> bool:
    """Whether a prepared set can be read without TensorFlow."""
    return "array_record" in _formats(builder)


def array_record_command(name: str) -> str:
    """A line for the shell that prepares a set as array_record in the folder DIR."""
    return (
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='DIR')"
        f".download_and_prepare(file_format='array_record')\""
    )


def _builder(tfds: Any, name: str, data_dir: str) -> Any:
    # TFDS would look names such as "huggingface:mnist" up on the network.
    if not re.fullmatch(r"[A-Za-z_]\w*(/[^:/]+)?(:\d+\.\d+\.\d+)?", name):
        raise InputError(f"data source is 'tfds:{name}'; expected tfds:<name>[/config][:version]")
    folder = os.path.expanduser(data_dir or "") or None
    where = data_dir or "its default folder"
    # The files of a set tell all that reading needs; the code that makes them may need TensorFlow,
    # as that of coco does.
    with contextlib.suppress(tfds.core.registered.DatasetNotFoundError, ValueError):
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
    try:
        return tfds.builder(name, data_dir=folder)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise InputError(
            f"TensorFlow Datasets knows no set {name!r} and there is none in {where}"
        ) from error
    except ImportError as error:
        raise InputError(
            f"tfds:{name} is not in {where}, and preparing it needs more than is installed "
            f"({_told(error)}); {_elsewhere(name.partition(':')[0])}"
        ) from error
    except (ValueError, AssertionError, RuntimeError) as error:  # unknown config or version
        raise InputError(f"TensorFlow Datasets cannot open {name!r}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """What TFDS says, less the arguments it was called with and the long list after it."""
    return re.sub(r'^Failed to construct .*?}": ', "", first_line(error)).split(" Here are")[0]


def _elsewhere(name: str) -> str:
    return (
        f"prepare it on a machine that has TensorFlow and a network with "
        f"`{array_record_command(name)}`, copy the folder DIR here and pass "
        "--config.data.data_dir=DIR"
    )


def _offline_hint(builder: Any) -> str:
    return (
        "without a network, prepare it on a machine that has one with "
        f"`{array_record_command(full_name(builder))}`, copy the folder DIR here and pass "
        "--config.data.data_dir=DIR (with a network, --config.data.download=True does it)"
    )


def _prepare(tfds: Any, builder: Any) -> None:
    host = _silent_host(builder)
    if host:
        raise InputError(
            f"tfds:{builder.name} is not in {builder.data_path} and cannot be downloaded, because "
            f"{host} does not answer; {_offline_hint(builder)}"
        )
    # The prepared copies that TFDS offers are tfrecord: of no use here, and one more thing to wait
    # for.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config, file_format="array_record")
    except Exception as error:  # whatever goes wrong in there, the advice is the same
        reason = f"{type(error).__name__}: {first_line(error)}"
        if not importlib.util.find_spec("tensorflow"):
            reason += "; most sets need TensorFlow to be prepared, and it is not installed"
        raise InputError(
            f"tfds:{builder.name} is not in {builder.data_path}, and preparing it failed "
            f"({reason}); {_offline_hint(builder)}"
        ) from error


def _silent_host(builder: Any) -> str:
    """A host the download needs if none of the first three answers, else the empty string.

    Behind a proxy, or with downloaded files already there, it is left to TFDS to find out.
    """
    downloads = Path(builder.data_dir_root) / "downloads"
    if urllib.request.getproxies() or any(f.is_file() for f in downloads.glob("*")):
        return ""
    urls = [urllib.parse.urlparse(url) for url in builder.url_infos or ()]
    hosts = {(u.hostname, u.port or PORTS.get(u.scheme, 443)): None for u in urls if u.hostname}
    for host in list(hosts)[:3]:
        try:
            socket.create_connection(host, timeout=CONNECT_TIMEOUT).close()
        except OSError:
            continue
        return ""
    return str(next(iter(hosts))[0]) if hosts else ""


def _formats(builder: Any) -> set[str]:
    return {format_.value for format_ in builder.info.available_file_formats()}


def _check_format(builder: Any) -> None:
    """Refuses a set that only TensorFlow can read where there is no TensorFlow."""
    if has_array_record(builder) or importlib.util.find_spec("tensorflow"):
        return
    raise InputError(
        f"tfds:{builder.name} is in {builder.data_path} as {'/'.join(sorted(_formats(builder)))}, "
        f"which needs TensorFlow; install tensorflow, or prepare the set as array_record in "
        f"another folder with `{array_record_command(full_name(builder))}` and pass "
        "--config.data.data_dir=DIR"
    )
