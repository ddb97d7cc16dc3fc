"""Label maps, names and images for the tests of writers, and a way to write them without a run."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.writers import open_writer
from pipeline.writers.folder import Folder
from pipeline.writers.interface import Done, ImageFacts, LabelMap, Legend, strips
from pipeline.writers.legend import write_legend

NAMES = [
    "low",
    "<img src=x onerror=alert(1)>",
    "a/../../b",
    "Füße–東京–🦊",
    "x" * 300,
    "=1+1",
    "with: colon\nbreak",
    "low",
]
"""Seven classes that mean no good, and one whose name another has."""
LEGEND = Legend(NAMES, 255, provenance={"run": "20261126-0000", "fingerprint": "ab" * 32, "annotation": None})
MANY = Legend([f"class {number}" for number in range(300)], 65535, provenance={"run": "20261126-0000"})


def blobs(height: int, width: int, classes: int = len(NAMES), seed: int = 0, cells: int = 9) -> np.ndarray:
    """Regions of any shape, single pixels, diagonal neighbours, a corner without a class."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (cells, cells))
    y, x = np.indices((height, width))
    wobble = rng.integers(-2, 3, (2, height, width))
    rows = ((y + wobble[0]).clip(0, height - 1) * cells) // height
    columns = ((x + wobble[1]).clip(0, width - 1) * cells) // width
    legend = LEGEND if classes <= 255 else MANY
    ids = coarse[rows, columns].astype(legend.dtype)
    ids[: height // 4, : width // 5] = legend.nothing
    return ids


def facts(name: str = "a/image", **more: object) -> ImageFacts:
    return ImageFacts("val", f"{name}.png", f"images/val/{name}.png", name, f"{name}.png", **more)  # type: ignore[arg-type]


def write_maps(
    format: str, out: Path, maps: Iterable[tuple[ImageFacts, LabelMap]], legend: Legend = LEGEND
) -> list[Done]:
    """Write some label maps as an export does."""
    writer, folder, done = open_writer(format), Folder(out), []
    for image, ids in maps:
        made = writer.one(folder, legend, image, ids)
        counts = sum(np.bincount(part.ravel(), minlength=65536) for _, part in strips(ids))
        pixels = {int(id): int(counts[id]) for id in np.flatnonzero(counts[: legend.nothing])}
        done.append(Done(image, *ids.shape, pixels, made))
    if writer.finish:
        writer.finish(folder, legend, done)
    write_legend(folder, legend, writer.first, {})
    folder.clear()
    return done
