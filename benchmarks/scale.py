"""Does a large corpus cost more per image than a small one? `python benchmarks/scale.py`.

Every command of a run on generated corpora of several sizes, each in a process group of its own: seconds, CPU
seconds, the peak memory of its largest process, objects and bytes. `features` is killed half-way and run again; then a
hundredth more images come. Writes benchmarks/scale.json and docs/scale.md.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from scale_corpus import BACKBONE, SIDE, VAL, write_corpus, write_weights  # beside this file
from scale_page import page, plot  # beside this file
from scale_processes import POLL, command  # beside this file

Json = dict[str, Any]
HERE = Path(__file__).parent
STAGES = (
    "dataset",
    "labels",
    "features",
    "neighbours",
    "head",
    "clusters",
    "probe",
    "baseline",
    "masks",
    "scores",
    "report",
)
PER_VIEW = ("features", "masks", "scores")
"""Stages whose seconds per image must not grow."""
COMMANDS = ("plan", "second_plan", "status", "export")
ENOUGH = 16
"""Parts from which on the time of an item says something."""


def measure(
    folder: Path,
    views: int,
    stages: tuple[str, ...],
    labels: bool,
    keep: Callable[[], None],
    found: Json,
    limit: float = float("inf"),
) -> None:
    """What every command takes on a corpus of so many images, made in `folder`, into `found`, which may hold what was
    measured before; `keep` is called after each: the program may be killed. Masks that are not done after `limit`
    seconds are cut short, and nothing is measured of what reads them."""
    config = prepare(folder, views, labels)
    store = folder / "store"
    for name, value in {"views": views, "stages": {}, "begun": stamp(), "load": os.getloadavg()[0]}.items():
        found.setdefault(name, value)

    def note(where: Json, name: str, row: Callable[[], Json]) -> None:
        if name not in where:
            where[name] = row()
            print(f"{views:>8} {name:<11} {where[name]}", file=sys.stderr, flush=True)
            keep()

    note(found, "plan", lambda: command(["plan", str(config)]))
    for stage in stages:
        if not labels and stage in ("labels", "probe"):
            continue
        most = limit if stage == "masks" else float("inf")
        note(found["stages"], stage, partial(one_stage, config, store, stage, found, most))
        if "images" in found["stages"][stage]:
            break
    note(found, "second_plan", lambda: command(["plan", str(config)]))
    note(found, "status", lambda: command(["status", "--store", str(store)]))
    if "report" in found["stages"]:
        out = folder / "exported"
        words = ["export", "latest", "--out", str(out), "--split", "val", "--store", str(store)]
        note(found, "export", lambda: command(words) | {"images": min(VAL, views)})
        shutil.rmtree(out, ignore_errors=True)
    note(found, "store", lambda: dict(zip(("objects", "bytes"), count(store), strict=True)))
    if "features" in stages:
        note(found, "grown", lambda: grown(folder, config, views, labels))
    found["ended"] = stamp()
    keep()


def one_stage(config: Path, store: Path, stage: str, found: Json, limit: float = float("inf")) -> Json:
    """What a stage takes; `features` is killed half-way and run again, which `found["resume"]` tells of. `images`: how
    many were done, where it was killed after `limit` seconds; `kept`: how many were done before it began."""
    words = ["run", str(config), "--stage", stage]
    before = count(store)
    halved, kept = {}, items_done(store, stage)
    if stage == "features":
        halved = command(words, until=lambda: parts(store, "features") >= 0.5 * planned_parts(store, "features"))
        halved["parts"] = parts(store, stage)
    begun = time.monotonic()
    marked = first_marker(store, stage, halved.get("parts"), begun)
    row = command(words, until=lambda: time.monotonic() > begun + limit)
    if kept:
        row["kept"] = kept
    if row.pop("killed", False):
        row["images"] = items_done(store, stage)
    if halved:
        found["resume"] = {
            "parts_kept": halved["parts"],
            "start_s": marked(),
            "parts_run": parts(store, stage) - halved["parts"],
        }
        row = {**row, **{name: row[name] + halved[name] for name in ("seconds", "cpu")}}
        row["memory"] = max(row["memory"], halved["memory"])
    after = count(store)
    return row | {"objects": after[0] - before[0], "bytes": after[1] - before[1], "item_ms": item_ms(store, stage)}


def grown(folder: Path, config: Path, views: int, labels: bool) -> Json:
    """What a hundredth more images take."""
    more = max(1, views // 100)
    write_corpus(folder / "data", views + more, views, labels)
    found: Json = {"images": more, "plan": command(["plan", str(config)])}
    for stage in ("dataset", "features"):
        found[stage] = command(["run", str(config), "--stage", stage])
    manifests = (folder / "store").glob("artifacts/features/*/manifest.json")
    facts = json.loads(max(manifests, key=lambda path: path.stat().st_mtime).read_text())
    return found | {"copied": facts["copied"], "items": facts["items"]}


def stamp() -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def prepare(folder: Path, views: int, labels: bool) -> Path:
    """The corpus, the weights and the config of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data/written").exists():
        write_corpus(folder / "data", views, labels=labels)
        (folder / "data/written").touch()
    data = {
        "store": str(folder / "store"),
        "dataset": {"root": str(folder / "data")},
        "features": {
            "backbone": BACKBONE,
            "weights": str(write_weights(folder / "tiny.safetensors")),
            "views": {"size": [SIDE, SIDE]},
            "mirror": "none",
        },
        "head": {"steps": 200},
        "clusters": {"k": 8, "prototypes": 8},
        "masks": {"splits": ["train", "val"], "upsampling": "bilinear"},
        "execution": {"device": "cpu", "precision": "fp32", "batch_size": 64, "workers": 2},
    }
    config = folder / "config.json"
    config.write_text(json.dumps(data))
    return config


def parts(store: Path, stage: str) -> int:
    """Finished parts of a stage's artifacts."""
    return sum(len(os.listdir(path)) for path in store.glob(f"artifacts/{stage}/*/parts"))


def items_done(store: Path, stage: str) -> int:
    """Items of finished parts."""
    names = (path.stem.split("-") for path in store.glob(f"artifacts/{stage}/*/parts/*.json"))
    return sum(int(stop) - int(start) for start, stop in names)


def planned_parts(store: Path, stage: str) -> float:
    """Parts that a stage will have: as many as its array has shards. Infinite where there is none yet."""
    for path in store.glob(f"artifacts/{stage}/*/data/features.zarr/tokens/zarr.json"):
        try:
            facts = json.loads(path.read_text())
        except ValueError:
            return float("inf")
        return -(-facts["shape"][0] // facts["chunk_grid"]["configuration"]["chunk_shape"][0])
    return float("inf")


def item_ms(store: Path, stage: str) -> float | None:
    """CPU milliseconds of an item inside of a part, the median over the parts: starting a process is no part of it.
    None for a stage of less than `ENOUGH` parts: the first of each process load what the others find loaded."""
    found = []
    for path in store.glob(f"artifacts/{stage}/*/parts/*.json"):
        start, stop = map(int, path.stem.split("-"))
        facts = json.loads(path.read_text())
        if "cpu_seconds" in facts and not facts.get("copied"):
            found.append(1000 * facts["cpu_seconds"] / (stop - start))
    return round(median(found), 3) if len(found) >= ENOUGH else None


def first_marker(store: Path, stage: str, before: int | None, begun: float) -> Callable[[], float | None]:
    """A function that says after how many seconds the first further part was finished."""
    if before is None:
        return lambda: None
    found: list[float] = []

    def watch() -> None:
        while time.monotonic() - begun < 3600:
            if parts(store, stage) > before:
                found.append(round(time.monotonic() - begun, 2))
                return
            time.sleep(POLL)

    threading.Thread(target=watch, daemon=True).start()
    return lambda: found[0] if found else None


def count(store: Path) -> tuple[int, int]:
    """Objects below a store, and their bytes."""
    objects = size = 0
    for parent, _, names in os.walk(store):
        objects += len(names)
        size += sum(os.stat(os.path.join(parent, name)).st_size for name in names)
    return objects, size


def compare(runs: list[Json]) -> Json:
    """The largest corpus beside the smallest, in what was measured of both."""
    small, large = runs[0], runs[-1]
    first, last = ({**run["stages"], **{name: run[name] for name in COMMANDS if name in run}} for run in (small, large))
    both = [name for name in last if name in first]
    memory = {name: last[name]["memory"] / first[name]["memory"] for name in both}
    each = {
        name: last[name]["item_ms"] / first[name]["item_ms"]
        for name in PER_VIEW
        if name in both and first[name]["item_ms"] and last[name]["item_ms"]
    }
    peaks = [max([rows[name]["memory"] for name in both], default=0) for rows in (first, last)]
    return {
        "machine": machine(),
        "views_max": large["views"],
        "memory_ratio": round(peaks[1] / peaks[0], 3) if both else None,
        "memory_ratio_by_command": {name: round(value, 3) for name, value in memory.items()},
        "seconds_per_view_ratio": round(max(each.values()), 3) if each else None,
        "seconds_per_view_ratio_by_stage": {name: round(value, 3) for name, value in each.items()},
        "second_plan_s": large["second_plan"]["seconds"] if "second_plan" in large else None,
        "stages": {str(run["views"]): run["stages"] for run in runs},
        "runs": runs,
    }


def machine() -> str:
    """What this is measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description="What a run takes on corpora of several sizes.")
    parser.add_argument("--views", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="keep corpora and stores here, and use those that are there")
    parser.add_argument("--labels", action=argparse.BooleanOptionalAction, default=True, help="with label maps")
    parser.add_argument("--stages", default=",".join(STAGES), help="only these, with commas between")
    parser.add_argument("--out", type=Path, default=HERE / "scale.json")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds that masks may take")
    parser.add_argument(
        "--add", action="store_true", help="keep the other sizes that OUT holds, and go on with one that was cut short"
    )
    args = parser.parse_args()
    runs: dict[int, Json] = {}
    if args.add and args.out.exists():
        runs = {run["views"]: run for run in json.loads(args.out.read_text())["runs"]}

    def keep() -> None:
        found = compare([runs[size] for size in sorted(runs)])
        args.out.write_text(json.dumps(found, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as scratch:
        for views in sorted(args.views):
            if "ended" in runs.setdefault(views, {}):
                runs[views] = {}
            measure(
                (args.folder or Path(scratch)) / str(views),
                views,
                tuple(args.stages.split(",")),
                args.labels,
                keep,
                runs[views],
                args.limit,
            )
    if args.out == HERE / "scale.json":
        write_page(json.loads(args.out.read_text()))


def write_page(found: Json) -> None:
    docs = HERE.parent / "docs"
    (docs / "scale.md").write_text(page(found), encoding="utf-8")
    (docs / "scale.svg").write_text(plot(found), encoding="utf-8")


if __name__ == "__main__":
    main()
