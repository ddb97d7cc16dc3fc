"""The scenes of the demo corpus: painted back to front from photographs, each layer writing its own label."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.datasets.demo.sources import CLASSES, MATERIALS, Material, Point, source_coins, source_patch

IGNORE = 255
SPLITS = ("train", "val")
SIZES = ((320, 240), (360, 270), (400, 300), (448, 336), (480, 360), (480, 320), (320, 320))  # pixels

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]
Rng = np.random.Generator
Shape = tuple[int, int]  # rows, columns


class Layer(NamedTuple):
    """One shape of one material, somewhere in a scene."""

    name: str
    field: Floats  # h × w: about the distance to the outline in pixels, positive inside
    top: int = 0  # of the field in the scene, pixels; may lie outside of it
    left: int = 0
    lift: float = 0.0  # pixels above what lies beneath: the reach of its shadow
    bulge: float = 0.0  # pixels over which its rim is shaded round
    recede: float = 0.0  # foreshortening: by how much (1: 100 %) texture at the bottom is larger than at the top
    texture: Floats | None = None  # h × w × 3, where the material is not to be tiled


GROUND = {"grass": 1.0, "gravel": 1.0, "brick": 1.1, "wood": 0.8, "moon": 0.9, "fur": 0.5}  # relative frequencies
TABLE = {"wood": 1.5, "brick": 1.0, "gravel": 0.5, "grass": 0.5}
CLOTH = {"fur": 1.3, "tissue": 1.3, "retina": 1.3, "wood": 0.8, "brick": 0.5, "gravel": 0.4, "grass": 0.4, "moon": 0.6}
THINGS = {"fur": 1.3, "tissue": 1.1, "retina": 1.3, "moon": 0.8, "gravel": 0.5, "grass": 0.6, "wood": 0.7}
MEDLEY = GROUND | {"sky": 0.5, "stars": 1.0, "tissue": 1.8, "retina": 1.7, "fur": 1.5}


def _mirror(start: int, count: int, size: int) -> NDArray[np.intp]:
    """`count` positions, from `start` on, along an endless row of alternately mirrored copies of 0..size-1."""
    index = np.arange(start, start + count) % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def _relit(rng: Rng, image: Image.Image, gamma: float = 1.0) -> Floats:
    """The image in another gamma, brightness and colour temperature; h × w × 3, 0..255."""
    warmth, green = rng.uniform(-0.09, 0.09), rng.uniform(-0.03, 0.03)
    curve = 255 * rng.uniform(0.86, 1.12) * (np.arange(256) / 255) ** (gamma * np.exp(rng.uniform(-0.22, 0.22)))
    table = np.outer((1 + warmth, 1 + green, 1 - warmth), curve).clip(0, 255).round().astype(int)
    return np.asarray(image.point(table.ravel().tolist()), dtype=np.float32)


def _fill(rng: Rng, material: Material, split: str, shape: Shape, recede: float) -> Floats:
    """A rectangle full of the material; h × w × 3, 0..255."""
    height, width = shape
    patch = source_patch(material.name, split)
    scale = material.zoom * np.exp(rng.uniform(np.log(0.6), np.log(1.8))) / (1 + 0.6 * recede)
    size = round(patch.width * scale), round(patch.height * scale)
    if material.upright:
        size = round(width * rng.uniform(0.8, 1.4)), round(height * rng.uniform(1.0, 1.3))
    pixels = np.asarray(patch.resize(size, Image.Resampling.BICUBIC))[:, :: rng.choice((-1, 1))]
    angle = np.deg2rad(material.turn[0] + rng.uniform(-1, 1) * material.turn[1])
    sine, cosine, slope = np.sin(angle), np.cos(angle), recede / height
    corners = [(x / (1 + slope * y), y / (1 + slope * y)) for x in (-width / 2, width / 2) for y in (0, height)]
    reach = np.array(corners) @ np.array([[cosine, sine], [-sine, cosine]])  # of the rectangle, in the patch's pixels
    u, v = 2 - np.floor(reach.min(axis=0)).astype(int)
    columns, rows = np.ceil(reach.max(axis=0)).astype(int) + 3 + (u, v)
    spare = [have - need if have > need else 2 * have for have, need in zip(size, (columns, rows), strict=True)]
    x, y = (0, 0) if material.upright else rng.integers(0, spare)
    sheet = Image.fromarray(pixels[_mirror(y, rows, size[1])][:, _mirror(x, columns, size[0])])
    across = (cosine, u * slope - sine, u - cosine * width / 2)
    down = (sine, v * slope + cosine, v - sine * width / 2)
    kind, matrix = Image.Transform.PERSPECTIVE, (*across, *down, 0, slope)
    return _relit(rng, sheet.transform((width, height), kind, matrix, Image.Resampling.BICUBIC), material.gamma)


def _noise(rng: Rng, shape: Shape, cell: float, octaves: int = 3) -> Floats:
    """Smooth noise of standard deviation about 1 whose largest waves are about `cell` pixels long; h × w."""
    total = np.zeros(shape, np.float32)
    for step, weight in ((cell / 2**octave, 0.5**octave) for octave in range(octaves)):
        grid = rng.normal(size=(int(shape[0] / step) + 4, int(shape[1] / step) + 4)).astype(np.float32)
        box = (1, 1, 1 + shape[1] / step, 1 + shape[0] / step)
        total += weight * np.asarray(Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC, box=box))
    return total


def _below(rng: Rng, shape: Shape, height: float) -> Floats:
    """What lies below a hilly line at `height` (a share of the scene's); h × w."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    hills = _noise(rng, (1, shape[1]), shape[1] * rng.uniform(0.25, 0.6)) * shape[0] * rng.uniform(0.02, 0.07)
    slant = (columns - shape[1] / 2) * rng.uniform(-0.15, 0.15)
    return rows - height * shape[0] + hills + slant + _noise(rng, shape, 24, 2) * rng.uniform(0.5, 2.0)


def _patchwork(rng: Rng, shape: Shape, count: int) -> list[Floats]:
    """`count` cells of a warped Voronoi diagram, each in front of those before it; h × w each."""
    side = min(shape)
    rows, columns = (index + _noise(rng, shape, side / 2.5, 4) * side * 0.09 for index in np.indices(shape))
    nearest, fields = np.full(shape, 1e6), []
    for angle in rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count + rng.uniform(-0.35, 0.35, count):
        away = rng.uniform(0.22, 0.4)
        centre = shape[0] * (0.5 + away * np.sin(angle)), shape[1] * (0.5 + away * np.cos(angle))
        distance = np.hypot(rows - centre[0], columns - centre[1])
        fields.append(nearest - distance)
        nearest = np.minimum(nearest, distance)
    return fields


def _blob(rng: Rng, radius: float, rough: float) -> Floats:
    """A closed outline whose radius is a random Fourier series of the angle, a disc if `rough` is 0; square."""
    side, lean, squeeze = int(radius * 3.2), rng.uniform(0, np.pi), 1 + rough * rng.uniform(0, 0.9)
    dy, dx = np.indices((side, side)) - side / 2
    along, across = dx * np.cos(lean) + dy * np.sin(lean), (dy * np.cos(lean) - dx * np.sin(lean)) * squeeze
    angle, outline = np.arctan2(across, along), np.ones((side, side))
    for order in range(2, 9):
        outline += rough * rng.normal() * order**-1.4 * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return radius * np.clip(outline, 0.45, 1.55) - np.hypot(along, across)


def _object(rng: Rng, name: str, shape: Shape, highest: float) -> Layer:
    """One thing somewhere below `highest` (a share of the height): a globe if it can be one, or a blob."""
    globe = name in ("moon", "retina") and rng.random() < 0.75
    radius = min(shape) * rng.uniform(0.1, 0.23)
    field = _blob(rng, radius, 0.0 if globe else rng.uniform(0.2, 0.38))
    x, y = rng.uniform(0.08, 0.92) * shape[1], rng.uniform(highest, 0.95) * shape[0]
    top, left = round(y - len(field) / 2), round(x - len(field) / 2)
    return Layer(name, field, top, left, radius * rng.uniform(0.1, 0.2), radius * (0.3 if globe else 0.16))


def _coin(rng: Rng, split: str, centre: Point, radius: float) -> Layer:
    """A real coin, turned and enlarged."""
    coins = source_coins(split)
    picture, distance, size = coins[rng.integers(len(coins))]
    side, scale, angle = int(radius * 2.6), size / radius, rng.uniform(0, 2 * np.pi)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    x, y = (picture.width + (sine - cosine) * side) / 2, (picture.height - (sine + cosine) * side) / 2
    kind, matrix = Image.Transform.AFFINE, (cosine, -sine, x, sine, cosine, y)
    turned = picture.transform((side, side), kind, matrix, Image.Resampling.BICUBIC)
    field = distance.transform((side, side), kind, matrix, Image.Resampling.BICUBIC, fillcolor=-9)
    top, left = round(centre[1] - side / 2), round(centre[0] - side / 2)
    return Layer("coins", np.asarray(field) / scale, top, left, radius * 0.18, 2.0, texture=_relit(rng, turned))


def _hoard(rng: Rng, split: str, shape: Shape, highest: float, chance: float) -> list[Layer]:
    """With this chance a handful of coins, side by side or overlapping, below `highest` (a share of the height)."""
    radius, count = min(shape) * rng.uniform(0.075, 0.12), int(rng.integers(4, 10)) if rng.random() < chance else 0
    centre = rng.uniform(0.15, 0.85) * shape[1], rng.uniform(highest + 0.12, 0.9) * shape[0]
    places = centre + rng.normal(size=(count, 2)) * radius * (1.9, 1.5)
    places[:, 1] = np.sort(np.maximum(places[:, 1], (highest + 0.08) * shape[0]))
    return [_coin(rng, split, (x, y), radius * rng.uniform(0.8, 1.2)) for x, y in places]


def _pick(rng: Rng, weights: dict[str, float], few: int, many: int, without: Sequence[str] = ()) -> list[str]:
    """Between `few` and `many` different names, drawn by weight."""
    names = [name for name in weights if name not in without]
    share = np.array([weights[name] for name in names])
    return rng.choice(names, size=rng.integers(few, many + 1), replace=False, p=share / share.sum()).tolist()


def _landscape(rng: Rng, split: str, shape: Shape, far: str) -> list[Layer]:
    """Sky or stars above one to three receding grounds; perhaps a moon; things that lie on the ground."""
    horizon, recede = rng.uniform(0.28, 0.5), rng.uniform(0.4, 0.9)
    grounds = _pick(rng, GROUND | ({"moon": 1.8} if far == "stars" else {}), 1, 3)
    layers = [Layer(far, np.ones(shape))]
    if "moon" not in grounds and rng.random() < 0.5:
        layers.append(_object(rng, "moon", shape, 0)._replace(top=round(rng.uniform(-0.1, 0.1) * shape[0]), lift=0))
    heights = horizon + np.cumsum([0.0, *rng.uniform(0.14, 0.26, len(grounds) - 1)])
    for name, height in zip(grounds, heights, strict=True):
        layers.append(Layer(name, _below(rng, shape, height), lift=1.5, recede=recede))
    layers += [_object(rng, name, shape, horizon + 0.15) for name in _pick(rng, THINGS, 1, 3, grounds)]
    return layers + _hoard(rng, split, shape, horizon, chance=0.55)


def _table(rng: Rng, split: str, shape: Shape) -> list[Layer]:
    """Seen from above: a table or a pavement, one or two cloths that cover a part of it, things upon them."""
    names = _pick(rng, TABLE, 1, 1)
    names += _pick(rng, CLOTH, 1, 2, names)
    layers = [Layer(names[0], np.ones(shape))]
    for name in names[1:]:
        field = np.rot90(_below(rng, (max(shape), max(shape)), rng.uniform(0.6, 0.75)), int(rng.integers(4)))
        layers.append(Layer(name, field[: shape[0], : shape[1]], lift=4.0, bulge=3.0))
    layers += [_object(rng, name, shape, 0.1) for name in _pick(rng, THINGS, 1, 3, names)]
    return layers + _hoard(rng, split, shape, 0.05, chance=0.8)


def _medley(rng: Rng, split: str, shape: Shape) -> list[Layer]:
    """A warped patchwork of any three or four materials, one or two objects upon it."""
    names = _pick(rng, MEDLEY, 3, 4)
    layers = [Layer(name, field) for name, field in zip(names, _patchwork(rng, shape, len(names)), strict=True)]
    layers += [_object(rng, name, shape, 0.1) for name in _pick(rng, THINGS, 1, 2, names)]
    return layers + _hoard(rng, split, shape, 0.05, chance=0.3)


RECIPES = (partial(_landscape, far="sky"), _table, partial(_landscape, far="stars"), _medley)  # in turn


def _blurred(cover: Floats, reach: float) -> Floats:
    image = Image.fromarray((cover * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(reach))
    return np.asarray(image, dtype=np.float32) / 255


def _moved(image: Floats, way: Floats) -> Floats:
    """The image moved by `way` (down, right; pixels); rows and columns at its edge are repeated."""
    ends = zip(image.shape, np.rint(way).astype(int), strict=True)
    return image[np.ix_(*(np.clip(np.arange(size) - by, 0, size - 1) for size, by in ends))]


def _coverage(field: Floats, texture: Floats, ragged: float) -> Floats:
    """How much of each pixel the shape covers, 0..1; h × w."""
    pixels = np.clip(field / np.maximum(np.hypot(*np.gradient(field)), 1e-3), -20, 20)
    if ragged:
        from scipy import ndimage

        relief = ndimage.gaussian_filter(texture[..., 1], 1.0)
        pixels = pixels + ragged * np.clip((relief - relief.mean()) / (relief.std() + 1e-3), -2, 2)
    return np.clip(pixels / 1.4 + 0.5, 0, 1).astype(np.float32)


def _paint(rng: Rng, canvas: Floats, labels: Bytes, layer: Layer, split: str, light: Floats) -> None:
    """Blend one layer into the scene, shadow first; write its label wherever it covers half of a pixel."""
    index, field, top, left = CLASSES.index(layer.name), layer.field, layer.top, layer.left
    if layer.texture is None:  # without the rows that neither the shape nor its shadow reaches
        near = np.flatnonzero((field > -4 - 4 * layer.lift).any(axis=1))
        if len(near) < 2:
            return
        field, top = field[near[0] : near[-1] + 1], top + int(near[0])
    material, size = MATERIALS[index], (field.shape[0], field.shape[1])
    texture = _fill(rng, material, split, size, layer.recede) if layer.texture is None else layer.texture
    cover = _coverage(field, texture, material.ragged)
    shadow = 0.55 * _moved(_blurred(cover, layer.lift), light * layer.lift) if layer.lift else 0 * cover
    if layer.bulge:
        rim, way = _blurred(cover, layer.bulge), light * layer.bulge
        texture = texture * (1 + 0.55 * (_moved(rim, -way) - _moved(rim, way)))[..., None]
    outer = slice(max(top, 0), max(top + size[0], 0)), slice(max(left, 0), max(left + size[1], 0))
    under, marks = canvas[outer], labels[outer]
    inner = tuple(slice(max(-at, 0), max(-at, 0) + have) for at, have in zip((top, left), marks.shape, strict=True))
    cover, texture = cover[inner], texture[inner]
    under *= 1 - shadow[inner][..., None]
    under += cover[..., None] * (texture - under)
    marks[cover >= 0.5] = index


def scene(seed: int, split: str, number: int) -> tuple[Bytes, Bytes]:
    """One picture (h × w × 3, uint8) and its labels (h × w, uint8: positions in `CLASSES`), from its own generator."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    width, height = SIZES[rng.integers(len(SIZES))]
    shape = (width, height) if rng.random() < 0.4 else (height, width)
    angle = rng.uniform(0.15, 0.85) * np.pi  # light falls from above, from the left or from the right
    light = np.array([np.sin(angle), np.cos(angle)])
    canvas, labels = np.zeros((*shape, 3), np.float32), np.full(shape, IGNORE, np.uint8)
    for layer in RECIPES[number % len(RECIPES)](rng, split, shape):
        _paint(rng, canvas, labels, layer, split, light)
    rows, columns = np.ogrid[-0.5 : 0.5 : shape[0] * 1j, -0.5 : 0.5 : shape[1] * 1j]
    canvas *= (1 - rng.uniform(0.05, 0.3) * (rows * light[0] + columns * light[1]))[..., None]
    canvas += rng.normal(0, rng.uniform(1.0, 3.5), shape)[..., None]
    return canvas.clip(0, 255).round().astype(np.uint8), labels
