"""What each stage cost where it was measured: in an artifact of the store, else in the run of the table below."""

from dataclasses import dataclass, field
from typing import Any

from pipeline.artifacts import features as feature_store
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Part
from pipeline.core.store import Store
from pipeline.planning import PlanRow
from pipeline.stages import masks, scores

PARTS = {"features": feature_store.PART, "masks": masks.PART, "scores": scores.PART}
"""Items per part of the stages that are spread over workers."""
SAMPLE = 16
"""Parts whose markers are read, at most."""
MACHINE = "2026-11-24, CamVid with ViT-S/14 on an AMD EPYC of two busy cores; suggestion and report are guesses"
"""Where and when `BUILT_IN` was measured. Of the suggestion, a quarter of the curve on one draw was timed on planted
vectors and multiplied; of the report nothing. Bytes of these two and of a head's checkpoint are guesses too."""


@dataclass(frozen=True)
class Rate:
    """What one artifact of a stage took."""

    source: str
    """`same recipe` or `other settings` (an artifact of this store), or `built in`."""
    items: int
    seconds: float
    """Of the whole stage, as its manifest says."""
    each: float = 0.0
    """Seconds of one worker per item, of a stage that is cut into parts."""
    files: dict[str, int] = field(default_factory=dict)
    """Bytes of its data files, those of parts left out."""
    records: int = 3000
    """Bytes of spec and manifest."""
    marker: float = 500.0
    """Bytes of a marker."""
    part: float = 0.0
    """Bytes of the files of one part."""
    parts: int = 0
    shape: tuple[int, ...] = ()
    """(view, row, column, channel) of features."""
    views: int = 0
    """Training views of a head."""
    own: bool = False
    """Clusters that the head brought along."""
    megapixels: float | None = None
    """Of an image; None where the images are taken to be like those of the config."""


BUILT_IN = {
    "dataset": Rate("built in", 600, 0.3, files={"images.parquet": 29537}),
    "labels": Rate("built in", 600, 0.3, files={"labels.parquet": 28808, "classes.json": 161}),
    "features": Rate(
        "built in", 833, 698.0, each=0.82, marker=285, shape=(833, 26, 34, 384),
        files={"views.parquet": 34958, "known.parquet": 660, "features.zarr metadata": 5530},
    ),
    "suggestion": Rate("built in", 240, 950.0, files={"suggestion.json": 150, "curve.parquet": 1500}),
    "neighbours": Rate("built in", 367, 0.3, files={"neighbours.parquet": 15407}),
    "head": Rate(
        "built in", 500, 89.0, views=367, parts=1, part=2_430_000.0,
        files={"head.safetensors": 809592, "losses.parquet": 8800},
    ),
    "clusters": Rate("built in", 324428, 14.0, files={"clusters.safetensors": 3160}),
    "probe": Rate("built in", 298863, 27.0, views=367, files={"probe.safetensors": 21968}),
    "baseline": Rate("built in", 324428, 23.0, files={"baseline.safetensors": 18584}),
    "masks": Rate("built in", 233, 812.0, each=3.3, marker=462, part=82_000.0, megapixels=0.69),
    "scores": Rate("built in", 233, 42.0, each=0.1, marker=5260, megapixels=0.69, files={"scores.json": 8100}),
    "report": Rate("built in", 12, 15.0, files={"report.html": 3_000_000}),
}  # fmt: skip
"""A rate of every stage, for a store without one of its own."""
WITHOUT_CRF = 0.22
"""`each` of the masks above where masks.crf is false."""
DECISIVE = {"features": "features.backbone ", "head": "head.method ", "masks": "masks.crf "}
"""Where this field differs, an artifact says nothing of what the stage will take."""


def rate(store: Store, row: PlanRow, *, crf: bool = True) -> Rate:
    """The rate of a stage: of the artifact that `plan` holds to be nearest, else the one that is built in.

    `same recipe` where nothing but the inputs differs. Of an artifact of many parts some markers are read, not all.
    """
    if row.nearest is None or any(change.startswith(DECISIVE.get(row.stage, "-")) for change in row.changes):
        found = BUILT_IN[row.stage]
        if row.stage == "masks" and not crf:
            return Rate(**{**vars(found), "each": WITHOUT_CRF, "part": found.part / 2})
        return found
    artifact = Artifact(store, row.stage, row.nearest)
    manifest = artifact.manifest
    other = [change for change in row.changes if not change.startswith("input ")]
    names = _marked(artifact, row.stage, manifest["items"])
    markers = [artifact.marker(name) for name in names]
    size = PARTS.get(row.stage, 0)
    # Rows that were copied from an earlier artifact cost nothing, and say nothing of new ones.
    worked = [
        (marker["seconds"], Part(*(int(n) for n in name.split("-"))))
        for name, marker in zip(names, markers, strict=True)
        if not marker.get("copied") and size
    ]
    files = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    metadata = sum(size for name, size in files.items() if name.startswith(feature_store.GROUP))
    records = (len(store.get(f"{artifact.root}/{name}.json")) for name in ("spec", "manifest"))
    return Rate(
        source="other settings" if other else "same recipe",
        items=manifest["items"],
        seconds=manifest["seconds"],
        each=_per(sum(s for s, _ in worked), sum(p.stop - p.start for _, p in worked)) or BUILT_IN[row.stage].each,
        files={
            **{name: size for name, size in files.items() if not name.startswith(feature_store.GROUP)},
            **({"features.zarr metadata": metadata} if metadata else {}),
        },
        records=sum(records),
        marker=_per(sum(len(store.get(f"{artifact.root}/parts/{name}.json")) for name in names), len(names)),
        part=_per(sum(entry["bytes"] for m in markers for entry in m["files"].values()), len(names)),
        parts=manifest["parts"],
        shape=tuple(manifest.get("shape", ())),
        views=manifest.get("views", 0),
        own=manifest.get("found_by") == "head",
    )


def _marked(artifact: Artifact, stage: str, items: int) -> list[str]:
    """Names of some parts, evenly spaced; of a head all of them, which are few."""
    if not artifact.manifest["parts"]:
        return []
    if stage not in PARTS:
        return sorted(artifact.markers())
    size, total = PARTS[stage], -(-items // PARTS[stage])
    chosen = sorted({number * total // min(SAMPLE, total) for number in range(min(SAMPLE, total))})
    return [Part(n * size, min((n + 1) * size, items)).name for n in chosen]


def _per(total: float, count: float) -> Any:
    return total / count if count else 0.0
