"""From the file of a photograph to an RGB square: stretched, cropped, or cropped at random."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Images = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]  # left, upper, right, lower

CROP_SHARE = 0.875  # of the shorter side that is kept in evaluation: 224 of 256 pixels
ASPECTS = 3 / 4, 4 / 3  # of random crops
TRIES = 10  # for a random crop that fits into the image


class Decoding(NamedTuple):
    """How images become squares of one size; all by bilinear interpolation with antialiasing.

    Attributes:
      size: S, in pixels.
      resize: where nothing is random: ``"stretch"`` to the square, so that no object is cut off,
        as is usual in multi-label recognition; or ``"crop"``, the shorter side to S / 0.875 and
        the S x S pixels in the middle, as networks are tested on ImageNet.
      smallest_area: share of the image's area that a random crop has at least; 0 for no crops.

    Example:
      >>> Decoding(2)(np.full((4, 6, 1), 9, np.uint8)).tolist()
      [[[9, 9, 9], [9, 9, 9]], [[9, 9, 9], [9, 9, 9]]]
    """

    size: int
    resize: str = "stretch"
    smallest_area: float = 0.0

    def __call__(self, image: bytes | Images, draw: Sequence[int] | None = None) -> Images:
        """An image as RGB of this size.

        Args:
          image: an encoded file (JPEG, PNG, ...), or pixels, uint8 ``[H, W, 3]`` or grey
            ``[H, W, 1]``.
          draw: what a random crop depends on, numbers of at least 0; None for no random crop.

        Returns:
          uint8 ``[S, S, 3]``; grey images have three equal channels.
        """
        opened = _open(image)
        width, height = opened.size
        if draw is not None and self.smallest_area:
            rng = np.random.default_rng([int(number) for number in draw])
            box = random_box(width, height, self.smallest_area, rng)
            box = _reduced(opened, box, self.size)
        elif self.resize == "crop":
            box = middle_box(width, height, self.size)
        else:
            box = (0, 0, width, height)
        return _resized(opened, box, (self.size, self.size))


def decode_image(image: bytes | Images, image_size: int = 0) -> Images:
    """An image as RGB stretched to a size, or as it is.

    Args:
      image: an encoded file, or pixels.
      image_size: S; 0 leaves its size, and a grey image grey.

    Returns:
      uint8 ``[S, S, 3]``, or ``[H, W, 3]`` or ``[H, W, 1]``.
    """
    if image_size:
        return Decoding(image_size)(image)
    opened = _open(image)
    grey = opened.mode in ("1", "L")
    pixels = np.asarray(opened.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def fitted(image: bytes | Images, shape: Sequence[int], resize: str = "stretch") -> Images:
    """Any image as the input of a network, as `Decoding` makes it where nothing is random.

    Args:
      image: an encoded file, or pixels, as for `Decoding`.
      shape: ``(height, width, channels)`` that the network takes; 1 channel for grey, or 3.
      resize: ``"stretch"``, or ``"crop"`` to a square; see `Decoding`.

    Returns:
      uint8 of that shape; an image that is of that shape keeps its pixels if it is stretched.

    Example:
      >>> fitted(np.full((4, 6, 3), 9, np.uint8), (2, 3, 1)).shape
      (2, 3, 1)
    """
    height, width, channels = shape
    opened = _open(image)
    wide, high = opened.size
    box = middle_box(wide, high, height) if resize == "crop" else (0, 0, wide, high)
    mode = "L" if channels == 1 else "RGB"
    return _resized(opened, box, (width, height), mode).reshape(height, width, channels)


def random_box(width: int, height: int, smallest_area: float, rng: np.random.Generator) -> Box:
    """A random part of an image: its area uniform, its aspect log-uniform from 3/4 to 4/3.

    The first of ten that fits into the image; failing that the largest part in the middle whose
    aspect is allowed.

    Args:
      width: of the image.
      height: of the image.
      smallest_area: share of its area, in (0, 1].
      rng: is drawn from.

    Returns:
      Left, upper, right and lower, whole numbers.

    Source: Szegedy et al., CVPR 2015, as torchvision's RandomResizedCrop has it.
    """
    low, high = math.log(ASPECTS[0]), math.log(ASPECTS[1])
    for area, aspect, x, y in rng.random((TRIES, 4)).tolist():
        area = width * height * (smallest_area + (1 - smallest_area) * area)
        aspect = math.exp(low + (high - low) * aspect)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(x * (width - w + 1)), int(y * (height - h + 1))
            return left, upper, left + w, upper + h
    w = min(width, round(height * ASPECTS[1]))
    h = min(height, round(width / ASPECTS[0]))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def middle_box(width: int, height: int, size: int) -> Box:
    """The part that is left when the shorter side becomes S / 0.875 and S x S pixels are cut out.

    Args:
      width: of the image.
      height: of the image.
      size: S.

    Returns:
      Left, upper, right and lower, in pixels of the image.
    """
    shorter = round(size / CROP_SHARE)
    scale = min(width, height) / shorter
    scaled = max(shorter, int(width / scale)), max(shorter, int(height / scale))
    left, upper = (round((side - size) / 2.0) for side in scaled)
    across, down = width / scaled[0], height / scaled[1]
    return left * across, upper * down, (left + size) * across, (upper + size) * down


def _open(image: bytes | Images) -> Any:
    from PIL import Image

    if isinstance(image, bytes):
        return _of_eight_bits(Image.open(io.BytesIO(image)))
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _of_eight_bits(opened: Image) -> Image:
    """Pillow would clip grey images of 16 bits to 255, and those of floats too."""
    if opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PPM"):
        from PIL import Image

        return Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
    if opened.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are in mode {opened.mode!r}, whose range is not known; expected 8 or 16"
            " bits a channel"
        )
    return opened


def _reduced(opened: Image, box: Box, size: int) -> Box:
    """Has a JPEG decoded at 1/2, 1/4 or 1/8 if the crop then still has S pixels each way.

    Much less work, at next to no loss: what is left out would be averaged away by the resizing.
    """
    if not hasattr(opened, "draft") or opened.format != "JPEG":
        return box
    width, height = opened.size
    enough = width * size / (box[2] - box[0]), height * size / (box[3] - box[1])
    opened.draft("RGB", (math.ceil(enough[0]), math.ceil(enough[1])))
    # Sides of the smaller image are rounded up.
    scale = next(s for s in (1, 2, 4, 8) if -(-width // s) == opened.size[0])
    left, upper, right, lower = (side / scale for side in box)
    return left, upper, min(right, opened.size[0]), min(lower, opened.size[1])


def _resized(opened: Image, box: Box, sides: tuple[int, int], mode: str = "RGB") -> Images:
    from PIL import Image

    converted = opened if opened.mode == mode else opened.convert(mode)
    return np.asarray(converted.resize(sides, Image.Resampling.BILINEAR, box=box))
