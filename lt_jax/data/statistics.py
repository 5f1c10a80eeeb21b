"""Numbers that stand for arrays: means and deviations to normalise by, hashes to compare by."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from lt_jax.data.checks import Features, Images
from lt_jax.data.streamed import StreamedImages
from lt_jax.errors import InputError

Statistics = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAMPLED = 1000  # of streamed images
HASHED = 32  # of them, whose files are read for it


def input_statistics(inputs: Any, normalization: str, what: str) -> Statistics:
    """By which mean and deviation inputs are normalised.

    Args:
      inputs: images or features of train.
      normalization: ``"data"`` for their own statistics, or ``"imagenet"`` for those that weights
        trained on ImageNet expect: mean and deviation of its channels of pixels / 255.
      what: what to call the set in a sentence.

    Returns:
      Mean and deviation, float64, one for each channel or feature.

    Raises:
      InputError: for another name, and for ``"imagenet"`` if inputs are not images of 3 channels.
    """
    if normalization not in ("data", "imagenet"):
        raise InputError(f"data.normalization is {normalization!r}; expected 'data' or 'imagenet'")
    is_features = len(inputs.shape) == 2
    if normalization == "imagenet":
        if is_features or inputs.shape[-1] != 3:
            channels = inputs.shape[-1]
            found = f"{channels} channel" + "s" * (channels > 1)
            found = "feature vectors" if is_features else found
            raise InputError(
                f"data.normalization is 'imagenet', but {what} has {found}; expected images of 3"
                " channels, or 'data'"
            )
        return np.array(IMAGENET[0]), np.array(IMAGENET[1])
    return feature_statistics(inputs) if is_features else pixel_statistics(inputs)


def feature_statistics(features: Features) -> Statistics:
    """Mean and standard deviation of each feature.

    Args:
      features: float32 ``[N, D]``.

    Returns:
      Mean and standard deviation, float64 ``[D]``; 1 for a feature that is constant.

    Example:
      >>> feature_statistics(np.array([[1, 7], [3, 7]], np.float32))
      (array([2., 7.]), array([1., 1.]))
    """
    std = features.std(axis=0, dtype=np.float64)
    constant = features.min(axis=0) == features.max(axis=0)
    return features.mean(axis=0, dtype=np.float64), np.where(constant, 1.0, std)


def standardised(features: Features, statistics: Statistics) -> Features:
    """Features less their mean, divided by their deviation, float32 ``[N, D]``."""
    mean, std = statistics
    return ((features - mean) / std).astype(np.float32)


def pixel_statistics(images: Images | StreamedImages) -> Statistics:
    """Mean and standard deviation of each channel of pixels / 255.

    From a histogram of the 256 values, so it is exact and needs no float copy of the images. Of
    streamed images up to 1,000 are read, evenly spaced.

    Args:
      images: uint8 ``[N, H, W, Ch]``.

    Returns:
      Mean and standard deviation, float64 ``[Ch]``. A constant channel gets a deviation of 1: it
      can be divided by, and the channel becomes 0.

    Example:
      >>> pixel_statistics(np.array([0, 255, 0, 255], np.uint8).reshape(1, 2, 2, 1))
      (array([0.5]), array([0.5]))
    """
    if isinstance(images, StreamedImages):
        count = len(images)
        images = images.read(np.linspace(0, count - 1, min(count, SAMPLED)).round().astype(int))
    channels = images.shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    for chunk in np.array_split(images, max(1, len(images) // 4096)):
        for c in range(channels):
            histogram[c] += np.bincount(chunk[..., c].ravel(), minlength=256)
    share = histogram / histogram.sum(axis=1, keepdims=True)
    value = np.arange(256) / 255
    mean = share @ value
    std = np.sqrt((share * (value - mean[:, None]) ** 2).sum(axis=1))
    return mean, np.where((histogram > 0).sum(axis=1) > 1, std, 1.0)


def index_hash(indices: npt.ArrayLike, labels: npt.ArrayLike) -> str:
    """Which images were kept, as 16 hex digits: two runs that agree here trained on the same ones.

    The start of the SHA-256 of the indices, then the labels, each as little-endian int64.

    Example:
      >>> index_hash([0, 2], [1, 0])
      '698e31029fef80c4'
    """
    data = b"".join(np.asarray(a).astype("<i8").tobytes() for a in (indices, labels))
    return hashlib.sha256(data).hexdigest()[:16]


def content_hash(labels: npt.NDArray[Any], images: Any) -> str:
    """Labels and what they are labels of, as 16 hex digits.

    Args:
      labels: of all examples, in order.
      images: theirs, or features; of `StreamedImages`, which are not read, what tells their files.

    Example:
      >>> content_hash(np.array([0, 1]), np.zeros((2, 4))) == content_hash(
      ...     np.array([0, 1]), np.ones((2, 4))
      ... )
      False
    """
    of_files = isinstance(images, StreamedImages)
    known = images.told_apart_by() if of_files else (images,)
    return array_hash(labels, np.array(images.shape), *known)


def sample_hash(*splits: Any) -> str:
    """Some files of each split, as 16 hex digits: names and sizes alone may be those of others.

    Args:
      splits: images; only `StreamedImages` count.
    """
    digest = hashlib.sha256()
    for images in splits:
        for content in images.sample(HASHED) if isinstance(images, StreamedImages) else ():
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def array_hash(*arrays: Any) -> str:
    """The content of arrays, as 16 hex digits; of streamed images only their shape."""
    digest = hashlib.sha256()
    for array in arrays:
        known = np.array(array.shape) if isinstance(array, StreamedImages) else array
        digest.update(np.ascontiguousarray(known).data)
    return digest.hexdigest()[:16]
