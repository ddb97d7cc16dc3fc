"""search: what finds patches like a patch, and the nearest prototypes of every patch. No run makes it: `explore` does.

Artifact: `basis.safetensors` with `basis` (D, C) float32 and `center` (D,) float32; one file per part of images,
`tokens/<part>.safetensors`, with `shape` (image, 2) int32, the rows and columns of each image's plane (0, 0 of one that
could not be decoded), and for their positions, image after image: `numbers` (n, C) int8 and `scale` (n,) float32 of the
centred token (`pipeline.numerics.compact`), `coarse` (n, 32) int8, the first of these numbers once more, so that a
search reads no others; `nearest` and `second` (n,) uint16, the two nearest prototypes, the cosine of the first,
`cosine` (n,) float16, and by how much that is larger than that of the second, `lead` (n,) float16.
"""

from typing import Any

import numpy as np
from pydantic import Field

from pipeline.artifacts import search
from pipeline.artifacts.clusters import read_clusters
from pipeline.artifacts.features import Tokens, read_center, training_views
from pipeline.artifacts.head import open_head
from pipeline.artifacts.planes import Views
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.params import Params
from pipeline.numerics.compact import basis, compact
from pipeline.numerics.kmeans import normalise
from pipeline.numerics.views import ALL

COARSE = 32
"""Components that a search compares first."""
PART = 32
"""Images per part."""
BAND = 2**16
"""Positions of a plane that are held at a time."""
VIEWS = 64
"""Training views that the basis is found from."""


class SearchParams(Params):
    components: int = Field(384, ge=1)
    """Components of a token that are kept, at most: of 100 of the most similar patches 99 are found with 384 of 384, 97
    with 256."""


def compute(job: Job, work: Work) -> dict[str, Any]:
    job.out.write_tensors("basis.safetensors", find_basis(job.inputs["features"], job.params.components))
    count = job.inputs["dataset"].manifest["items"]
    work.parts(index_part, count, PART, "images")
    return {"items": count}


def find_basis(features: Artifact, components: int) -> dict[str, np.ndarray]:
    """`basis` and `center`, from some training views."""
    center = read_center(features, "dataset")
    rows = training_views(features)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(VIEWS, len(rows))).round().astype(int))]
    tokens = Tokens(features).read(rows).astype(np.float32) - center
    seen = tokens[np.isfinite(tokens[:, 0, 0, 0])].reshape(-1, len(center))
    return {"basis": basis(normalise(seen), components), "center": center}


def index_part(job: Job, part: Part) -> dict[str, Any]:
    """The positions of images start..stop−1."""
    indexer = Indexer(job.inputs, job.out.read_tensors("basis.safetensors"), job.execution.device)
    job.out.write_tensors(f"tokens/{part.name}.safetensors", indexer.images(range(part.start, part.stop)))
    return {}


class Indexer:
    """From cached tokens to what is kept of an image."""

    def __init__(self, inputs: dict[str, Artifact], tensors: dict[str, np.ndarray], device: str) -> None:
        self.basis, self.center = tensors["basis"], tensors["center"]
        self.head = open_head(inputs["head"], device)
        self.clusters = read_clusters(inputs["clusters"])
        self.views = Views(inputs["features"])

    def planes(self, image: int, part: tuple[slice, slice] = ALL) -> tuple[np.ndarray, np.ndarray] | None:
        """The centred tokens (rows, columns, D) and the codes (rows, columns, ·) of an image, a row of the table of
        images, or of some rows and columns of it; None where it could not be decoded."""

        def both(tokens: np.ndarray) -> np.ndarray:
            return np.concatenate([tokens.astype(np.float32), self.clusters.seen(self.head(tokens))], -1)

        if part == ALL:
            plane = self.views.plane(image, both)
        else:
            found = self.views.part(image, part, both)
            # Where no view is (nodata, glass) there are no tokens either.
            empty = (*(at.stop - at.start for at in part), len(self.center) + self.clusters.vectors.shape[1])
            plane = np.zeros(empty, np.float32) if found is None else found.values
        return None if plane is None else (plane[..., : len(self.center)] - self.center, plane[..., len(self.center) :])

    def shape(self, image: int) -> tuple[int, int]:
        """(rows, columns) of an image's plane; (0, 0) without views, or of a large one that could not be decoded."""
        views = self.views.of(image)["view"]
        if not len(views):
            return 0, 0
        rows, columns = self.views.plane_size(image)
        if rows * columns > BAND and not np.isfinite(self.views.tokens.read(views.to_numpy()[:1])[0, 0, 0, 0]):
            return 0, 0
        return rows, columns

    def images(self, rows: range) -> dict[str, np.ndarray]:
        """What the artifact holds of some images, by name."""
        each = [self(row) for row in rows]
        found = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        return {**found, "shape": found["shape"].reshape(-1, 2)}

    def __call__(self, image: int) -> dict[str, np.ndarray]:
        """What the artifact holds of one image, by name."""
        rows, columns = self.shape(image)
        if rows * columns <= BAND:
            return self._compact(self.planes(image))
        step = max(1, BAND // columns)
        bands = [(slice(top, min(top + step, rows)), slice(0, columns)) for top in range(0, rows, step)]
        each = [self._compact(self.planes(image, band)) for band in bands]
        found = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
        return {**found, "shape": np.array([sum(one["shape"][0] for one in each), columns], np.int32)}

    def _compact(self, planes: tuple[np.ndarray, np.ndarray] | None) -> dict[str, np.ndarray]:
        tokens, codes = planes or (np.zeros((0, 0, len(self.center))), np.zeros((0, 0, self.clusters.vectors.shape[1])))
        numbers, scale = compact(tokens.reshape(-1, len(self.center)), self.basis)
        cosines = normalise(codes.reshape(-1, codes.shape[-1])) @ self.clusters.vectors.T
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :2]
        order = np.repeat(order, 2, axis=1)[:, [0, -1]]  # of a single prototype, itself twice
        best = np.take_along_axis(cosines, order, 1)
        return {
            "numbers": numbers,
            "coarse": np.ascontiguousarray(numbers[:, :COARSE]),
            "scale": scale,
            "nearest": order[:, 0].astype(np.uint16),
            "second": order[:, 1].astype(np.uint16),
            "cosine": best[:, 0].astype(np.float16),
            "lead": (best[:, 0] - best[:, 1]).astype(np.float16),
            "shape": np.array(tokens.shape[:2], np.int32),
        }


STAGE = Stage(
    search.STAGE,
    version=search.VERSION,
    encoding=1,
    inputs=("dataset", "features", "head", "clusters"),
    params=SearchParams,
    compute=compute,
)
