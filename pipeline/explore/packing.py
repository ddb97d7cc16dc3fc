"""Planes of patches as the page reads them: bytes, and fewer patches where there are very many."""

import struct
from math import ceil

import numpy as np

HELD = 2**16
"""Patches of an image that the page gets; of a larger plane every other one, or every third…"""


def packed_tokens(plane: dict[str, np.ndarray], components: int) -> bytes:
    """A plane for the page: rows, columns, step, components (uint32, little-endian), then of the patches that it gets
    (`thinned`) `nearest` (uint16), `scale` (float32) and `numbers` (int8), each from a multiple of four bytes on."""
    rows, columns = plane["shape"].tolist()
    step, some = thinned(rows, columns)
    at = some.ravel()
    numbers = np.ascontiguousarray(plane["numbers"][at, :components])
    head = struct.pack("<4I", rows, columns, step, numbers.shape[1])
    blocks = (plane["nearest"][at].astype("<u2"), plane["scale"][at].astype("<f4"), numbers)
    return head + b"".join(padded(block.tobytes()) for block in blocks)


def thinned(rows: int, columns: int, most: int | None = None) -> tuple[int, np.ndarray]:
    """How far apart, and which of the positions of a plane (numbered row by row) stand for it: those in the middle of
    squares of `step` × `step`, `most` (`HELD`) at most: (ceil(rows / step), ceil(columns / step)) ints."""
    step, most = 1, most or HELD
    while ceil(rows / step) * ceil(columns / step) > most:
        step += 1
    y, x = (np.minimum(np.arange(0, side, step) + step // 2, side - 1) for side in (rows, columns))
    return step, y[:, None] * columns + x


def packed_maps(maps: list[np.ndarray]) -> bytes:
    """Maps (rows, columns) of uint16, one after the other: rows, columns (uint32), the values."""
    return b"".join(struct.pack("<2I", *one.shape) + padded(one.astype("<u2").tobytes()) for one in maps)


def padded(data: bytes) -> bytes:
    """`data` and zeros up to a multiple of four bytes."""
    return data + bytes(-len(data) % 4)
