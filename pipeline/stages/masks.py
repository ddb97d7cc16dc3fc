"""masks: a label map for every predicted image, at the image's own resolution, with and without dense CRF.

Artifact: one Parquet file per part of images: split, id, path, height, width, `mask` and `mask_crf` (PNG bytes, uint8
or uint16 for more than 255 clusters; the largest value of the type marks an image that could not be decoded).
Sources: STEGO, section 4.3 (mirror averaging, bilinear upsampling of codes, dense CRF); `pipeline.numerics.guided`.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from pipeline.artifacts.head import open_head
from pipeline.artifacts.masks import encode_png, ignore_value, mask_dtype
from pipeline.artifacts.planes import Views
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.params import Params
from pipeline.datasets import folder
from pipeline.images import files, formats
from pipeline.numerics.crf import CrfParams, dense_crf, tiles
from pipeline.numerics.guided import guided_logits
from pipeline.numerics.regroup import SCALE
from pipeline.numerics.views import cosine_logits, winner

PART = 8
"""Images per part: a few seconds of CRF."""


class MasksParams(Params):
    splits: list[str] = Field(default_factory=lambda: ["val"])
    """Splits that get masks. A folder with a single split is predicted on itself whatever stands here."""
    upsampling: Literal["guided", "bilinear"] = "guided"
    """Of the masks without CRF: `guided` by the image's edges, or `bilinear` as published. The CRF starts from
    `bilinear`. The default was set after scores on four labelled sets were seen (docs/decisions/010)."""
    crf: bool = True
    """Also write masks refined by a dense CRF; false writes those without alone."""
    crf_params: CrfParams = CrfParams()
    sharpness: float | None = Field(None, gt=0)
    """The CRF starts from log-softmax(sharpness × cosine to each cluster). None: 2, as published; for regrouped
    clusters 20, the scale that they were fitted at."""

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
    table = job.inputs["dataset"].read_table("images.parquet")
    rows = predicted_images(table, job.params.splits)
    job.out.write_json("images.json", rows.tolist())
    work.parts(predict_part, len(rows), PART, "images")
    return {
        "items": len(rows),
        "clusters": len(job.inputs["clusters"].read_tensors("clusters.safetensors")["centroids"]),
    }


def predicted_images(dataset: pa.Table, splits: list[str]) -> np.ndarray:
    """Rows of the images table that get masks."""
    split = np.asarray(dataset["split"].to_pylist())
    return np.flatnonzero(np.isin(split, folder.predicted_splits(set(split), splits)))


def predict_part(job: Job, part: Part) -> dict[str, Any]:
    """Masks of images start..stop−1 of those that are predicted."""
    params: MasksParams = job.params
    dataset = job.inputs["dataset"].held("images.parquet", Artifact.read_table)
    chosen = job.out.held("images.json", Artifact.read_json)[part.start : part.stop]
    head = open_head(job.inputs["head"], job.execution.device)
    centroids = job.inputs["clusters"].read_tensors("clusters.safetensors")["centroids"]
    fitted = job.inputs["clusters"].manifest.get("found_by") == "regrouped"
    sharpness = params.sharpness or (SCALE if fitted else PUBLISHED)
    views = Views(job.inputs["features"])
    rows, failed = [], []
    for index, image in zip(chosen, dataset.take(chosen).to_pylist(), strict=True):
        plane = views.plane(index, head)
        mask = refined = None
        if plane is None:
            failed.append(image["path"])
            if image["height"]:
                mask = np.full(
                    (image["height"], image["width"]), ignore_value(len(centroids)), mask_dtype(len(centroids))
                )
            refined = mask if params.crf else None
        else:
            data = files.read_checked(job.roots["images"].location, image["path"], image["sha256"])
            mask, refined = label_maps(formats.decode(data, image["path"]), plane, centroids, params, sharpness)
        facts = {key: image[key] for key in ("split", "id", "path", "height", "width")}
        rows.append({**facts, "mask": encode_png(mask), "mask_crf": encode_png(refined)})
    job.out.write_table(f"masks/{part.name}.parquet", pa.Table.from_pylist(rows, schema=SCHEMA))
    return {"failed": failed}


def label_maps(
    image: np.ndarray, plane: np.ndarray, centroids: np.ndarray, params: MasksParams, sharpness: float = PUBLISHED
) -> tuple[np.ndarray, np.ndarray | None]:
    """The mask of an image (height, width, 3 uint8) with codes `plane`, and that with CRF where params want it."""
    k, height, width = len(centroids), *image.shape[:2]
    plane = plane[..., : centroids.shape[1]]  # clusters of runs from before codes had detail know the first channels
    guided = params.upsampling == "guided"
    mask = np.empty((height, width), mask_dtype(k))
    refined = np.empty_like(mask) if params.crf else None
    if guided:
        mask[:] = winner(guided_logits(image, plane, centroids))
        if refined is None:
            return mask, None
    for tile in tiles(k, height, width, params.crf_params):
        logits = cosine_logits(plane, centroids, height, width, tile.seen)
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
    version=3,
    encoding=1,
    inputs=("dataset", "features", "head", "clusters"),
    roots=("images",),
    params=MasksParams,
    compute=compute,
)
