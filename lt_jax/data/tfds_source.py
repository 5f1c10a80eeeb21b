"""Image classification sets of TensorFlow Datasets as arrays, without TensorFlow where possible.

Nothing here waits for a network unless a download was asked for, and a download that cannot work
is refused within seconds: TFDS by itself retries for minutes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lt_jax.errors import InputError

CHUNK = 1000  # records per read: array_record is much faster in blocks than one by one
CONNECT_TIMEOUT = 5.0  # seconds to wait for the first sign of a network
PORTS = {"https": 443, "http": 80, "ftp": 21}

Split = tuple[np.ndarray, np.ndarray]


def read(
    name: str, *, data_dir: str, test_split: str, download: bool
) -> tuple[Split, Split, Sequence[str]]:
    """Reads the train split and another split of a TFDS set.

    Args:
      name: ``<name>``, ``<name>/<config>`` or either with ``:<version>``.
      data_dir: where prepared directories lie; empty for where TFDS looks itself.
      test_split: what to read beside ``train``; TFDS slices such as ``"test[:50%]"`` work.
      download: whether to download and prepare (as array_record) what is not there.

    Returns:
      (train images, train labels), (test images, test labels), class names or nothing. Images are
      ``[N, H, W, C]``, labels ``[N]``, in the order of the files.

    Raises:
      InputError: if TFDS is not installed, does not know or cannot read the set, the set is not
        prepared, has no image or label, or has images of more than one size.
    """
    tfds = _import_tfds()
    builder = _builder(tfds, name, data_dir)
    if not builder.is_prepared():
        if not download:
            raise InputError(f"tfds:{name} is not in {builder.data_path}; {_offline_hint(builder)}")
        _prepare(tfds, builder)
    _check_format(builder)
    keys = _image_and_label_keys(builder)
    with _telling(builder):
        # Both are opened before either is read, so that a wrong split name is told at once.
        opened = [(split, *_rows(tfds, builder, split, *keys)) for split in ("train", test_split)]
        train, test = (_stack(builder.name, *rows) for rows in opened)
    return train, test, getattr(builder.info.features[keys[1]], "names", None) or ()


def _import_tfds() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise InputError(
            f"TensorFlow Datasets cannot be imported ({error}): pip install 'lt_jax[tfds]'"
        ) from error
    return tensorflow_datasets


def _builder(tfds: Any, name: str, data_dir: str) -> Any:
    # TFDS would look names such as "huggingface:mnist" up on the network.
    if not re.fullmatch(r"[A-Za-z_]\w*(/[^:/]+)?(:\d+\.\d+\.\d+)?", name):
        raise InputError(f"data source is 'tfds:{name}'; expected tfds:<name>[/config][:version]")
    try:
        return tfds.builder(name, data_dir=os.path.expanduser(data_dir or "") or None)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise InputError(
            f"TensorFlow Datasets knows no set {name!r} and there is none in "
            f"{data_dir or 'its default folder'}"
        ) from error
    except (ValueError, AssertionError, RuntimeError) as error:  # unknown config or version
        told = re.sub(r'^Failed to construct .*?}": ', "", _first_line(error)).split(" Here are")[0]
        raise InputError(f"TensorFlow Datasets cannot open {name!r}: {told}") from error


def _command(builder: Any, data_dir: str) -> str:
    """A line for the shell that prepares this set as array_record."""
    config = f"/{builder.builder_config.name}" if builder.builder_config else ""
    return (
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{builder.name}{config}', data_dir='{data_dir}')"
        f".download_and_prepare(file_format='array_record')\""
    )


def _offline_hint(builder: Any) -> str:
    return (
        "without a network, prepare it on a machine that has one with "
        f"`{_command(builder, 'DIR')}`, copy the folder DIR here and pass "
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
        reason = f"{type(error).__name__}: {_first_line(error)}"
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
    if "array_record" in _formats(builder) or importlib.util.find_spec("tensorflow"):
        return
    raise InputError(
        f"tfds:{builder.name} is in {builder.data_path} as {'/'.join(sorted(_formats(builder)))}, "
        f"which needs TensorFlow; install tensorflow, or prepare the set as array_record in "
        f"another folder with `{_command(builder, 'DIR')}` and pass --config.data.data_dir=DIR"
    )


def _image_and_label_keys(builder: Any) -> tuple[str, str]:
    """Which features are the image and the label: what the set itself says, else by name."""
    keys, features = builder.info.supervised_keys, builder.info.features
    pair = keys if keys and len(keys) == 2 and all(isinstance(k, str) for k in keys) else None
    pair = pair or ("image", "label")
    names = list(features.keys()) if hasattr(features, "keys") else []
    if not set(pair) <= set(names):
        raise InputError(
            f"tfds:{builder.name} has no image and label; its features are {', '.join(names)}"
        )
    if len(features[pair[0]].shape or ()) != 3 or features[pair[1]].shape != ():
        raise InputError(
            f"tfds:{builder.name} is not for image classification: its inputs {pair[0]!r} have "
            f"shape {features[pair[0]].shape} and its targets {pair[1]!r} {features[pair[1]].shape}"
        )
    return pair


@contextlib.contextmanager
def _telling(builder: Any) -> Iterator[None]:
    """Makes one sentence of what TFDS raises for a wrong split, a missing or a damaged file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"tfds:{builder.name} in {builder.data_path}, with the splits "
            f"{', '.join(builder.info.splits)}, cannot be read: {_first_line(error)}"
        ) from error


def _rows(
    tfds: Any, builder: Any, split: str, image_key: str, label_key: str
) -> tuple[int, Iterator[tuple[np.ndarray, Any]]]:
    """The number of examples and an iterator over (image, label), in the order of the files."""
    if "array_record" not in _formats(builder):
        _keep_tensorflow_off_gpus()
        in_order = tfds.ReadConfig(interleave_cycle_length=1)
        rows = tfds.as_numpy(builder.as_dataset(split=split, read_config=in_order))
        count = builder.info.splits[split].num_examples
        return count, ((row[image_key], row[label_key]) for row in rows)
    feature = builder.info.features[image_key]
    # Decoding here, past TFDS's tree of decoders, saves a fifth of the time. Threads were measured
    # and bring next to nothing: small images spend their time in Python, not in the decoder.
    encoded = isinstance(feature, tfds.features.Image)
    decode = feature.decode_example_np if encoded else np.asarray
    decoders = {image_key: tfds.decode.SkipDecoding()} if encoded else None
    source = builder.as_data_source(split=split, decoders=decoders, file_format="array_record")
    starts = range(0, len(source), CHUNK)
    chunks = (source.__getitems__(range(i, min(i + CHUNK, len(source)))) for i in starts)
    return len(source), ((decode(r[image_key]), r[label_key]) for chunk in chunks for r in chunk)


def _keep_tensorflow_off_gpus() -> None:
    """Or else it takes all of their memory, and JAX has none."""
    import tensorflow

    with contextlib.suppress(RuntimeError):  # it has already started: then it has what it has
        tensorflow.config.set_visible_devices([], "GPU")


def _stack(name: str, split: str, count: int, rows: Iterator[tuple[np.ndarray, Any]]) -> Split:
    """All images in one array, which is allocated once, and all labels."""
    where = f"the split {split!r} of tfds:{name}"
    # A set of photographs shows within a few images that their sizes differ, before terabytes are
    # asked for.
    head = list(itertools.islice(rows, 100))
    shape, dtype = (head[0][0].shape, head[0][0].dtype) if head else ((0, 0, 0), np.uint8)
    for image, _ in head:
        _check_size(where, image, shape)
    images, labels = np.empty((count, *shape), dtype), []
    for i, (image, label) in enumerate(itertools.chain(head, rows)):
        _check_size(where, image, shape)
        images[i] = image
        labels.append(label)
    return images, np.array(labels)


def _check_size(where: str, image: np.ndarray, shape: tuple[int, ...]) -> None:
    if image.shape != shape:
        raise InputError(
            f"{where} has images of more than one size, such as {shape} and {image.shape}; "
            "expected one size"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
