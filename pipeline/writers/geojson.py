"""GeoJSON for QuPath: outlines in pixels of level 0, origin at the upper left; no CRS, although the format has one.

One MultiPolygon a class: annotations, locked. Of an image of more than 17 megapixels one a class and tile of 2048
pixels: detections, which QuPath holds by the thousand.
"""

import json
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pipeline.writers.folder import Folder
from pipeline.writers.interface import ImageFacts, LabelMap, Legend, Writer
from pipeline.writers.outlines import LARGE, outlines


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    kind = "annotation" if ids.shape[0] * ids.shape[1] <= LARGE else "detection"
    run = legend.provenance.get("run", "")
    with out.new(f"{image.name}.geojson") as part, part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        comma = ""
        for tile, polygons in outlines(ids, legend.nothing):
            for number, parts in polygons.items():
                name = str(uuid5(NAMESPACE_URL, f"stegoflow:{run}/{image.path}/{tile}/{number}"))
                made = {"type": "Feature", "id": name, "geometry": _geometry(parts)}
                made["properties"] = _properties(legend, number, kind, _measured(image, parts))
                file.write(f"{comma}\n{json.dumps(made, ensure_ascii=False)}")
                comma = ","
        file.write("\n]}\n")


def _geometry(parts: list[Any]) -> dict[str, Any]:
    polygons = [[_ring(ring) for ring in (part.exterior, *part.interiors)] for part in parts]
    return {"type": "MultiPolygon", "coordinates": polygons}


def _ring(ring: Any) -> list[list[int]]:
    return [[int(x), int(y)] for x, y in ring.coords]


def _properties(legend: Legend, number: int, kind: str, measured: dict[str, float]) -> dict[str, Any]:
    return {
        "objectType": kind,
        "classification": {"name": legend.names[number], "color": legend.colours[number].tolist()},
        "isLocked": True,
        "measurements": measured,
    }


def _measured(image: ImageFacts, parts: list[Any]) -> dict[str, float]:
    area, size = sum(part.area for part in parts), image.pixel_size
    known = {"Area µm^2": area * size.x * size.y} if size and size.unit == "µm" else {}
    return {"Area px^2": area, **known}


WRITER = Writer(one, suffix=".geojson")
