"""Tables: per image and class its pixels, share and area; with scores, the mean confidence. CSV and Parquet."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.writers.areas import class_areas, pixel_areas
from pipeline.writers.folder import Folder
from pipeline.writers.interface import Done, ImageFacts, LabelMap, Legend, Writer, strips, whole

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("image", pa.string()),
        ("class", pa.int32()),
        ("name", pa.string()),
        ("pixels", pa.int64()),
        ("share", pa.float64()),
        ("area", pa.float64()),
        ("unit", pa.string()),
        ("confidence", pa.float64()),
    ]
)
"""share: of the image's pixels that have a class, 0..1; confidence: the mean probability of the class where it is."""


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> dict[str, Any]:
    areas, unit = pixel_areas(image, ids.shape[0])
    found = np.zeros(legend.nothing + 1)
    for rows, pixels in strips(ids):
        found += class_areas(pixels, areas[rows], len(found))
    occur = np.flatnonzero(found[: len(legend.names)]).tolist()
    made = {"unit": unit, "area": {str(number): float(found[number]) for number in occur}, "confidence": {}}
    if image.scores is not None:
        values = whole(ids)
        means = ((number, score[values == number]) for number, score in enumerate(image.scores()))
        made["confidence"] = {str(number): float(chosen.mean() / 255) for number, chosen in means if chosen.size}
    return made


def finish(out: Folder, legend: Legend, done: Iterable[Done]) -> None:
    with (
        out.new("table.csv") as text,
        out.new("table.parquet") as packed,
        text.open("w", encoding="utf-8", newline="") as file,
        pq.ParquetWriter(packed, SCHEMA) as tables,
    ):
        lines = csv.DictWriter(file, SCHEMA.names)
        lines.writeheader()
        for row in done:
            rows = list(_rows(legend, row))
            tables.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
            lines.writerows({key: _cell(value) for key, value in line.items()} for line in rows)


def _rows(legend: Legend, done: Done) -> Iterator[dict[str, Any]]:
    total = max(1, sum(done.pixels.values()))
    for number, name in enumerate(legend.names):
        pixels = done.pixels.get(number, 0)
        yield {
            "split": done.image.split,
            "image": done.image.id,
            "class": number,
            "name": name,
            "pixels": pixels,
            "share": pixels / total,
            "area": done.made["area"].get(str(number), 0.0),
            "unit": done.made["unit"],
            "confidence": done.made["confidence"].get(str(number)),
        }


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


WRITER = Writer(one, finish)
