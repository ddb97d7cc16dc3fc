"""One cell of a benchmark: a config of a data set, a head and a seed, run through the pipeline up to its scores, and
what its groups are worth beyond these."""

import copy
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch
from quality_results import KINDS, WORTH, Json  # beside this file

from pipeline.api import run
from pipeline.backbones.devices import pick_device
from pipeline.config import PipelineConfig, apply, validate
from pipeline.core.engine import Progress, silent
from pipeline.core.errors import ConfigError, StageError
from pipeline.core.execution import cores
from pipeline.core.params import members
from pipeline.datasets import folder
from pipeline.heads.settings import TrainedParams
from pipeline.results import Run

ROOT = Path(__file__).parents[1]
BASE: dict[str, Any] = {"features": {"backbone": "vit_small_patch14_dinov2", "weights": "packaged", "block": 8}}
VIEWS = {"camvid": [364, 476], "msrc21": [322, 322], "superalloy": [322, 322], "wbc": [322, 322]}
"""Height and width of a view in pixels, by data set; of others the config's default."""


def find_sets(data: Path) -> dict[str, Path]:
    """The labelled sets below a folder, by name."""
    wanted = ("images", "labels", "dataset.yaml")
    found = {path.name: path for path in sorted(data.glob("*")) if all((path / name).exists() for name in wanted)}
    if not found:
        raise ConfigError(f"{data} holds no NAME with {', '.join(wanted)}", next="--data FOLDER")
    return found


def config_of(base: Json, root: Path, store: str, head: str, seed: int, crf: bool, steps: int | None) -> PipelineConfig:
    """The config of one cell: `base`, and what makes the cell. A head `NAME+guided` has guided masks alone, the others
    bilinear ones, as published, and those with CRF; `NAME+guided+crops` is trained on five crops of each image."""
    data = copy.deepcopy(base) | {"store": store, "dataset": {"root": str(root)}}
    for section in ("features", "head", "clusters", "masks"):
        data.setdefault(section, {})
    if root.name in VIEWS:
        data["features"].setdefault("views", {"size": VIEWS[root.name]})
    head, *changes = head.split("+")
    guided = "guided" in changes
    if "crops" in changes:
        data["features"]["views"] = {**data["features"].get("views", {}), "kind": "crops"}
    apply(data, f"head.method={head}")
    data["head"]["seed"] = seed
    if steps is not None and issubclass(members(PipelineConfig, "head")[head], TrainedParams):
        data["head"]["steps"] = steps
    data["clusters"] |= {"seed": seed, "k": len(folder.read_description(str(root))["classes"])}
    data["masks"] |= {"crf": crf and not guided, "upsampling": "guided" if guided else "bilinear"}
    return validate(data, root.name)


def measure(
    config: PipelineConfig, known: Json | None = None, progress: Progress = silent
) -> tuple[Json, Json, list[str]]:
    """Run one config up to its scores: facts of its data set, its cell, and the stages that were not there yet. Of a
    `known` cell of the same clusters and scores what the scores do not say is taken."""
    result = run(config, until="scores", progress=progress)
    made, scores = {row.stage: result.artifact(row.stage) for row in result.stages}, result.summary()["scores"]
    if not scores["cluster"]:
        raise StageError("no predicted image has a label map", next="add labels to the split `val`")
    facts = {
        "views": list(config.features.views.size or made["features"].manifest["view"]),
        "images": made["dataset"].manifest["splits"],
        "k": config.clusters.k,
        "content": {
            name: made[name].manifest["roots"][root] for name, root in (("dataset", "images"), ("labels", "labels"))
        },
    }
    ran = [row.stage for row in result.stages if row.status == "ran"]
    then = made["clusters"].manifest["environment"]
    here = {"head", "clusters"} & set(ran)
    cell: Json = {
        kind: {key: round(value, 4) for key, value in scores[name].items()} if scores[name] else None
        for kind, name in KINDS.items()
    }
    cell |= {
        "seconds": {name: made[name].manifest["seconds"] for name in ("head", "clusters")},
        "clusters": made["clusters"].fingerprint,
        "date": made["scores"].manifest["written"][:10],
        "machine": machine() if here else f"{then['cores']} cores, {then['machine']}",
        "commit": commit() if ran else None,
    }
    same = known and all(known[key] == cell[key] for key in ("clusters", "without"))
    if known and same and all(key in known for key in WORTH):
        cell |= {key: known[key] for key in WORTH}
    else:
        progress("worth", 0, 1, "cells")
        cell |= rounded(worth(result, config)) | {"commit": commit()}
    return facts, cell, ran


PROTOTYPES = 256
"""Of heads whose tree has no cut as fine as those that are named."""
COLOUR: dict[tuple[str, str, int], Json] = {}
"""What colour alone gives, by dataset, labels and seed: the same for every head."""


def worth(found: Run, config: PipelineConfig) -> Json:
    """Named cuts and borders of a run, and the same of colour alone; None where no training image has labels."""
    import quality_colour  # faiss and more, which other benchmarks do not want in memory
    import quality_named

    data, finer = quality_named.Labelled(found), found
    if len(found.clusters.vectors) < max(quality_named.CUTS) and config.clusters.prototypes is None:
        few = config.clusters.model_copy(update={"prototypes": PROTOTYPES, "method": "kmeans"})
        finer = run(config.model_copy(update={"clusters": few}), until="masks")
    key = found.artifact("dataset").fingerprint, found.artifact("labels").fingerprint, config.clusters.seed
    if data.train and key not in COLOUR:
        COLOUR[key] = quality_colour.worth(found, data, config.clusters.seed)
    return {**quality_named.worth(found, data, finer), "colour": COLOUR.get(key)}


def rounded(value: Any) -> Any:
    """Numbers to four digits, in dicts too."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return None if value is None else round(value, 4)


@cache
def machine() -> str:
    """Cores, threads and processor, and the accelerator where there is one."""
    cpu = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    device = pick_device("auto")
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{cores()} cores (torch: {torch.get_num_threads()} threads), {cpu}{gpu}"


@cache
def commit() -> str | None:
    """HEAD, marked where the program differs from it; None outside of a repository."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    program = ["pipeline", "benchmarks/*.py"]
    edits = subprocess.run([*git, "status", "--porcelain", "--", *program], capture_output=True, text=True)
    return head.stdout.strip() + ("-dirty" if edits.stdout else "") if head.returncode == 0 else None
