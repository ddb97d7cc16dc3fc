"""Making the table of views of a features artifact, piece by piece, from the table of images."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.images import Images
from pipeline.artifacts.view_reader import ViewReader, corpus_readings, view_steps
from pipeline.artifacts.views import IMAGES, Shapes, Splits, numbered, view_tables, with_content
from pipeline.core.engine import Job, Work
from pipeline.images.reading import Reading

INDEX = pa.schema([("image", pa.int64()), ("images", pa.int64()), ("training", pa.int64())])
"""What the index says of a piece of the table of views: the first of its images, how many, and how many of its views
are trained on."""


def seen_by(job: Job) -> list[Reading]:
    """How images are read, as the params of features say, or the corpus: once, or by each of several triples."""
    return corpus_readings(job.params.channels, job.params.values, job.inputs.get("reading"))


def training_shapes(images: Images, splits: Splits) -> Shapes:
    """The shapes of the training images."""
    found = Shapes()
    for _, piece in images.pieces.each():
        if piece["split"][0].as_py() in splits.training:
            found.add(np.asarray(piece["height"]), np.asarray(piece["width"]))
    return found


def tables(
    job: Job, work: Work, images: Images, size: tuple[int, int], splits: Splits
) -> Iterator[tuple[pa.Table, dict[str, int]]]:
    """The table of views, piece by piece, and what the index says of each."""
    params = job.params
    total, looked = job.inputs["dataset"].manifest["sparse"], 0
    seen, root = seen_by(job)[0], job.roots["images"].location
    said = json.loads(job.roots["pixel_sizes"].location) if "pixel_sizes" in job.roots else None

    def content(view: dict[str, Any], rows: int, columns: int) -> np.ndarray:
        return ViewReader(root, seen).content(view, rows, columns)

    def progress() -> None:
        nonlocal looked
        looked += 1
        work.tick(looked, total, "images looked at")

    first = 0
    for start in range(0, len(images), IMAGES):
        some = images.pieces.rows(start, min(start + IMAGES, len(images)))
        begun, steps = start, view_steps(root, some, params.views, said)
        for table, number in view_tables(some, start, params.views, size, params.mirror, splits, steps):
            sparse = np.flatnonzero(np.asarray(some["sparse"])) + start
            sparse = sparse[(sparse >= begun) & (sparse < begun + number)]
            table = numbered(with_content(table, sparse.tolist(), content, progress), first)
            training = int(np.asarray(table["training"]).sum())
            yield table, {"image": begun, "images": number, "training": training}
            first, begun = first + len(table), begun + number
