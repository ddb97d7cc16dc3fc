"""report: one HTML file that shows what was found. Gathers what `report_page` draws.

Artifact: `report.html`, self-contained.
"""

from typing import Any

import numpy as np
from pydantic import Field

from pipeline.artifacts.clusters import fewer, read_clusters
from pipeline.artifacts.features import Tokens
from pipeline.artifacts.head import COLLAPSED, TrainedHead, collapse
from pipeline.artifacts.labels import LabelMaps
from pipeline.artifacts.masks import decode_png, read_masks
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.params import Params
from pipeline.images.formats import open_source
from pipeline.images.pixels import DecodeError
from pipeline.images.source import Source
from pipeline.numerics.palette import palette
from pipeline.report.page import Page, Picture, render

PROTOCOLS = {
    "full": "every labelled pixel at the image's own size",
    "stego": "the centre 320 × 320 pixels of each image at a shorter side of 320",
}
"""What the protocols of `scores` score."""
HEADS = {
    "stego": "STEGO head",
    "stegoflow": "stegoflow head",
    "smooseg": "SmooSeg head",
    "cause": "CAUSE head",
    "primaps": "PriMaPs head",
    "pca": "PCA head",
    "none": "tokens as codes",
}
"""What the page calls the methods of `head`."""


class ReportParams(Params):
    images: int = Field(12, ge=0)
    """Images shown beside their masks, evenly spaced over the predicted ones."""
    patches: int = Field(10, ge=0)
    """Patches per cluster in the gallery: the tokens nearest to its centroid, at most one per image."""
    gallery_images: int = Field(60, ge=1)
    """Images that the gallery's patches are drawn from."""

    def packages(self) -> dict[str, str]:
        return {"jinja2": "the report"}


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: ReportParams = job.params
    found = job.inputs["scores"].read_json("scores.json")
    maps = LabelMaps(job.inputs["labels"], job.roots["labels"]) if "labels" in job.inputs else None
    k = job.inputs["masks"].manifest["clusters"]
    shown = pictures(job, maps, params.images)
    work.tick(1, 3, "sections")
    patches = gallery(job, params)
    work.tick(2, 3, "sections")
    losses = job.inputs["head"].read_table("losses.parquet")
    method = job.inputs["head"].manifest["params"]["method"]
    product = "cluster_crf" if "cluster_crf" in found["matching"] else "cluster"
    features = job.inputs["features"].manifest
    suggestion = job.inputs.get("suggestion")
    curve = suggestion.read_table("curve.parquet", ["k", "stability"]) if suggestion else None
    page = Page(
        title="Segmentation report",
        facts=facts(job, features, k, found),
        stages=[stage_row(artifact) for artifact in job.inputs.values()],
        scores={method: fractions(value) for method, value in found["scores"].items()},
        classes=found["classes"],
        matching=found["matching"].get(product, []),
        confusion=np.asarray(found["confusion"][product]) if product in found["confusion"] else None,
        cluster_share=found["cluster_share"],
        label_free=found["label_free"],
        head=HEADS.get(method, f"{method} head"),
        losses={name: np.asarray(losses[name]) for name in losses.column_names},
        pictures=shown,
        gallery=patches,
        colours=palette(k),
        suggestion=suggestion.read_json("suggestion.json") if suggestion else None,
        stability={name: np.asarray(curve[name]) for name in curve.column_names} if curve and len(curve) else None,
    )
    html = render(page).encode()
    job.out.write("report.html", html)
    work.tick(3, 3, "sections")
    return {"items": len(shown), "bytes": len(html)}


def facts(job: Job, features: dict[str, Any], k: int, found: dict[str, Any]) -> dict[str, str]:
    """What a reader must know to weigh the numbers."""
    params = features["params"]
    weights = features["weights"]
    if weights == "packaged":
        weights = "⚠ packaged: a DINOv2 ViT-S/14 encoder trained further for saliency by its author, not Meta's weights"
    dataset = job.inputs["dataset"].manifest
    splits = ", ".join(f"{count} {name}" for name, count in dataset["splits"].items())
    block = "last" if params["block"] is None else str(params["block"])
    size, grid = params["views"]["size"], features["shape"][1:3]
    return {
        "Images": "; ".join([f"{dataset['items']} ({splits})", *dataset.get("notes", [])]),
        "Backbone": f"{params['backbone']}, block {block}, {params['facet']}s",
        "Weights": weights,
        "Views": f"{params['views']['kind']}, {size[0]}×{size[1]} px, {grid[0]}×{grid[1]} tokens",
        "Head": job.inputs["head"].manifest["params"]["method"],
        "Codes": codes(job.inputs["head"].manifest),
        "Clusters": f"{k}; ⚠ {trouble}" if (trouble := fewer(job.inputs["clusters"].manifest)) else str(k),
        "Protocol": f"{found['protocol']}: {PROTOCOLS[found['protocol']]}, one Hungarian match over "
        f"{found['images']} labelled images"
        if found["images"]
        else "no labels: nothing to score against",
        "Images that could not be decoded": str(len(features["failed"])),
    }


def codes(head: dict[str, Any]) -> str:
    """How many groups the codes form, with a warning where there is hardly more than one."""
    groups = head.get("groups")
    if groups is None:
        return "not looked at"
    warning = f"; ⚠ {collapse(head['params']['method'])}" if groups < COLLAPSED else ""
    return f"{groups:.1f} effective groups{warning}"


def fractions(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Scores in percent as the fractions that the page formats."""
    if value is None:
        return None
    part = {key: None if value[key] is None else value[key] / 100 for key in ("accuracy", "miou")}
    return {**part, "iou": [None if iou is None else iou / 100 for iou in value["iou"]]}


def stage_row(artifact: Artifact) -> dict[str, Any]:
    """One line of the stages table."""
    manifest = artifact.manifest
    row = {key: manifest[key] for key in ("stage", "fingerprint", "seconds", "items", "version", "params")}
    return {**row, "created": manifest["written"]}


def pictures(job: Job, maps: LabelMaps | None, count: int) -> list[Picture]:
    """Evenly spaced predicted images with their masks and labels."""
    total = job.inputs["masks"].manifest["items"]
    wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    found = []
    files = _files(job)
    for number, row in enumerate(read_masks(job.inputs["masks"])):
        if number not in wanted or row["mask"] is None:
            continue
        try:
            image = open_source(job.roots["dataset"], row["path"], *files[row["path"]]).pixels()
        except DecodeError:
            continue
        label = maps.read(row["split"], row["id"]) if maps else None
        if label is not None and maps:
            label = np.where((label == maps.ignore) | (label >= len(maps.names)), -1, label.astype(np.int32))
        masks = {"clusters": decode_png(row["mask"])}
        if row["mask_crf"]:
            masks["clusters + CRF"] = decode_png(row["mask_crf"])
        found.append(Picture(row["id"], image, masks, label))
    return found


def gallery(job: Job, params: ReportParams) -> list[list[np.ndarray]]:
    """Per cluster, patches around the tokens that lie nearest to one of its prototypes, at most one of each image."""
    features = job.inputs["features"]
    clusters = read_clusters(job.inputs["clusters"])
    found: list[list[np.ndarray]] = [[] for _ in range(clusters.k)]
    table = features.read_table("views.parquet")
    rows = np.flatnonzero(np.asarray(table["training"]))
    rows = rows[np.linspace(0, len(rows) - 1, min(params.gallery_images, len(rows))).round().astype(int)]
    views = table.take(rows).to_pylist()
    cosines = clusters.cosines(TrainedHead(job.inputs["head"])(Tokens(features).read(rows)))
    columns = cosines.shape[2]
    own = cosines.argmax(-1)
    wanted: dict[int, list[tuple[int, int]]] = {}
    for cluster in range(clusters.k):
        value = np.where(own == cluster, cosines[..., cluster], -np.inf).reshape(len(views), -1)
        best = value.argmax(1)
        order = np.argsort(-value[np.arange(len(views)), best])[: params.patches]
        for view in order:
            if np.isfinite(value[view, best[view]]):
                wanted.setdefault(int(view), []).append((cluster, int(best[view])))
    for number, picks in sorted(wanted.items()):
        view = views[number]
        image = open_source(job.roots["dataset"], view["path"], view["sha256"], view["bytes"])
        for cluster, token in picks:
            row, column = divmod(token, columns)
            found[cluster].append(_patch(image, view, row, column, cosines.shape[1:3]))
    return found


def _patch(image: Source, view: dict[str, Any], row: int, column: int, grid: tuple[int, ...]) -> np.ndarray:
    """The neighbourhood of a token, five tokens wide, moved inside the image."""
    step_y, step_x = view["height"] / grid[0], view["width"] / grid[1]
    side = int(min(max(24, 5 * max(step_y, step_x)), *image.size))
    y, x = view["y0"] + (row + 0.5) * step_y - side / 2, view["x0"] + (column + 0.5) * step_x - side / 2
    y, x = (int(np.clip(v, 0, limit - side)) for v, limit in zip((y, x), image.size, strict=True))
    return image.read((y, x, side, side), (side, side))


def _files(job: Job) -> dict[str, tuple[str, int]]:
    """Digest and bytes of every image, by path."""
    table = job.inputs["dataset"].read_table("images.parquet", ["path", "sha256", "size"])
    return {row["path"]: (row["sha256"], row["size"]) for row in table.to_pylist()}


STAGE = Stage(
    "report",
    version=2,
    encoding=1,
    inputs=(
        "dataset",
        "labels?",
        "features",
        "suggestion?",
        "neighbours",
        "head",
        "clusters",
        "probe?",
        "baseline",
        "masks",
        "scores",
    ),
    params=ReportParams,
    compute=compute,
    optional=True,
)
