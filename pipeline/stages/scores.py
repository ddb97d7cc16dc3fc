"""scores: how good the masks are, where there are labels; how steady the clusters are, always.

Artifact: `scores.json`. One confusion matrix over every labelled pixel of the predicted splits at the image's own size
(protocol `full`; `stego`: as in its evaluation), one Hungarian match, accuracy and mIoU in percent: for the masks with
and without CRF, the linear probes and the baseline. Without labels the label-free numbers stand alone, those of the
groups and of the baseline.

Of a run with an annotation the masks are those of `annotated`: classes are compared with label classes of the same
name, the others matched; images that hold points are left out, for every method; `cluster` is then upsampled
bilinearly.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.artifacts.classes import read_annotation
from pipeline.artifacts.clusters import FILE, Clusters, read_clusters
from pipeline.artifacts.head import open_head
from pipeline.artifacts.labels import LabelMaps
from pipeline.artifacts.mask_tiles import items_of, predicted_rows, tile_at
from pipeline.artifacts.masks import decode_png, mask_rows
from pipeline.artifacts.planes import Views
from pipeline.artifacts.sampling import sample
from pipeline.artifacts.scores import ANNOTATED, NAMES, Annotated
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Part, Stage, Work
from pipeline.core.errors import Set, StageError
from pipeline.core.params import Params
from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import cosine_kmeans, nearest, normalise
from pipeline.numerics.metrics import confusion, match, match_named, scores, stability, stego_crop
from pipeline.numerics.views import ALL, upsample, winner


class ScoresParams(Params):
    protocol: Literal["full", "stego"] = "full"
    """`full` scores every labelled pixel at the image's own size; `stego` the centre 320 × 320 pixels of label and
    prediction at a shorter side of 320, for comparison with published numbers. Only `scores` and `report` re-run."""
    sample: int = Field(5000, ge=10)
    """Tokens in the silhouette's sample."""
    stability_tokens: int = Field(100_000, ge=10)
    """Training tokens clustered twice, by halves of the views, to see whether the same clusters come out."""
    seed: int = Field(0, ge=0, lt=2**32)


def compute(job: Job, work: Work) -> dict[str, Any]:
    names: list[str] = []
    given = [row["name"] for row in job.inputs["masks"].manifest.get("classes", [])]
    result: dict[str, Any] = {
        "protocol": job.params.protocol,
        "scores": dict.fromkeys(name for name in NAMES if given or name not in ANNOTATED),
        "matching": {},
        "confusion": {},
    }
    images = held_out = by_name = 0
    if "labels" in job.inputs:
        maps = LabelMaps(job.inputs["labels"], job.roots["labels"].location)
        names = maps.names
        masks = job.inputs["masks"]
        work.parts(score_part, items_of(masks).total, masks.manifest["part"], "images")
        summed: dict[str, np.ndarray] = {}
        for marker in job.out.each_marker():
            images += marker["labelled"]
            held_out += marker.get("held_out", 0)
            for method, counts in marker["confusion"].items():
                summed[method] = summed.get(method, 0) + np.asarray(counts, np.int64)
        for method, counts in summed.items():
            linear, annotated = method.startswith("linear"), method in ANNOTATED
            named = same_names(given, names)
            by_name = int((named >= 0).sum())
            matching = np.arange(len(names)) if linear else match_named(counts, named) if annotated else match(counts)
            found = scores(counts, matching)
            result["scores"][method] = {key: found[key] for key in ("accuracy", "miou", "iou")}
            result["matching"][method] = matching.tolist()
            result["confusion"][method] = found["confusion"].tolist()
    if given:
        facts = job.inputs["classes"].manifest
        result["annotation"] = Annotated(facts["groups"], facts["points"], held_out, by_name)._asdict()
    free = label_free(job, work)
    result |= {"classes": names, "images": images}
    result |= {"label_free": free["clusters"], "baseline_label_free": free["baseline"]}
    result["cluster_share"] = cluster_share(job)
    job.out.write_json("scores.json", result)
    return {"items": job.inputs["masks"].manifest["items"], "labelled": images}


def score_part(job: Job, part: Part) -> dict[str, Any]:
    """Confusion counts (K + 1, class) of each method over images start..stop−1 of those that have masks, or over tiles
    of large ones."""
    maps = LabelMaps(job.inputs["labels"], job.roots["labels"].location)
    classes = len(maps.names)
    head = open_head(job.inputs["head"], job.execution.device)
    views = Views(job.inputs["features"])
    probe = job.inputs["probe"].read_tensors("probe.safetensors") if "probe" in job.inputs else None
    baseline = read_clusters(job.inputs["baseline"])
    center = job.inputs["baseline"].held(FILE, Artifact.read_tensors)["center"]
    chosen, items = predicted_rows(job.inputs["masks"]), items_of(job.inputs["masks"])
    classified = job.inputs.get("classes")
    clicked = {(one.split, one.image) for one in read_annotation(classified).points} if classified else set()
    clusters = read_clusters(job.inputs["clusters"])
    cuts = {"baseline": baseline.cut(), "cluster": clusters.cut()}
    method = "annotated" if classified else "cluster"
    columns = {method: "mask", f"{method}_crf": "mask_crf"}

    def encode(values: np.ndarray) -> np.ndarray:
        found = head(values)
        of_groups = [clusters.seen(found)] if classified else []
        return np.concatenate([*of_groups, found.compared, values.astype(np.float32)], -1)

    totals: dict[str, np.ndarray] = {}
    labelled = held_out = 0
    for item, row in enumerate(mask_rows(job.inputs["masks"], part.start, part.stop), part.start):
        (position, number), height, width = items.at(item), row["height"], row["width"]
        index, tiled = chosen[position], len(items.rows(position)) > 1
        window = tile_at(height, width, number) if tiled else ALL
        if (row["split"], row["id"]) in clicked:
            held_out += number == 0
            continue
        label = maps.window(row["split"], row["id"], window, (height, width), row["path"])
        if label is None:
            continue
        if tiled and job.params.protocol == "stego":
            raise StageError(
                f"the protocol stego shrinks whole images, and {row['path']} has {height * width / 1e6:.0f} megapixels",
                next=Set("scores.protocol", "full"),
            )
        labelled += number == 0
        predicted = {name: decode_png(row[column]) for name, column in columns.items() if row[column]}
        planes = views.seen_from(index, window, encode)
        if planes is None:
            crf = job.inputs["masks"].manifest["params"]["crf"]
            names = [*list(columns)[: 2 if crf else 1], "baseline"]
            names += (["cluster"] if classified else []) + (["linear", "linear_tokens"] if probe else [])
            predicted = dict.fromkeys(names, np.full(label.shape, -1))
        else:
            ends = [clusters.vectors.shape[1] if classified else 0, planes.values.shape[-1] - len(center)]
            compared, codes, tokens = np.split(planes.values, ends, axis=-1)
            logits = {"baseline": cuts["baseline"].best((tokens - center) @ baseline.vectors.T)}
            if classified:
                logits["cluster"] = cuts["cluster"].best(normalise(compared) @ clusters.vectors.T)
            if probe is not None:
                logits["linear"] = codes @ probe["codes.weight"].T + probe["codes.bias"]
                logits["linear_tokens"] = (tokens - probe["center"]) @ probe["tokens.weight"].T + probe["tokens.bias"]
            predicted |= {
                name: winner(upsample(planes._replace(values=plane), height, width, window))
                for name, plane in logits.items()
            }
        if job.params.protocol == "stego":
            label, predicted = stego_crop(label), {name: stego_crop(mask) for name, mask in predicted.items()}
        for name, mask in predicted.items():
            size = classes if name.startswith("linear") else baseline.k
            if name in ANNOTATED:
                size = job.inputs["masks"].manifest["clusters"]
            totals[name] = totals.get(name, 0) + confusion(mask, label, size, classes, maps.ignore)
    counts = {name: found.tolist() for name, found in totals.items()}
    return {"labelled": labelled, "confusion": counts, **({"held_out": held_out} if held_out else {})}


def same_names(given: list[str], names: list[str]) -> np.ndarray:
    """(k,) int64: the label class that is named as each class, whatever the case of its letters, the first of several;
    −1 for none."""
    known = {name.strip().casefold(): number for number, name in reversed(list(enumerate(names)))}
    found: list[int] = []
    for name in given:
        at = known.get(name.strip().casefold(), -1)
        found.append(-1 if at in found else at)
    return np.asarray(found, np.int64)


def cluster_share(job: Job) -> list[float]:
    """Share of each cluster of all mask pixels."""
    counts = np.asarray(job.inputs["masks"].manifest["pixels"], np.int64)
    return (counts / max(1, counts.sum())).tolist()


def label_free(job: Job, work: Work) -> dict[str, dict[str, float | None]]:
    """Numbers that need no label, of the groups and of the baseline, each among the vectors that it was fitted to."""
    params: ScoresParams = job.params
    head = open_head(job.inputs["head"], job.execution.device)
    center = job.inputs["baseline"].held(FILE, Artifact.read_tensors)["center"]
    vectors: dict[str, Callable[[np.ndarray], Codes]] = {
        "clusters": lambda tokens: head(tokens).unit(),
        "baseline": lambda tokens: Codes(normalise(tokens.astype(np.float32) - center)),
    }
    found = {}
    for role, encode in vectors.items():
        views = sample(job.inputs["features"], params.stability_tokens, params.seed, work, encode)
        found[role] = measured(views, read_clusters(job.inputs[role]), params)
    return found


def measured(views: Codes, found: Clusters, params: ScoresParams) -> dict[str, float | None]:
    """Silhouette in −1..1 (cosine distance, on a sample), and stability in 0..1: how far the clusterings of two halves
    of the views agree after matching (Lange et al. 2004). views: unit codes (view, token, ·)."""
    generator = np.random.default_rng(params.seed)
    order = generator.permutation(len(views.compared))
    whole, codes = views.flat().directions(), found.seen(views.flat())
    halves = [views.each(lambda part, side=side: part[order[side::2]]).flat().directions() for side in (0, 1)]
    steady = silhouette = None
    if min(len(half) for half in halves) >= found.k:
        fits = [cosine_kmeans(half, found.k, restarts=2, iterations=20, seed=params.seed)[0] for half in halves]
        steady = stability(nearest(whole, fits[0])[0], nearest(whole, fits[1])[0], found.k)
    pick = generator.choice(len(codes), min(len(codes), params.sample), replace=False)
    groups = found.cut().group[nearest(codes[pick], found.vectors)[0]]
    if 1 < len(np.unique(groups)) < len(groups):
        from sklearn.metrics import silhouette_score  # takes two seconds to import, in every process that only scores

        silhouette = float(silhouette_score(codes[pick], groups, metric="cosine"))
    return {"silhouette": silhouette, "stability": steady}


STAGE = Stage(
    "scores",
    version=4,
    encoding=1,
    inputs=("features", "head", "clusters", "classes?", "baseline", "masks", "labels?", "probe?"),
    roots=("labels?",),
    params=ScoresParams,
    compute=compute,
)
