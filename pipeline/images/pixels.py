"""Samples of any kind to 8-bit RGB, upright: arrays in, arrays out.

- **8-bit** values are kept.
- **Wider integers** (PNG, TIFF), none negative and all below 65536, are scaled from 0 by the bit depth they use: the
  smallest of 8, 12 and 16 bits that holds the image's maximum (``value * 255 / (2**bits - 1)``, rounded; at 16 bits
  that is ``value / 257``). Cameras write 12 bits into 16, and nothing in the file says so (PNG's sBIT speaks of values
  that *have* been scaled to the full range). Three steps rather than every power of two: images of one camera then
  share a scale, except those whose maxima lie on different sides of 256 or 4096. A TIFF that declares another depth
  (1 to 15 bits) is taken at its word.
- **Floats** within [0, 1] are multiplied by 255. Other floats, and integers that are negative or need more than 16
  bits, are stretched from their smallest to their largest finite value, which is *not* comparable between images:
  convert such a corpus beforehand if brightness carries meaning. NaN becomes 0, ±infinity the end of the range, a
  constant image 0.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from pipeline.core.errors import StegoflowError


class DecodeError(ValueError):
    """The bytes are not an image that can be read; the message says whose and why. Trying again will not help."""


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Whatever a decoder raises becomes a DecodeError whose first word is `name`; what it only warns of is kept quiet.

    A file that cannot be read, has changed, or needs what is not installed (StegoflowError) is no damaged image.
    """
    try:
        with warnings.catch_warnings():
            # Corrupt EXIF, malformed MPO, ... Filters are global: threads may at worst leave this one in place.
            warnings.filterwarnings("ignore", module="PIL")
            yield
    except (MemoryError, StegoflowError):
        raise
    except DecodeError as error:
        raise DecodeError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, IndexError, their own, ...
        raise DecodeError(f"{name}: cannot be decoded: {error or type(error).__name__}") from error


def resize(
    image: np.ndarray | Image.Image,
    height: int,
    width: int,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """`image`, uint8 (H, W, 3) or Pillow's RGB, or its window `box` = (y0, x0, h, w) in source pixels, as uint8
    (height, width, 3).

    Bicubic, antialiased when it shrinks (Pillow). At the window's edges the filter reads the pixels beyond it, so that
    neighbouring windows fit together. Raises ValueError for a window that is empty or not inside the image.
    """
    window = None
    if box is not None:
        y0, x0, h, w = box
        window = (x0, y0, round(x0 + w, 6), round(y0 + h, 6))  # y0 + h may exceed H by a rounding error
        if h <= 0 or w <= 0:
            raise ValueError(f"box {box} is empty")
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return np.array(picture.resize((width, height), Image.Resampling.BICUBIC, box=window))


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 1..8 of (H, W, 3): 5 to 8 swap the axes, then flips (EXIF 2.3, tag 274)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def channels(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) without alpha and further channels: (H, W, 1) or (H, W, 3)."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]


def rgb(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 1) or (H, W, 3) as (H, W, 3)."""
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def to_uint8(pixels: np.ndarray, bits: int = 0) -> np.ndarray:
    """Scale (H, W, C) of any real dtype to uint8 by the module's rules; `bits` is a depth that the file declares."""
    if pixels.dtype.kind not in "buif":
        raise DecodeError(f"holds {pixels.dtype} values, not real numbers")
    low, high = 0.0, 1.0
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels)
        smallest = float(pixels.min(where=finite, initial=np.inf))
        largest = float(pixels.max(where=finite, initial=-np.inf))
        if smallest < 0 or largest > 1:
            low, high = smallest, largest
    elif pixels.dtype.kind in "ui":
        if pixels.dtype == np.uint8 and bits in (0, 8):
            return pixels
        smallest, largest = int(pixels.min()), int(pixels.max())
        if smallest >= 0 and largest < 65536:
            bits = bits or next(depth for depth in (8, 12, 16) if largest < 2**depth)
            high = 2**bits - 1
        else:
            low, high = smallest, largest
    scaled = np.zeros(pixels.shape, np.uint8)
    if high > low:
        with np.errstate(all="ignore"):
            # One row at a time: the doubles of a whole scan would fill the memory.
            for row, values in enumerate(pixels):
                values = (values.astype(np.float64) - low) * (255 / (high - low))
                scaled[row] = np.rint(np.nan_to_num(np.clip(values, 0, 255)))
    return scaled
