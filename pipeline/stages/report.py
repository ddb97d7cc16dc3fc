"""report: one HTML file that shows what was found: pictures beside the baseline, groups, scores, settings.

Artifact: `report.html`, self-contained.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.artifacts.baseline import Baseline
from pipeline.artifacts.classes import read_classes
from pipeline.artifacts.clusters import fewer, read_clusters
from pipeline.artifacts.features import Tokens, training_views, view_pieces
from pipeline.artifacts.head import COLLAPSED, TrainedHead, collapse
from pipeline.artifacts.images import Images
from pipeline.artifacts.labels import LabelMaps
from pipeline.artifacts.mask_tiles import Tiled, predicted_rows, reduced
from pipeline.artifacts.masks import stored_map
from pipeline.artifacts.scores import NAMES, PROTOCOLS, Annotated
from pipeline.artifacts.view_reader import reading_of
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.params import Params
from pipeline.images.formats import open_source
from pipeline.images.pixels import DecodeError
from pipeline.images.source import Source
from pipeline.numerics.kmeans import normalise
from pipeline.report.page import Page, Picture, Score, render
from pipeline.report.raster import fitted

PHOTO_SIDE, PATCH_SIDE = 480, 96
"""The longer side, in pixels, of an embedded photograph and of a patch in the gallery."""


class ReportParams(Params):
    images: int = Field(12, ge=0)
    """Images shown beside their masks, evenly spaced over the predicted ones."""
    patches: int = Field(10, ge=0)
    """Patches per group in the gallery: the tokens nearest to it, at most one per image."""
    gallery_images: int = Field(60, ge=1)
    """Images that the gallery's patches are drawn from."""

    def packages(self) -> dict[str, str]:
        return {"jinja2": "the report"}


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: ReportParams = job.params
    shown = pictures(job, params.images)
    work.tick(1, 3, "sections")
    patches = gallery(job, params)
    work.tick(2, 3, "sections")
    found = job.inputs["scores"].read_json("scores.json")
    named = job.inputs["masks"].manifest.get("classes", [])
    method = "annotated" if named else "cluster"
    result = f"{method}_crf" if f"{method}_crf" in found["matching"] else method
    losses = job.inputs["head"].read_table("losses.parquet")
    suggestion = job.inputs.get("suggestion")
    curve = suggestion.read_table("curve.parquet", ["k", "stability"]) if suggestion else None
    features, head = job.inputs["features"].manifest, job.inputs["head"].manifest
    page = Page(
        title=title(job),
        images=job.inputs["dataset"].manifest["splits"],
        share=found["cluster_share"],
        given=[(row["name"], row["color"]) for row in named],
        method=f"the head {head['params']['method']} on {features['params']['backbone']}",
        warnings=warnings(job),
        scores=score_rows(found),
        label_free={
            name: {NAMES["cluster"].name: value, NAMES["baseline"].name: found["baseline_label_free"][name]}
            for name, value in found["label_free"].items()
        },
        classes=found["classes"],
        matching=found["matching"].get(result, []),
        baseline_matching=found["matching"].get("baseline", []),
        confusion=np.asarray(found["confusion"][result]) if result in found["confusion"] else None,
        pictures=shown,
        gallery=patches,
        suggestion=suggestion.read_json("suggestion.json") if suggestion else None,
        stability={name: np.asarray(curve[name]) for name in curve.column_names} if curve else None,
        losses={name: np.asarray(losses[name]) for name in losses.column_names},
        facts=facts(job, found, trained=len(losses) > 0),
        stages=[stage_row(artifact) for artifact in job.inputs.values()],
    )
    html = render(page).encode()
    job.out.write("report.html", html)
    work.tick(3, 3, "sections")
    return {"items": len(shown), "bytes": len(html)}


def title(job: Job) -> str:
    """The name of the benchmark, or of the folder that the images lie in when the report is first made."""
    layout = job.inputs["dataset"].manifest["params"]["layout"]
    if layout != "folder":
        return layout
    root = job.roots["images"].location
    path = root.split("://", 1)[1].split("?")[0] if "://" in root else str(Path(root).resolve())
    return Path(path).name or "images"


def warnings(job: Job) -> list[str]:
    """What a reader must know before the numbers."""
    features, head = job.inputs["features"].manifest, job.inputs["head"].manifest
    found = list(job.inputs["dataset"].manifest.get("notes", []))
    if features["weights"] == "packaged":
        found.append(
            "The weights are packaged ones: a DINOv2 ViT-S/14 encoder that its author trained further for saliency, "
            "not Meta's weights. The numbers show that the program works, not what DINOv2 can do."
        )
    if features["failed_images"]:
        found.append(f"{features['failed_images']} images could not be decoded.")
    if head.get("groups") is not None and head["groups"] < COLLAPSED:
        found.append(f"{head['groups']:.1f} effective groups of codes: {collapse(head['params']['method'])}.")
    idle = [row["name"] for row in job.inputs["masks"].manifest.get("classes", []) if not row["evidence"]]
    if idle:
        found.append(f"Classes that no group and no point is of win nothing: {', '.join(idle)}.")
    if trouble := fewer(job.inputs["clusters"].manifest):
        found.append(f"{trouble}.")
    return found


def facts(job: Job, found: dict[str, Any], *, trained: bool) -> dict[str, str]:
    """What was done, in words."""
    features, head = job.inputs["features"].manifest, job.inputs["head"].manifest
    params = features["params"]
    block = "last" if params["block"] is None else params["block"]
    (height, width), grid = features["view"], features["shape"][1:3]
    protocol = f"{found['protocol']}: {PROTOCOLS[found['protocol']]}, one Hungarian match over {found['images']} images"
    return {
        "Backbone": f"{params['backbone']}, block {block}, {params['facet']}s",
        "Weights": str(features["weights"]),
        "Views": f"{params['views']['kind']}, {height}×{width} px, {grid[0]}×{grid[1]} tokens",
        "Head": head["params"]["method"] + ("" if trained else ", not trained by steps"),
        "Effective groups of codes": "not measured" if head.get("groups") is None else f"{head['groups']:.1f}",
        "Protocol": protocol if found["images"] else "no labels, no scores",
        **({"Annotation": str(Annotated(**found["annotation"]))} if "annotation" in found else {}),
    }


def score_rows(found: dict[str, Any]) -> list[Score]:
    """What was scored, the clusterings first."""
    kinds: dict[str, Literal["baseline", "groups", "probe"]] = {
        "baseline": "baseline",
        "cluster": "groups",
        "cluster_crf": "groups",
        "annotated": "groups",
        "annotated_crf": "groups",
        "linear_tokens": "probe",
        "linear": "probe",
    }
    rows = []
    for key, kind in kinds.items():
        if value := found["scores"].get(key):
            rows.append(Score(*NAMES[key], kind, value["miou"], value["accuracy"], value["iou"]))
    return rows


def stage_row(artifact: Artifact) -> dict[str, Any]:
    """One line of the table of stages."""
    manifest = artifact.manifest
    row = {key: manifest[key] for key in ("stage", "fingerprint", "seconds", "items", "version", "params")}
    return {**row, "created": manifest["written"]}


def pictures(job: Job, count: int) -> list[Picture]:
    """Evenly spaced predicted images with their masks, the baseline's and their labels, all shrunk alike."""
    masks = job.inputs["masks"]
    labels = LabelMaps(job.inputs["labels"], job.roots["labels"].location) if "labels" in job.inputs else None
    images, rows = Images(job.inputs["dataset"]), predicted_rows(masks)
    baseline = Baseline(job.inputs["baseline"], job.inputs["features"])
    method = "annotated" if "classes" in job.inputs else "cluster"
    found = []
    for number in np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)).tolist():
        row, mask = stored_map(masks, number)
        if mask is None:
            continue
        try:
            image = open_source(
                job.roots["images"].location,
                *images.file(rows[number]),
                reading_of(job.inputs["features"]),
            )
            size = fitted(*image.size, PHOTO_SIDE)
            photo = image.read((0, 0, *image.size), size)
        except DecodeError:
            continue
        refined = stored_map(masks, number, "mask_crf")[1] if masks.manifest["params"]["crf"] else None
        groups = {
            NAMES[key].name: reduced(ids.__getitem__, ids.shape, size)
            for key, ids in ((method, mask), (f"{method}_crf", refined))
            if ids is not None
        }
        label = _label(labels, row, size) if labels else None
        # K-means on the tokens of a large image would read all of them for one picture.
        tokens = None if isinstance(mask, Tiled) else baseline.label_map(rows[number], *size)
        found.append(Picture(row["id"], photo, groups, tokens, label))
    return found


def _label(labels: LabelMaps, row: dict[str, Any], size: tuple[int, int]) -> np.ndarray | None:
    """The label map of an image, a row of the masks, at another size; −1 where it is ignored."""
    if (row["split"], row["id"]) not in labels:
        return None
    shape = row["height"], row["width"]
    found = reduced(lambda at: labels.window(row["split"], row["id"], at, shape, row["path"]), shape, size)  # type: ignore[arg-type,return-value]
    return np.where(found == labels.ignore, -1, found.astype(np.int64))


def gallery(job: Job, params: ReportParams) -> list[list[np.ndarray]]:
    """Per group or class, patches around the tokens that lie nearest to it, at most one of each image."""
    features = job.inputs["features"]
    clusters = read_clusters(job.inputs["clusters"])
    classes = read_classes(job.inputs["classes"]) if "classes" in job.inputs else None
    found: list[list[np.ndarray]] = [[] for _ in range(len(classes.names) if classes else clusters.k)]
    rows = training_views(features)
    rows = rows[np.linspace(0, len(rows) - 1, min(params.gallery_images, len(rows))).round().astype(int)]
    views = view_pieces(features).take(rows).to_pylist()
    codes = TrainedHead(job.inputs["head"])(Tokens(features).read(rows))
    cosines = classes.values(normalise(clusters.seen(codes))) if classes else clusters.cosines(codes)
    wanted: dict[int, list[tuple[int, int]]] = {}
    for group, picks in enumerate(nearest_tokens(cosines, params.patches)):
        for view, token in picks:
            wanted.setdefault(view, []).append((group, token))
    for number, picks in sorted(wanted.items()):
        view = views[number]
        image = open_source(
            job.roots["images"].location, view["path"], view["sha256"], view["bytes"], reading_of(features)
        )
        for group, token in picks:
            row, column = divmod(token, cosines.shape[2])
            found[group].append(patch(image, view, row, column, cosines.shape[1:3]))
    return found


def nearest_tokens(cosines: np.ndarray, most: int) -> list[list[tuple[int, int]]]:
    """Of each group the (view, token) pairs nearest to it, the nearest first: one of a view, among its own tokens.

    cosines: (view, row, column, K); NaN views have none."""
    views, k = len(cosines), cosines.shape[-1]
    own = cosines.argmax(-1)
    found = []
    for group in range(k):
        value = np.where(own == group, cosines[..., group], -np.inf).reshape(views, -1)
        best = value.argmax(1)
        height = value[np.arange(views), best]
        order = np.argsort(-height, kind="stable")[:most]
        found.append([(int(view), int(best[view])) for view in order if np.isfinite(height[view])])
    return found


def patch(image: Source, view: dict[str, Any], row: int, column: int, grid: tuple[int, ...]) -> np.ndarray:
    """The neighbourhood of a token, five tokens wide, moved inside the image."""
    step_y, step_x = view["height"] / grid[0], view["width"] / grid[1]
    side = int(min(max(24, 5 * max(step_y, step_x)), *image.size))
    y, x = view["y0"] + (row + 0.5) * step_y - side / 2, view["x0"] + (column + 0.5) * step_x - side / 2
    y, x = (int(np.clip(v, 0, limit - side)) for v, limit in zip((y, x), image.size, strict=True))
    return image.read((y, x, side, side), fitted(side, side, PATCH_SIDE))


STAGE = Stage(
    "report",
    version=3,
    encoding=1,
    inputs=(
        "dataset",
        "labels?",
        "features",
        "suggestion?",
        "neighbours",
        "head",
        "clusters",
        "classes?",
        "probe?",
        "baseline",
        "masks",
        "scores",
    ),
    roots=("images", "labels?"),
    params=ReportParams,
    compute=compute,
    optional=True,
)
