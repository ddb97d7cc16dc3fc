"""Writing label maps: through one of `pipeline.writers`, image by image, with a legend beside them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from pipeline.artifacts.images import ByImage
from pipeline.core.engine import Progress
from pipeline.core.errors import ConfigError
from pipeline.datasets.scale import configured
from pipeline.images.formats import open_source
from pipeline.images.pixels import DecodeError
from pipeline.images.source import MAX_PIXELS, Source
from pipeline.progress import watched
from pipeline.writers import FORMATS, check, open_writer
from pipeline.writers.folder import Folder, Journal, check_empty, file_names
from pipeline.writers.interface import Done, ImageFacts, LabelMap, Legend, Writer, strips
from pipeline.writers.legend import write_legend

SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm")


FACTS = ("split", "id", "path", "name", "file_name")
"""What a journal keeps of an image."""


class Writing(TypedDict, total=False):
    """How label maps are written."""

    format: str | None
    """One of `pipeline.writers.FORMATS`; None: that of the images."""
    overwrite: bool
    """Write into a folder that is not empty."""
    progress: Progress | None
    """As of `pipeline.run`."""


@dataclass(frozen=True)
class Exported:
    """Label maps of some images, and all that a writer must know of them."""

    maps: ByImage[np.ndarray]
    legend: Legend
    root: str
    """Where the images lie."""
    pixel_size: dict[str, Any] | str | None = None
    """What `dataset.pixel_size` says of a pixel, before the file does."""
    scores: Callable[[int], Iterator[np.ndarray]] | None = None
    """Of an image, a row of the table of images: per class a map (height, width) uint8 of its probability × 255."""


def input_format(what: Exported) -> str:
    """The format of the images: `palette` for photographs and where there are several kinds."""
    kinds = Counter(_kind(what.maps.images.file(row)[0].lower()) for row in what.maps.rows)
    if len(kinds) != 1:
        return "palette"
    (kind,) = kinds
    if kind == "tiff":
        source = _opened(what, what.maps.rows[0])
        return "geotiff" if source is not None and source.georeference is not None else "ome-tiff"
    return kind


def _kind(path: str) -> str:
    """A format by the end of an image's name, `tiff` where its header decides."""
    endings = {(".tif", ".tiff", ".jp2"): "tiff", (".vrt",): "geotiff", (".fits", ".fit", ".fts", ".fz"): "fits"}
    endings |= {(".zarr",): "ome-zarr", SLIDES: "geojson"}
    return next((kind for suffixes, kind in endings.items() if path.endswith(suffixes)), "palette")


def write(
    what: Exported,
    out: Path,
    *,
    format: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write label maps and their legend: {"format", "written", "out", "skipped"}. Memory: one image, of a large one in
    the formats of its field one strip."""
    name = format or input_format(what)
    check(name, what.scores is not None)
    _check_large(what, name)
    writer, folder, legend = open_writer(name), Folder(out), what.legend
    names = [what.maps.images.name(row) for row in what.maps.rows]
    files = file_names(names, writer.suffix, len(what.maps.splits) > 1)
    check_empty(out, overwrite)
    facts = {"format": name, "scores": what.scores is not None, "splits": what.maps.splits, "images": len(names)}
    journal = Journal(folder, {**facts, **legend.provenance}, overwrite)
    with watched(progress) as shown:
        for done, (row, (split, id), file) in enumerate(zip(what.maps.rows, names, files, strict=True), 1):
            if (split, id) not in journal.done:
                image = _facts(what, row, file, FORMATS[name].grid)
                journal.add(_one(writer, folder, legend, image, what.maps.read(row)))
            shown("export", done, len(names), "label maps")
    return {"format": name, **_finish(writer, folder, legend, journal), "out": str(out)}


def _check_large(what: Exported, format: str) -> None:
    """ConfigError for images that are too large for a format that holds them whole, or for maps of scores."""
    images = what.maps.images
    for row in what.maps.rows:
        height, width = images.size(row)
        if height * width > MAX_PIXELS and (what.scores or FORMATS[format].whole):
            size = f"{images.name(row)[1]} has {height * width / 1e6:,.0f} megapixels"
            if what.scores:
                raise ConfigError(f"--scores: {size}, too many to hold", next="leave --scores out")
            streamed = ", ".join(name for name, one in FORMATS.items() if not one.whole)
            raise ConfigError(f"--as {format}: {size}, too many to hold", next=f"--as one of {streamed}")


def _one(writer: Writer, folder: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> dict[str, Any]:
    """Write one image; its line of the journal."""
    line = {key: getattr(image, key) for key in FACTS}
    height, width = ids.shape
    if not height * width:
        return {**line, "made": None, "pixels": {}, "height": 0, "width": 0}
    made = writer.one(folder, legend, image, ids)
    pixels = sum(np.bincount(part.ravel(), minlength=legend.nothing + 1) for _, part in strips(ids))
    counts = {str(id): int(pixels[id]) for id in np.flatnonzero(pixels[: legend.nothing])}  # type: ignore[index]
    return {**line, "made": made, "pixels": counts, "height": height, "width": width}


def _finish(writer: Writer, folder: Folder, legend: Legend, journal: Journal) -> dict[str, Any]:
    """Write what is one file for all images."""
    every, pixels, skipped = _Written(journal), Counter[int](), []
    written = 0
    for line in journal:
        pixels.update({int(id): count for id, count in line["pixels"].items()})
        written += bool(line["height"])
        skipped += [] if line["height"] else [line["id"]]
    if written:
        if writer.finish is not None:
            writer.finish(folder, legend, every)
        write_legend(folder, legend, writer.first, pixels)
    folder.clear()
    return {"written": written, "skipped": skipped}


class _Written:
    """The images of a journal, read again each time that they are gone through."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def __iter__(self) -> Iterator[Done]:
        for line in self.journal:
            if line["height"]:
                image = ImageFacts(*(line[key] for key in FACTS))
                pixels = {int(id): count for id, count in line["pixels"].items()}
                yield Done(image, line["height"], line["width"], pixels, line["made"])


def _facts(what: Exported, row: int, name: str, grid: bool) -> ImageFacts:
    images = what.maps.images
    split, id = images.name(row)
    scores = what.scores
    file_name = f"{split}/{id}" if len(what.maps.splits) > 1 else id
    shown = None if scores is None else lambda: scores(row)
    facts = ImageFacts(split, id, images.file(row)[0], name, file_name, scores=shown)
    source = _opened(what, row) if grid else None
    if source is None:
        return facts
    levels = tuple((level.height, level.width) for level in source.levels)
    size = configured(what.pixel_size)(facts.path) or source.pixel_size
    return replace(facts, pixel_size=size, georeference=source.georeference, levels=levels)


def _opened(what: Exported, row: int) -> Source | None:
    """The image itself, for its grid; None where it cannot be decoded, as it could not when the features were made."""
    try:
        return open_source(what.root, *what.maps.images.file(row))
    except DecodeError:
        return None
