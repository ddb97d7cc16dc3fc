"""masks: a label map for every predicted image, at the image's own resolution, with and without dense CRF.

Artifact: one Parquet file per part: split, id, path, height and width of the image, `y` and `x` where its piece begins,
`mask` and `mask_crf` (PNG bytes, uint8 or uint16 for more than 255 clusters; the largest value of the type marks pixels
without content, and an image that could not be decoded). A row is an image, or a tile of one of more than 16.8
megapixels; `images.json`, rows of the table of images; `tiles.json`, [position there, tiles] of each in tiles.
Sources: STEGO, section 4.3 (mirror averaging, bilinear upsampling of codes, dense CRF); `pipeline.numerics.guided`.
"""

from math import ceil
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from pipeline.artifacts.classes import Classes, read_classes
from pipeline.artifacts.clusters import read_clusters
from pipeline.artifacts.head import open_head
from pipeline.artifacts.images import Images, Ranges
from pipeline.artifacts.mask_tiles import FILE, ROWS, Rectangle, items_of, large_images, predicted_rows, tile_at
from pipeline.artifacts.masks import encode_png, ignore_value, mask_dtype
from pipeline.artifacts.planes import Views
from pipeline.artifacts.view_reader import ViewReader, reading_of
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.params import Params
from pipeline.datasets import folder
from pipeline.images.pixels import DecodeError
from pipeline.images.source import MAX_PIXELS, Source
from pipeline.numerics.crf import CrfParams, dense_crf, log_softmax, tiles
from pipeline.numerics.guided import guided_winner
from pipeline.numerics.pieces import Piece, piece_of
from pipeline.numerics.prototypes import SCALE
from pipeline.numerics.tree import Cut
from pipeline.numerics.views import ALL, PlanePart, Window, cosine_logits, uncovered, winner

PART_PIXELS = 2**21
"""Pixels of a part: 20 seconds of CRF, one without. Workers share parts, and a kill loses one."""
MOST_IMAGES = 256
"""Images of a part, at most."""
LEAST_TILES = 4
"""Rows of a part, at least, where there are tiles."""


class MasksParams(Params):
    splits: list[str] = Field(default_factory=lambda: ["val"])
    """Splits that get masks. A folder with a single split is predicted on itself whatever stands here."""
    upsampling: Literal["guided", "bilinear"] = "guided"
    """Of the masks without CRF: `guided` by the image's edges, or `bilinear` as published. The CRF starts from
    `bilinear`. The default was set after scores on four labelled sets were seen (docs/decisions/010)."""
    crf: bool = False
    """Also write masks refined by a dense CRF: seconds per image, for outlines that are a little sharper. Needs the
    extra `crf`."""
    crf_params: CrfParams = CrfParams()
    sharpness: float | None = Field(None, gt=0)
    """The CRF starts from log-softmax(sharpness × cosine to each group). None: 2, as published; for regrouped clusters
    and classes with points 20, the scale that these were fitted at."""

    @field_validator("splits")
    @classmethod
    def _not_empty(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("name at least one split")
        return sorted(set(value))

    def packages(self) -> dict[str, str]:
        return {"pydensecrf": "masks.crf=true"} if self.crf else {}


PUBLISHED = 2.0
"""Sharpness of the published evaluation."""

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("id", pa.string()),
        ("path", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("y", pa.int32()),
        ("x", pa.int32()),
        ("mask", pa.binary()),
        ("mask_crf", pa.binary()),
    ]
)


def compute(job: Job, work: Work) -> dict[str, Any]:
    images = Images(job.inputs["dataset"])
    rows = Ranges(*(images.splits[split] for split in folder.predicted_splits(set(images.splits), job.params.splits)))
    job.out.write_json(ROWS, [[one.start, one.stop] for one in rows.ranges])
    part = part_of(job.inputs["dataset"].manifest)
    if large := large_images(images, rows):
        job.out.write_json(FILE, large)
        part = max(part, LEAST_TILES)
    work.parts(predict_part, items_of(job.out).total, part, "images and tiles" if large else "images")
    facts: dict[str, Any] = {"items": len(rows), "part": part, "clusters": job.inputs["clusters"].manifest["k"]}
    if "classes" in job.inputs:
        named = job.inputs["classes"].manifest["classes"]
        facts |= {"clusters": len(named), "classes": named}
    counts = sum(np.asarray(marker["pixels"], np.int64) for marker in job.out.each_marker())
    return {**facts, "pixels": np.asarray(counts).tolist()}


def part_of(dataset: dict[str, Any]) -> int:
    """Images per part: a power of two, of images of a megapixel 2."""
    each = max(1.0, dataset["pixels"] / max(1, dataset["items"]))
    return 1 << int(np.clip(PART_PIXELS / each, 1, MOST_IMAGES)).bit_length() - 1


def predict_part(job: Job, part: Part) -> dict[str, Any]:
    """Masks of items start..stop−1: images that are predicted, of large ones their tiles."""
    images, chosen, items = Images(job.inputs["dataset"]), predicted_rows(job.out), items_of(job.out)
    predict = Predictor(job.inputs, job.roots["images"].location, job.params, job.execution.device)
    pixels = np.zeros(predict.count, np.int64)
    rows, failed = [], {}
    for item in range(part.start, part.stop):
        position, number = items.at(item)
        image = images.row(chosen[position])
        kept = tile_at(image["height"], image["width"], number) if len(items.rows(position)) > 1 else None
        try:
            mask, refined = predict(chosen[position], image, kept)
        except DecodeError as error:
            failed[image["path"]] = str(error)
            mask, refined = predict.unknown(image, kept)
        if mask is not None:
            pixels += np.bincount(mask.ravel(), minlength=predict.count)[: predict.count]
        facts = {key: image[key] for key in ("split", "id", "path", "height", "width")}
        y, x = (at.start for at in kept) if kept else (0, 0)
        rows.append({**facts, "y": y, "x": x, "mask": encode_png(mask), "mask_crf": encode_png(refined)})
    job.out.write_table(f"masks/{part.name}.parquet", pa.Table.from_pylist(rows, schema=SCHEMA))
    return {"failed": failed, "pixels": pixels.tolist()}


Maps = tuple[np.ndarray | None, np.ndarray | None]
"""Label maps without and with CRF."""


class Predictor:
    """From cached tokens, a head and a cut of clusters, or classes, to label maps."""

    def __init__(
        self,
        inputs: dict[str, Artifact],
        root: str,
        params: MasksParams,
        device: str,
        n: int | None = None,
        classes: Classes | None = None,
    ) -> None:
        """`inputs` holds the artifacts features, head and clusters, and classes where these are meant and not given; n
        groups, the clusters' own K by default."""
        self.root, self.params = root, params
        self.head = open_head(inputs["head"], device)
        self.clusters = read_clusters(inputs["clusters"])
        self.classes = read_classes(inputs["classes"]) if "classes" in inputs else classes
        self.cut = self.classes.cut if self.classes else self.clusters.cut(n)
        self.vectors = self.classes.vectors if self.classes else self.clusters.vectors
        clicked = "classes" in inputs and inputs["classes"].manifest["points"] > 0
        fitted = inputs["clusters"].manifest["found_by"] == "regrouped" or clicked
        self.sharpness = params.sharpness or (SCALE if fitted else PUBLISHED)
        self.views = Views(inputs["features"])
        self.failed = inputs["features"].manifest["failed"]
        self.reading = reading_of(inputs["features"])
        self.reader = ViewReader(root, self.reading)

    def __call__(self, index: int, image: dict[str, Any], kept: Rectangle | None = None) -> Maps:
        """Label maps of an image, a row of the images table and its number there, without and with CRF; or of one of
        its tiles. DecodeError where it cannot be decoded."""
        if kept is not None:
            return self._tile(index, image, kept)
        if image["height"] * image["width"] > MAX_PIXELS:
            raise DecodeError(f"it has more than {MAX_PIXELS / 1e6:.0f} megapixels")
        boxes = self.views.boxes(index)
        if not boxes:  # nothing but nodata or glass
            return self.unknown(image)
        plane = self.plane(index)
        if plane is None:
            raise DecodeError("it could not be decoded when the features were made")
        source = self.reader.source(image["path"], image["sha256"], image["size"])
        maps = label_maps(source.pixels(), plane, self.vectors, self.cut, self.params, self.sharpness)
        every = slice(0, source.size[0]), slice(0, source.size[1])
        return self._shown(maps, source, boxes, every)

    def _tile(self, index: int, image: dict[str, Any], kept: Rectangle) -> Maps:
        if image["path"] in self.failed:
            raise DecodeError(f"{image['path']}: {self.failed[image['path']]}")
        boxes = self.views.boxes_near(index, kept)
        if not boxes:
            return self.unknown(image, kept)
        shape, size = self.views.plane_size(index), (image["height"], image["width"])
        margin = ceil(2 * self.params.crf_params.bilateral_sxy) if self.params.crf else 0
        piece = piece_of(kept, size, shape, margin)
        plane = self.views.part(index, piece.part(shape), self._codes)
        if plane is None:
            raise DecodeError("it could not be decoded when the features were made")
        source = self.reader.source(image["path"], image["sha256"], image["size"])
        pixels = source.read(_box(piece.seen), _size(piece.seen))
        maps = label_maps(pixels, plane, self.vectors, self.cut, self.params, self.sharpness, piece)
        return self._shown(maps, source, boxes, kept)

    def plane(self, index: int) -> np.ndarray | None:
        """(rows, columns, D) float32: the codes of an image that prototypes are compared with; None where it could not
        be decoded."""
        return self.views.plane(index, self._codes)

    def _codes(self, tokens: np.ndarray) -> np.ndarray:
        return self.clusters.seen(self.head(tokens))

    def _shown(self, maps: Maps, source: Source, boxes: list[Window], kept: Rectangle) -> Maps:
        """Label maps in the numbers of classes, where these are meant, and `ignore_value` where there is nothing."""
        found = maps if self.classes is None else (self._named(maps[0]), self._named(maps[1]))
        if source.sparse:
            moved = [Window(box.y0 - kept[0].start, box.x0 - kept[1].start, *box[2:]) for box in boxes]
            empty = ~source.valid(_box(kept), _size(kept)) | uncovered(moved, *_size(kept))
            for mask in found:
                if mask is not None:
                    mask[empty] = ignore_value(self.count)
        return found

    @property
    def count(self) -> int:
        """How many groups or classes label maps may hold."""
        return len(self.cut.nodes) if self.classes is None else len(self.classes.names)

    def _named(self, ids: np.ndarray | None) -> np.ndarray | None:
        if ids is None or self.classes is None:
            return ids
        return self.classes.label(ids, ignore_value(self.count)).astype(mask_dtype(self.count))

    def unknown(self, image: dict[str, Any], kept: Rectangle | None = None) -> Maps:
        """The label maps of an image that could not be decoded, or of a tile of it; None where its size is not known,
        or too large."""
        n = self.count
        size = _size(kept) if kept else (image["height"], image["width"])
        small = 0 < size[0] * size[1] <= MAX_PIXELS
        mask = np.full(size, ignore_value(n), mask_dtype(n)) if small else None
        return mask, mask if self.params.crf else None


def _box(pixels: Rectangle) -> tuple[int, int, int, int]:
    return pixels[0].start, pixels[1].start, *_size(pixels)


def _size(pixels: Rectangle) -> tuple[int, int]:
    return pixels[0].stop - pixels[0].start, pixels[1].stop - pixels[1].start


def label_maps(
    image: np.ndarray,
    plane: np.ndarray | PlanePart,
    vectors: np.ndarray,
    cut: Cut,
    params: MasksParams,
    sharpness: float = PUBLISHED,
    piece: Piece | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The mask of an image (height, width, 3 uint8) with codes `plane`, and that with CRF where params want it.

    Of a `piece` of an image: from the pixels that are seen and the part of the plane that is needed, the maps of what
    is kept."""
    k, (tall, wide) = len(cut.nodes), image.shape[:2]
    height, width = piece.size if piece else (tall, wide)
    top, left = (at.start for at in piece.seen) if piece else (0, 0)
    inside = piece.inside if piece else ALL
    guided = params.upsampling == "guided"
    mask = np.empty((tall, wide), mask_dtype(k))
    refined = np.empty_like(mask) if params.crf else None
    if guided:
        mask[inside] = guided_winner(image, plane, vectors, cut, piece)
        if refined is None:
            return mask[inside], None
    for tile in tiles(k, tall, wide, params.crf_params):
        at = _moved(tile.seen[0], top), _moved(tile.seen[1], left)
        logits = cosine_logits(plane, vectors, cut, height, width, at)
        if not guided:
            mask[tile.kept] = winner(logits)[tile.inside]
        if refined is not None:
            logits *= sharpness
            refined[tile.kept] = dense_crf(image[tile.seen], log_softmax(logits), params.crf_params)[tile.inside]
    return mask[inside], None if refined is None else refined[inside]


def _moved(at: slice, by: int) -> slice:
    return slice(at.start + by, at.stop + by)


STAGE = Stage(
    "masks",
    version=6,
    encoding=2,
    inputs=("dataset", "features", "head", "clusters", "classes?"),
    roots=("images",),
    params=MasksParams,
    compute=compute,
)
