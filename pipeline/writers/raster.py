"""PNGs of ids."""

import io

import numpy as np
from PIL import Image


def png(ids: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """A PNG of ids (height, width), uint8 or uint16, or of colours (height, width, 3) uint8.

    colours: (K, 3) uint8, the palette of uint8 ids; its other entries are black.
    """
    picture, sink = Image.fromarray(ids), io.BytesIO()
    if colours is not None:
        picture.putpalette(np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)]).tobytes())
    picture.save(sink, "PNG")
    return sink.getvalue()
