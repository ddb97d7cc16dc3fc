"""Label Studio: `tasks.json`, tasks with brush predictions, and `config.xml`, the labelling interface.

Images are looked for in its local storage (`/data/local-files/?d=PATH BELOW dataset.root`). At most 99 classes an
image: with more regions its editor does not open; the largest are kept.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5
from xml.sax.saxutils import quoteattr

import numpy as np

from pipeline.terminal import visible
from pipeline.writers.folder import Folder
from pipeline.writers.interface import Done, ImageFacts, LabelMap, Legend, Writer, whole
from pipeline.writers.json_stream import write_list

log = logging.getLogger("stegoflow")

MOST = 99
SIZES = (3, 4, 8, 16)
"""Bits of the lengths of runs, as the header of a mask declares them."""


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> list[dict[str, Any]]:
    pixels = whole(ids)
    counts = np.bincount(pixels.ravel(), minlength=legend.nothing + 1)
    counts[legend.nothing] = 0
    largest = sorted(np.flatnonzero(counts).tolist(), key=lambda number: (-counts[number], number))
    if len(largest) > MOST:
        log.warning("%s: the %d largest of %d classes are written", visible(image.path), MOST, len(largest))
    return [_region(legend, image, pixels, number) for number in sorted(largest[:MOST])]


def _region(legend: Legend, image: ImageFacts, pixels: np.ndarray, number: int) -> dict[str, Any]:
    height, width = pixels.shape
    return {
        "id": uuid5(NAMESPACE_URL, f"stegoflow:{image.path}/{number}").hex[:10],
        "type": "brushlabels",
        "from_name": "class",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": pack(pixels == number), "brushlabels": [_names(legend)[number]]},
    }


def _names(legend: Legend) -> list[str]:
    return Legend([visible(name) for name in legend.names], legend.nothing, legend.colours).distinct


def pack(mask: np.ndarray) -> list[int]:
    """A mask (height, width) bool as the bytes of Label Studio's editor (@thi.ng/rle-pack): each pixel four words of 8
    bits, 0 or 255, row by row; of a run a bit 1, two bits that say how long its length is, the length − 1, the word."""
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = 4 * np.diff(np.append(starts, flat.size))
    words = np.where(flat[starts], 255, 0)
    # A run of more than 65536 words is several.
    pieces = -(-lengths // 65536)
    words = np.repeat(words, pieces)
    last = np.cumsum(pieces) - 1
    sizes = np.full(len(words), 65536, np.int64)
    sizes[last] = lengths - 65536 * (pieces - 1)
    kind = np.searchsorted([8, 16, 256], sizes)  # the index of the bits that its length takes
    wide = np.array(SIZES)[kind]
    codes = (((4 | kind) << wide | (sizes - 1)) << 8) | words
    return np.packbits(
        _bits([flat.size * 4, 7, *(size - 1 for size in SIZES), *codes], [32, 5, 4, 4, 4, 4, *wide + 11])
    ).tolist()


def _bits(codes: list[int], widths: list[int]) -> np.ndarray:
    """Numbers of so many bits each, the highest first, one after the other: (sum of widths,) uint8 of 0 and 1."""
    code, width = np.array(codes, np.int64), np.array(widths, np.int64)
    stops = np.cumsum(width)
    left = np.repeat(stops, width) - 1 - np.arange(stops[-1])
    return (np.repeat(code, width) >> left & 1).astype(np.uint8)


def config(legend: Legend) -> str:
    """The labelling interface: the classes with their colours."""
    labels = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(legend.css(number))}/>\n"
        for number, name in enumerate(_names(legend))
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="class" toName="image">\n{labels}  </BrushLabels>\n</View>\n'
    )


def finish(out: Folder, legend: Legend, done: Iterable[Done]) -> None:
    def tasks() -> Iterator[dict[str, Any]]:
        for row in done:
            data = {"image": f"/data/local-files/?d={quote(row.image.path)}"}
            prediction = {"model_version": f"stegoflow {legend.provenance.get('run', '')}", "result": row.made}
            yield {"data": data, "predictions": [prediction]}

    with out.new("tasks.json") as part:
        write_list(part, tasks())
    out.write("config.xml", config(legend))


WRITER = Writer(one, finish)
