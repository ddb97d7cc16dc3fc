"""COCO: `annotations.json`, stuff as run-length masks: one annotation per class and image, category id = class + 1."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pipeline.writers.folder import Folder
from pipeline.writers.interface import Done, ImageFacts, LabelMap, Legend, Writer, whole
from pipeline.writers.json_stream import write_object


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> list[dict[str, Any]]:
    from pycocotools import mask

    height, width = ids.shape
    found = []
    for number, counts in run_lengths(whole(ids), legend.nothing).items():
        packed = mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        found.append(
            {
                "category_id": number + 1,
                "segmentation": {"size": [height, width], "counts": packed["counts"].decode("ascii")},
                "area": int(mask.area(packed)),
                "bbox": mask.toBbox(packed).tolist(),
                "iscrowd": 1,
            }
        )
    return found


def run_lengths(ids: np.ndarray, nothing: int) -> dict[int, list[int]]:
    """Of each id in a label map, COCO's uncompressed counts: pixels, column by column, that are not of it, then that
    are, and so on."""
    flat = ids.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    stops = np.append(starts[1:], flat.size)
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    numbers, first = np.unique(values[order], return_index=True)
    found = {}
    for number, chosen in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
        if number != nothing:
            edges = np.stack([starts[chosen], stops[chosen]], 1).ravel()
            found[number] = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return found


def categories(legend: Legend, **more: Any) -> list[dict[str, Any]]:
    """COCO's list of classes."""
    return [
        {"id": number + 1, "name": name, "supercategory": "stuff", "color": legend.colours[number].tolist(), **more}
        for number, name in enumerate(legend.names)
    ]


def images(done: Iterable[Done]) -> Iterator[dict[str, Any]]:
    """COCO's list of images, numbered from 1."""
    for number, row in enumerate(done, 1):
        size = {"height": row.height, "width": row.width}
        yield {"id": number, "file_name": row.image.file_name, "split": row.image.split, **size}


def info(legend: Legend) -> dict[str, Any]:
    """What COCO files say of themselves."""
    return {"description": "label maps by stegoflow", **legend.provenance}


def finish(out: Folder, legend: Legend, done: Iterable[Done]) -> None:
    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for at, row in enumerate(done, 1):
            for found in row.made:
                number += 1
                yield {"id": number, "image_id": at, **found}

    content = {"info": info(legend), "licenses": [], "images": images(done), "categories": categories(legend)}
    with out.new("annotations.json") as part:
        write_object(part, {**content, "annotations": annotations()})


WRITER = Writer(one, finish)
