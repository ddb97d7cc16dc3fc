"""What the demo corpus is filled from: parts of photographs and textures that the scikit-image wheel ships.

The sources are files of the scikit-image wheel; their provenance, as its `skimage.data` docstrings give it:
CC0: `brick` and `gravel` (CC0Textures), `grass` (linolafett), `chelsea` (fur; Stefan van der Walt), `coffee` (its
wooden table; Rachel Michetti), `retina` (Mikael Häggström). Public domain: `hubble_deep_field` (NASA), `rocket` (its
dusk sky; SpaceX). No known copyright restrictions: `coins` (Brooklyn Museum), `ihc` (colon tissue; CMMI). Shipped
without a statement of its own: `moon`.
"""

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from PIL import Image

Point = tuple[float, float]  # x, y
Quad = tuple[Point, Point, Point, Point]  # corners in source pixels: NW, SW, SE, NE
Colour = tuple[int, int, int]


class Material(NamedTuple):
    """One category: where its pixels come from and how they may be varied."""

    name: str
    file: str  # in skimage/data
    train: Quad  # what training scenes are filled from
    val: Quad  # what validation scenes are filled from: no pixel in common
    tone: tuple[Colour, ...] = ()  # a grey source's colours at its 1st, 50th and 99.7th percentile
    zoom: float = 1.0  # scene pixels per source pixel, before its variation by 0.6 to 1.8
    turn: tuple[float, float] = (0.0, 180.0)  # rotation in degrees: about which angle, and by how much at most
    gamma: float = 1.0  # below 1 brightens
    ragged: float = 0.0  # pixels by which the texture's relief displaces the outline
    upright: bool = False  # a gradient: stretched over the scene, never turned over


def _box(left: float, top: float, right: float, bottom: float) -> Quad:
    return (left, top), (left, bottom), (right, bottom), (right, top)


# The quads of brick undo its perspective and those of wood follow its grain: so their mirrored copies continue.
# fmt: off
MATERIALS = (
    Material("sky", "rocket.jpg", _box(208, 0, 306, 335), _box(336, 0, 434, 335),
             turn=(0, 6), gamma=0.55, upright=True),
    Material("stars", "hubble_deep_field.jpg", _box(0, 0, 600, 872), _box(602, 0, 1000, 872), zoom=0.8),
    Material("grass", "grass.png", _box(0, 0, 512, 330), _box(0, 332, 512, 512),
             ((20, 30, 12), (84, 112, 44), (206, 214, 140)), ragged=2.2),
    Material("gravel", "gravel.png", _box(0, 0, 512, 330), _box(0, 332, 512, 512),
             ((28, 27, 27), (124, 119, 112), (224, 218, 208)), ragged=2.0),
    Material("brick", "brick.png",
             ((39, 0), (0, 328), (511, 328), (455, 0)), ((29, 330), (8, 512), (507, 512), (480, 330)),
             ((104, 44, 32), (150, 72, 52), (208, 196, 178)), zoom=0.8, turn=(90, 14), ragged=0.4),
    Material("wood", "coffee.png",
             ((0, 124), (0, 400), (74, 351), (74, 75)), ((484, 290), (484, 400), (600, 290), (600, 180)),
             zoom=1.3, gamma=0.85),
    Material("fur", "chelsea.png", _box(95, 0, 298, 82), _box(90, 152, 232, 214), zoom=1.25, ragged=1.6),
    Material("moon", "moon.png", _box(0, 0, 290, 512), _box(292, 0, 512, 512),
             ((24, 24, 28), (132, 130, 126), (244, 242, 234))),
    Material("coins", "coins.png", _box(0, 0, 384, 150), _box(0, 150, 384, 303),
             ((26, 18, 10), (120, 96, 60), (240, 222, 174))),
    Material("retina", "retina.jpg", _box(290, 180, 1100, 700), _box(290, 702, 1100, 1230), zoom=0.33),
    Material("tissue", "ihc.png", _box(60, 0, 512, 296), _box(55, 306, 428, 512), zoom=0.9),
)
# fmt: on
CLASSES = tuple(material.name for material in MATERIALS)


@cache
def source_patch(name: str, split: str) -> Image.Image:
    """The part of a material's source that `split` may use, as an RGB rectangle."""
    material = MATERIALS[CLASSES.index(name)]
    file = resources.files("skimage") / "data" / material.file
    with file.open("rb") as stream, Image.open(stream) as image:  # noqa: TID251 (a file of the installed scikit-image)
        source = image.convert("L" if material.tone else "RGB")
    if material.tone:
        stops = np.percentile(np.asarray(source), (1, 50, 99.7))
        table = np.stack([np.interp(np.arange(256), stops, channel) for channel in zip(*material.tone, strict=True)], 1)
        source = Image.fromarray(table.round().astype(np.uint8)[np.asarray(source)])
    quad = material.train if split == "train" else material.val
    size = round(quad[2][0] - quad[1][0]), round(quad[1][1] - quad[0][1])
    data = tuple(number for corner in quad for number in corner)
    return source.transform(size, Image.Transform.QUAD, data, Image.Resampling.BILINEAR)


@cache
def source_coins(split: str) -> tuple[tuple[Image.Image, Image.Image, float], ...]:
    """The single coins of `split`: picture, signed distance to the coin's real outline, radius; source pixels."""
    from scipy import ndimage

    picture = source_patch("coins", split)
    grey = np.asarray(picture.convert("L"), dtype=np.float32)
    mask = ndimage.gaussian_filter(grey, 1.5) > ndimage.gaussian_filter(grey, 30) + 6
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(mask, iterations=3))
    marks, count = ndimage.label(ndimage.binary_opening(mask, iterations=6))
    found = []
    for mark, (rows, columns) in enumerate(ndimage.find_objects(marks, count), start=1):
        inside = np.pad(marks, 6)[rows.start : rows.stop + 12, columns.start : columns.stop + 12] == mark
        distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
        smooth = Image.fromarray(ndimage.gaussian_filter(distance, 1.0).astype(np.float32) - 0.6)
        crop = picture.crop((columns.start - 6, rows.start - 6, columns.stop + 6, rows.stop + 6))
        found.append((crop, smooth, float(np.sqrt(inside.sum() / np.pi))))
    return tuple(found)
