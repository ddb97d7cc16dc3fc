"""masks: a label map for every predicted image, at the image's own resolution, with and without dense CRF.

Artifact: one Parquet file per part of images: split, id, path, height, width, `mask` and `mask_crf` (PNG bytes, uint8
or uint16 for more than 255 clusters; the largest value of the type marks pixels without content, and an image that
could not be decoded).
Sources: STEGO, section 4.3 (mirror averaging, bilinear upsampling of codes, dense CRF); `pipeline.numerics.guided`.
"""

import logging
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from pipeline.artifacts.classes import Classes, read_classes
from pipeline.artifacts.clusters import read_clusters
from pipeline.artifacts.head import open_head
from pipeline.artifacts.images import Images, Ranges
from pipeline.artifacts.masks import ROWS, encode_png, ignore_value, mask_dtype, predicted_rows
from pipeline.artifacts.planes import Views
from pipeline.artifacts.view_reader import reading_of
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.params import Params
from pipeline.datasets import finding, folder
from pipeline.images.formats import open_source
from pipeline.images.pixels import DecodeError
from pipeline.images.source import MAX_PIXELS
from pipeline.numerics.crf import CrfParams, dense_crf, tiles
from pipeline.numerics.guided import guided_winner
from pipeline.numerics.prototypes import SCALE
from pipeline.numerics.tree import Cut
from pipeline.numerics.views import cosine_logits, uncovered, winner

log = logging.getLogger("stegoflow")

PART_PIXELS = 2**23
"""Pixels of a part: a few seconds of CRF."""
MOST_IMAGES = 256
"""Images of a part, at most."""


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
        ("mask", pa.binary()),
        ("mask_crf", pa.binary()),
    ]
)


def compute(job: Job, work: Work) -> dict[str, Any]:
    images = Images(job.inputs["dataset"])
    rows = Ranges(*(images.splits[split] for split in folder.predicted_splits(set(images.splits), job.params.splits)))
    job.out.write_json(ROWS, [[one.start, one.stop] for one in rows.ranges])
    warn_of_large(images, rows)
    part = part_of(job.inputs["dataset"].manifest)
    work.parts(predict_part, len(rows), part, "images")
    facts: dict[str, Any] = {"items": len(rows), "part": part, "clusters": job.inputs["clusters"].manifest["k"]}
    if "classes" in job.inputs:
        named = job.inputs["classes"].manifest["classes"]
        facts |= {"clusters": len(named), "classes": named}
    counts = sum(np.asarray(marker["pixels"], np.int64) for marker in job.out.each_marker())
    return {**facts, "pixels": np.asarray(counts).tolist()}


def part_of(dataset: dict[str, Any]) -> int:
    """Images per part: a power of two, of images of a megapixel 8."""
    each = max(1.0, dataset["pixels"] / max(1, dataset["items"]))
    return 1 << int(np.clip(PART_PIXELS / each, 1, MOST_IMAGES)).bit_length() - 1


def warn_of_large(images: Images, rows: Ranges) -> None:
    """Warn of images that get no mask because they are too large."""
    large: list[str] = []
    for one in rows.ranges:
        for start in range(one.start, one.stop, MOST_IMAGES * 16):
            some = images.pieces.rows(start, min(start + MOST_IMAGES * 16, one.stop))
            pixels = np.asarray(some["height"], np.int64) * np.asarray(some["width"])
            large += some["path"].filter(pa.array(pixels > MAX_PIXELS)).to_pylist()
    if large:
        log.warning(
            "%d of %d images get no mask, because they have more than %.0f megapixels: %s",
            *(len(large), len(rows), MAX_PIXELS / 1e6, finding.some(large)),
        )


def predict_part(job: Job, part: Part) -> dict[str, Any]:
    """Masks of images start..stop−1 of those that are predicted."""
    chosen = list(predicted_rows(job.out)[part.start : part.stop])
    found = Images(job.inputs["dataset"]).pieces.take(np.asarray(chosen)).to_pylist()
    predict = Predictor(job.inputs, job.roots["images"].location, job.params, job.execution.device)
    pixels = np.zeros(predict.count, np.int64)
    rows, failed = [], {}
    for index, image in zip(chosen, found, strict=True):
        try:
            mask, refined = predict(index, image)
        except DecodeError as error:
            failed[image["path"]] = str(error)
            mask, refined = predict.unknown(image)
        if mask is not None:
            pixels += np.bincount(mask.ravel(), minlength=predict.count)[: predict.count]
        facts = {key: image[key] for key in ("split", "id", "path", "height", "width")}
        rows.append({**facts, "mask": encode_png(mask), "mask_crf": encode_png(refined)})
    job.out.write_table(f"masks/{part.name}.parquet", pa.Table.from_pylist(rows, schema=SCHEMA))
    return {"failed": failed, "pixels": pixels.tolist()}


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
        self.reading = reading_of(inputs["features"])

    def __call__(self, index: int, image: dict[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Label maps of an image, a row of the images table and its number there, without and with CRF. DecodeError
        where it cannot be decoded, or is too large for a mask."""
        if image["height"] * image["width"] > MAX_PIXELS:
            raise DecodeError(f"it has more than {MAX_PIXELS / 1e6:.0f} megapixels")
        boxes = self.views.boxes(index)
        if not boxes:  # nothing but nodata or glass
            return self.unknown(image)
        plane = self.plane(index)
        if plane is None:
            raise DecodeError("it could not be decoded when the features were made")
        source = open_source(self.root, image["path"], image["sha256"], image["size"], self.reading)
        maps = label_maps(source.pixels(), plane, self.vectors, self.cut, self.params, self.sharpness)
        found = maps if self.classes is None else (self._named(maps[0]), self._named(maps[1]))
        if source.sparse:
            empty = ~source.valid((0, 0, *source.size), source.size) | uncovered(boxes, *source.size)
            for mask in found:
                if mask is not None:
                    mask[empty] = ignore_value(self.count)
        return found

    def plane(self, index: int) -> np.ndarray | None:
        """(rows, columns, D) float32: the codes of an image that prototypes are compared with; None where it could not
        be decoded."""
        return self.views.plane(index, lambda tokens: self.clusters.seen(self.head(tokens)))

    @property
    def count(self) -> int:
        """How many groups or classes label maps may hold."""
        return len(self.cut.nodes) if self.classes is None else len(self.classes.names)

    def _named(self, ids: np.ndarray | None) -> np.ndarray | None:
        if ids is None or self.classes is None:
            return ids
        return self.classes.label(ids, ignore_value(self.count)).astype(mask_dtype(self.count))

    def unknown(self, image: dict[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The label maps of an image that could not be decoded; None where its size is not known, or too large."""
        n = self.count
        size = (image["height"], image["width"])
        small = 0 < image["height"] * image["width"] <= MAX_PIXELS
        mask = np.full(size, ignore_value(n), mask_dtype(n)) if small else None
        return mask, mask if self.params.crf else None


def label_maps(
    image: np.ndarray,
    plane: np.ndarray,
    vectors: np.ndarray,
    cut: Cut,
    params: MasksParams,
    sharpness: float = PUBLISHED,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The mask of an image (height, width, 3 uint8) with codes `plane`, and that with CRF where params want it."""
    k, height, width = len(cut.nodes), *image.shape[:2]
    guided = params.upsampling == "guided"
    mask = np.empty((height, width), mask_dtype(k))
    refined = np.empty_like(mask) if params.crf else None
    if guided:
        mask[:] = guided_winner(image, plane, vectors, cut)
        if refined is None:
            return mask, None
    for tile in tiles(k, height, width, params.crf_params):
        logits = cosine_logits(plane, vectors, cut, height, width, tile.seen)
        if not guided:
            mask[tile.kept] = winner(logits)[tile.inside]
        if refined is not None:
            logits *= sharpness
            refined[tile.kept] = dense_crf(image[tile.seen], log_softmax(logits), params.crf_params)[tile.inside]
    return mask, refined


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the first axis, in place and without overflow."""
    logits -= logits.max(0)
    logits -= np.log(np.exp(logits).sum(0))
    return logits


STAGE = Stage(
    "masks",
    version=5,
    encoding=2,
    inputs=("dataset", "features", "head", "clusters", "classes?"),
    roots=("images",),
    params=MasksParams,
    compute=compute,
)
