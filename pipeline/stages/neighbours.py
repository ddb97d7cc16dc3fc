"""neighbours: for each training view its nearest views of other images, by cosine of centred pooled features.

Artifact: `neighbours.parquet` (view, neighbours, similarities; nearest first, fewer than k where there are fewer other
images).
Source: STEGO, section 4.2 and its precomputed nearest neighbours.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.artifacts.features import Rows, read_center, training_views, view_pieces
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.extras import require
from pipeline.core.params import Params, borrowed


class NeighboursParams(Params):
    k: int = Field(7, ge=1)
    """Neighbours kept per view; the head draws one of them at each step."""
    exact_below: int = Field(200_000, ge=0)
    """Up to this many views the search is exact; above, an IVF index is probed until its recall on a sample is 0.98. Of
    more than 100 000 training views a sample of so many is searched."""
    center: str = borrowed("head.center")

    def packages(self) -> dict[str, str]:
        return {"faiss": "the search for neighbours"}


RECALL = 0.98
SAMPLE = 1000


def compute(job: Job, work: Work) -> dict[str, Any]:
    require("faiss", "the search for neighbours")
    params: NeighboursParams = job.params
    features = job.inputs["features"]
    rows = training_views(features)
    vectors, valid = pooled(features, rows, params.center)
    if not valid.all():
        rows, vectors = rows[valid], vectors[valid]
    if len(rows) == 0:
        raise ValueError("no training view has features")
    content = view_pieces(features).take(rows)["sha256"]
    images = np.asarray(content.combine_chunks().dictionary_encode().indices)
    most = int(np.bincount(images).max())

    index, facts = build_index(vectors, params.exact_below)
    found, similarity = search_others(index, vectors, images, params.k, most, work)
    there = found >= 0
    ends = np.concatenate([[0], there.sum(1).cumsum()])
    columns = {
        "view": pa.array(rows, pa.int64()),
        "neighbours": lists(ends, pa.array(rows[found[there]], pa.int64())),
        "similarities": lists(ends, pa.array(similarity[there], pa.float32())),
    }
    job.out.write_table("neighbours.parquet", pa.table(columns))
    return {"items": len(rows), **facts}


def lists(ends: np.ndarray, values: pa.Array) -> pa.Array:
    """A column of lists, one after the other in `values`; list i begins at ends[i] and stops at ends[i + 1]."""
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)


def pooled(features: Any, rows: np.ndarray, center: str) -> tuple[np.ndarray, np.ndarray]:
    """Unit pooled features (row, channel) float32 of the given views, centred or not, and which of them are finite."""
    mean = Rows(features, "mean").read(rows)
    mean -= read_center(features, center)
    norms = np.linalg.norm(mean, axis=1, keepdims=True)
    mean /= norms.clip(1e-12)
    return mean, np.isfinite(norms[:, 0])


def build_index(vectors: np.ndarray, exact_below: int) -> tuple[Any, dict[str, Any]]:
    """An inner-product FAISS index over unit vectors (n, channel), and what was measured on the way."""
    import faiss

    n, channels = vectors.shape
    flat: Any = faiss.IndexFlatIP(channels)
    if n <= exact_below:
        if faiss.get_num_gpus():
            flat = faiss.index_cpu_to_all_gpus(flat)
        flat.add(vectors)
        return flat, {"index": "exact", "recall": 1.0}
    lists = min(n, int(4 * np.sqrt(n)))
    index = faiss.IndexIVFFlat(flat, channels, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = 0
    generator = np.random.default_rng(0)
    index.train(vectors[generator.choice(n, min(n, 64 * lists), replace=False)])
    index.add(vectors)
    queries = vectors[generator.choice(n, min(n, SAMPLE), replace=False)]
    near = min(10, n)
    exact = faiss.knn(queries, vectors, near, metric=faiss.METRIC_INNER_PRODUCT)[1]
    index.nprobe, recall = 1, 0.0
    while True:
        got = index.search(queries, near)[1]
        recall = float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(got, exact, strict=True)]))
        if recall >= RECALL or index.nprobe >= lists:
            return index, {"index": f"ivf{lists}", "nprobe": int(index.nprobe), "recall": round(recall, 4)}
        index.nprobe = min(lists, index.nprobe * 2)


CANDIDATES = 2**22
"""Views that are looked at together: their cosines, places and order take 24 bytes each."""


def search_others(
    index: Any, vectors: np.ndarray, images: np.ndarray, k: int, most: int, work: Work | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest views of other images: (n, k) int64 positions, −1 where there are none, and their cosines.

    `images` numbers the image of each view by content, so that a copy of an image is not its neighbour; `most` is the
    largest number of views of one image.
    """
    n = len(vectors)
    found = np.full((n, k), -1, np.int64)
    similarity = np.full((n, k), np.nan, np.float32)
    step = int(np.clip(CANDIDATES // (k + most), 1, 4096))
    for start in range(0, n, step):
        if work:
            work.tick(start, n, "views")
        stop = min(start + step, n)
        values, near = index.search(vectors[start:stop], min(n, k + most))
        other = (near >= 0) & (images[near] != images[start:stop, None])
        order = np.argsort(~other, axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(other, order, 1)
        width = order.shape[1]
        found[start:stop, :width] = np.where(kept, np.take_along_axis(near, order, 1), -1)
        similarity[start:stop, :width] = np.where(kept, np.take_along_axis(values, order, 1), np.nan)
    return found, similarity


STAGE = Stage("neighbours", version=1, encoding=2, inputs=("features",), params=NeighboursParams, compute=compute)
