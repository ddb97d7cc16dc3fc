"""COCO panoptic: below `panoptic/` a PNG per image, whose colours are segment ids, and `panoptic.json`.

A segment is a class in an image, its id the class + 1: id = R + 256 G + 65536 B, 0 where there is none.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pipeline.writers.coco import categories, images, info
from pipeline.writers.folder import Folder
from pipeline.writers.interface import Done, ImageFacts, LabelMap, Legend, Writer, whole
from pipeline.writers.json_stream import write_object
from pipeline.writers.raster import png


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> list[dict[str, Any]]:
    values = legend.from_one(whole(ids)).astype(np.int32)
    out.write(f"panoptic/{image.name}.png", png(np.stack([values % 256, values // 256, 0 * values], -1).astype("u1")))
    return [
        {"id": number, "category_id": number, "area": int(area), "bbox": box, "iscrowd": 0}
        for number, area, box in _segments(values)
    ]


def _segments(values: np.ndarray) -> Iterator[tuple[int, int, list[int]]]:
    """Of each value that is not 0: itself, its number of pixels, its box (x, y, width, height)."""
    from scipy.ndimage import find_objects

    areas = np.bincount(values.ravel())
    for number, found in enumerate(find_objects(values), 1):
        if found is not None:
            y, x = found
            yield number, areas[number], [x.start, y.start, x.stop - x.start, y.stop - y.start]


def finish(out: Folder, legend: Legend, done: Iterable[Done]) -> None:
    annotations = (
        {"image_id": number, "file_name": f"{row.image.name}.png", "segments_info": row.made}
        for number, row in enumerate(done, 1)
    )
    content = {"info": info(legend), "licenses": [], "images": images(done), "annotations": annotations}
    with out.new("panoptic.json") as part:
        write_object(part, {**content, "categories": categories(legend, isthing=0)})


WRITER = Writer(one, finish, suffix=".png", first=1)
