"""Data sets × heads × seeds through the pipeline itself, with and without CRF: `make quality DATA=FOLDER`.

Every cell is one run up to `scores`, all of them in one store: features, neighbours and labels are made once per data
set, and a second call does only what is missing. `benchmarks/quality.json` is written after every cell and merged into;
`docs/results.md` is written from that file alone. Labels are for scores and probes; only K, the number of classes that
dataset.yaml names, is taken from them.
"""

import copy
import json
import os
import platform
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, Parameter
from quality_results import KINDS, Json, changed, merge, page, start, table  # beside this file
from rich.console import Console

from pipeline.config import PipelineConfig, validate
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Progress, silent
from pipeline.core.errors import ConfigError, StageError
from pipeline.core.executors import cores
from pipeline.core.store import open_store
from pipeline.datasets import folder
from pipeline.heads import METHODS
from pipeline.models.devices import pick_device
from pipeline.run import run
from pipeline.stages.features import weights_digest
from pipeline.stages.head import HeadParams
from pipeline.terminal import told, visible

ROOT = Path(__file__).parents[1]
PAGE = "docs/results.md"
BASE: dict[str, Any] = {"features": {"backbone": "vit_small_patch14_dinov2", "weights": "packaged", "block": 8}}
VIEWS = {"camvid": [364, 476], "msrc21": [322, 322], "superalloy": [322, 322], "wbc": [322, 322]}
"""Height and width of a view in pixels, by data set; of others the config's default."""


# Measuring ------------------------------------------------------------------------------------------------------------


def find_sets(data: Path) -> dict[str, Path]:
    """The labelled sets below a folder, by name."""
    wanted = ("images", "labels", "dataset.yaml")
    found = {path.name: path for path in sorted(data.glob("*")) if all((path / name).exists() for name in wanted)}
    if not found:
        raise ConfigError(f"{data} holds no NAME with {', '.join(wanted)}", next="--data FOLDER")
    return found


def config_of(base: Json, root: Path, store: str, head: str, seed: int, crf: bool, steps: int | None) -> PipelineConfig:
    """The config of one cell: `base`, and what makes the cell. A head `NAME+guided` has guided masks alone, the others
    bilinear ones, as published, and those with CRF."""
    data = copy.deepcopy(base) | {"store": store, "dataset": {"root": str(root)}}
    for section in ("features", "head", "clusters", "masks"):
        data.setdefault(section, {})
    if root.name in VIEWS:
        data["features"].setdefault("views", {"size": VIEWS[root.name]})
    head, _, guided = head.partition("+")
    data["head"] |= {"method": head, "seed": seed}
    if steps is not None and hasattr(getattr(HeadParams(), head, None), "steps"):
        data["head"][head] = {**data["head"].get(head, {}), "steps": steps}
    data["clusters"] |= {"seed": seed, "k": len(folder.read_description(str(root))["classes"])}
    data["masks"] |= {"crf": crf and not guided, "upsampling": guided or "bilinear"}
    return validate(data, root.name)


def measure(config: PipelineConfig, progress: Progress = silent) -> tuple[Json, Json, list[str]]:
    """Run one config up to its scores: facts of its data set, its cell, and the stages that were not there yet."""
    result = run(config, until="scores", progress=progress)
    store = open_store(config.store)
    made = {row["stage"]: Artifact(store, row["stage"], row["fingerprint"]) for row in result["stages"]}
    if not result["scores"]["cluster"]:
        raise StageError("no predicted image has a label map", next="add labels to the split `val`")
    splits = made["dataset"].read_table("images.parquet", ["split"])["split"].to_pylist()
    facts = {
        "views": list(config.features.views.size),
        "images": {split: splits.count(split) for split in sorted(set(splits))},
        "k": config.clusters.k,
        "content": {name: made[name].manifest["inputs"]["content"] for name in ("dataset", "labels")},
    }
    ran = [row["stage"] for row in result["stages"] if row["status"] == "ran"]
    known = made["clusters"].manifest["environment"]
    here = {"head", "clusters"} & set(ran)
    cell: Json = {
        kind: {key: round(value, 4) for key, value in result["scores"][name].items()}
        if result["scores"][name]
        else None
        for kind, name in KINDS.items()
    }
    cell |= {
        "seconds": {name: made[name].manifest["seconds"] for name in ("head", "clusters")},
        "clusters": made["clusters"].fingerprint,
        "date": made["scores"].manifest["written"][:10],
        "machine": machine() if here else f"{known['cores']} cores, {known['machine']}",
        "commit": commit() if ran else None,
    }
    return facts, cell, ran


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
    edits = subprocess.run([*git, "status", "--porcelain", "--", "pipeline"], capture_output=True, text=True)
    return head.stdout.strip() + ("-dirty" if edits.stdout else "") if head.returncode == 0 else None


# The file -------------------------------------------------------------------------------------------------------------


def read(path: Path) -> Json:
    """The content of quality.json."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", next=f"mend or remove {path}") from None


def dump(results: Json) -> str:
    """quality.json's text."""
    return json.dumps(results, indent=1, ensure_ascii=False)


def write(path: Path, text: str) -> None:
    """Write a file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


# The command ----------------------------------------------------------------------------------------------------------

app = App(name="quality", help=__doc__, version_flags=[])
Names = Annotated[str | None, Parameter(help="Names, separated by commas; default: all.")]


@app.default
def quality(
    *,
    data: Path | None = None,
    sets: Names = None,
    heads: Names = None,
    seeds: Annotated[str, Parameter(help="Separated by commas.")] = "0,1,2",
    crf: bool = True,
    store: str = ".quality",
    steps: int | None = None,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    render: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure what is missing, merge it into quality.json, write docs/results.md, print a table.

    Parameters
    ----------
    data
        Folder of labelled sets: NAME/{images,labels}/{train,val}/… and NAME/dataset.yaml.
    crf
        With a dense CRF too; --no-crf leaves it out, and keeps what is known of the same clusters.
    store
        Where artifacts stay for the next call.
    steps
        Training steps, for a try; its results go to the store unless --out says where.
    out
        Folder for quality.json and results.md, in place of benchmarks/ and docs/.
    json
        Print quality.json, with the cells that failed.
    render
        Only write results.md from quality.json.
    """
    out = Path(store) if out is None and steps is not None else out
    files = (out / "quality.json", out / "results.md") if out else (ROOT / "benchmarks/quality.json", ROOT / PAGE)
    if render:
        if not files[0].is_file():
            raise ConfigError(f"{files[0]} is not there", next="measure first: --data FOLDER")
        results = read(files[0])
        write(files[1], page(results))
        if json:
            print(dump(results))
        return 0
    if data is None:
        raise ConfigError("--data is missing: the folder of labelled sets", next="make quality DATA=FOLDER")
    roots = find_sets(data)
    picked = (
        chosen("--sets", sets, list(roots)),
        chosen("--heads", heads, [*METHODS, *(f"{m}+guided" for m in METHODS)]),
    )
    if not all(seed.isdecimal() for seed in seeds.split(",")):
        raise ConfigError(f"--seeds {seeds}: whole numbers are wanted", next="--seeds 0,1,2")
    grid = [(name, head, int(seed)) for name in picked[0] for head in picked[1] for seed in seeds.split(",")]
    results, failed = measure_grid(roots, grid, BASE, store, files, crf=crf, steps=steps)
    if json:
        print(dump({**results, "failed": failed}))
    else:
        Console().print(table(results, grid))
        for row in failed:
            print(f"FAILED: {visible(row['set'])} {row['head']} {row['seed']}: {row['error']}")
        print(f"{files[0]}\n{files[1]}" if results["sets"] else "nothing was measured")
    return 1 if failed else 0


def chosen(option: str, names: str | None, known: list[str]) -> list[str]:
    """The names of an option; ConfigError for one that is not known."""
    wanted = known if names is None else names.split(",")
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{option}: there is no {name}", next=f"{option} {','.join(known)}")
    return wanted


def measure_grid(
    roots: dict[str, Path],
    grid: list[tuple[str, str, int]],
    base: Json,
    store: str,
    files: tuple[Path, Path],
    *,
    crf: bool = True,
    steps: int | None = None,
) -> tuple[Json, list[Json]]:
    """Measure the cells (data set, head, seed), writing both files after each: all results, and what failed."""
    protocol = PipelineConfig.model_fields["scores"].default.protocol
    settings = {key: base["features"].get(key) for key in ("backbone", "weights", "block")}
    settings |= {"weights_sha256": weights_digest(settings["backbone"], settings["weights"])}
    settings |= {"weights": Path(settings["weights"]).name, "protocol": protocol, "steps": steps}

    def known_results() -> Json:
        return start(read(files[0]) if files[0].is_file() else None, settings)

    results, failed, started = known_results(), [], time.monotonic()
    commit()  # as it is now: this is the program that runs
    for number, (name, head, seed) in enumerate(grid, 1):
        label, before = f"[{number}/{len(grid)}] {visible(name)} {head} {seed}:", time.monotonic()
        show(label)
        try:
            config = config_of(base, roots[name], store, head, seed, crf, steps)
            facts, cell, ran = measure(config, progress=ticker(label))
            known = known_results()  # another process may have measured other cells since
            results = merge(known, name, facts, head, seed, cell)
            write(files[0], dump(results) + "\n")
            write(files[1], page(results))
            found = f"mIoU {cell['without']['miou']:.1f}" + (
                f", CRF {cell['with']['miou']:.1f}" if cell["with"] else ""
            )
            found += f"; ran {', '.join(ran)}" if ran else "; all reused"
            if name in known["sets"] and changed(known["sets"][name], facts):
                found += "; images, labels, view or K are not what they were: earlier cells of this set dropped"
        except Exception as error:  # the other cells go on
            message = error.message if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
            stage = getattr(error, "stage", None)
            found = visible(f"{stage}: {message}" if stage else message)
            failed.append({"set": name, "head": head, "seed": seed, "error": found})
            found = f"FAILED: {found}"
        now = time.monotonic()
        show(f"{label} {found}  ({now - before:.0f} s, all {now - started:.0f} s)\n")
    return results, failed


def show(text: str) -> None:
    """Progress on standard error; of a line that is not finished, where that is no terminal, nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text.endswith("\n"):
        print(text, end="", file=sys.stderr, flush=True)


def ticker(label: str) -> Progress:
    """A progress callback that says what a cell is at."""
    return lambda stage, done, total, unit: show(f"{label} {stage} {done}/{total} {unit}")


def main() -> None:
    """Exit status 0; 2 for what cannot be used; 1 where a cell failed."""
    try:
        sys.exit(app(sys.argv[1:], result_action="return_value"))
    except ConfigError as error:
        print(f"error: {told(error)}", file=sys.stderr)
        sys.exit(1 if isinstance(error, StageError) else 2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
