"""How much a minute of a person is worth: `make annotate DATA=FOLDER`.

A simulated person (`annotate_person.py`) names groups, splits mixed ones and clicks errors of training images; what the
stage `classes` makes of it is scored on the val split, after 5 to 200 interactions. Everything comes from the cached
tokens of one run per data set and seed. `benchmarks/annotate.json` is written after every curve and merged into;
`docs/annotate.md`, its plot and a section of `docs/results.md` are written from it alone.
"""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotate_page import page, plot  # beside this file
from annotate_person import MODES, Corpus, curve
from cyclopts import App, Parameter
from quality import Names, call, chosen, dump, read, show, ticker, write, write_page
from quality_cell import BASE, ROOT, commit, config_of, find_sets
from quality_results import Json

from pipeline.api import run
from pipeline.artifacts.classes import Classes
from pipeline.artifacts.descriptors import Descriptors
from pipeline.artifacts.labels import LabelMaps
from pipeline.core.errors import ConfigError
from pipeline.numerics.metrics import confusion, match, scores
from pipeline.numerics.views import upsample, winner
from pipeline.results import Run

COUNTS = (5, 10, 25, 50, 100, 200)
CELLS = 4
"""Places per patch, in both directions, at which label and prediction are compared."""
MOST = 300
"""Training images that the person may come across, evenly spaced."""
HEAD = "stegoflow+guided"


class Val:
    """The val split: descriptors and tokens of each image, and labels on a grid."""

    def __init__(self, opened: Run, found: Descriptors, maps: LabelMaps) -> None:
        self.classes = len(maps.names)
        self.planes, self.tokens, self.labels = [], [], []
        images = opened._images
        for row in opened.masks.rows:
            label, plane = maps.read(images.row(row)), found.plane(row)
            if label is not None and plane is not None:
                self.planes.append(plane.astype(np.float16))
                tokens = found.views.plane(row, lambda values: values.astype(np.float32))
                self.tokens.append(tokens.astype(np.float16))
                self.labels.append(on_grid(label, plane.shape, CELLS, maps.ignore, self.classes))

    def miou(self, of: str, values: Any, k: int, matched: bool = False) -> float:
        """mIoU in percent of the largest of `values` (…, k), upsampled bilinearly; clusters are `matched` first."""
        counts = np.zeros((k + 1, self.classes), np.int64)
        for plane, label in zip(getattr(self, of), self.labels, strict=True):
            found = np.nan_to_num(values(plane.astype(np.float32)), neginf=-1e9)
            counts += confusion(winner(upsample(found, *label.shape)), label, k, self.classes)
        return scores(counts, match(counts) if matched else np.arange(k))["miou"] or 0.0

    def classified(self, found: Classes) -> float:
        """mIoU of a classifier; where the largest product is with a vector of no class, there is none."""
        cut = found.cut
        values = cut.nodes.copy()
        values[values < 0] = self.classes
        counts = np.zeros((self.classes + 1, self.classes), np.int64)
        for plane, label in zip(self.planes, self.labels, strict=True):
            products = cut.best(plane.astype(np.float32) @ found.vectors.T)
            said = values[winner(upsample(products, *label.shape))]
            counts += confusion(said, label, self.classes, self.classes)
        return scores(counts, np.arange(self.classes))["miou"] or 0.0


def on_grid(label: np.ndarray, shape: tuple[int, ...], cells: int, ignore: int | None, classes: int) -> np.ndarray:
    """The labels in the middle of the cells of each patch, (rows × cells, columns × cells) int64, −1 for none."""
    counts = [n * cells for n in shape[:2]]
    at = [(2 * np.arange(n) + 1) * size // (2 * n) for n, size in zip(counts, label.shape, strict=True)]
    found = label[np.ix_(*at)].astype(np.int64)
    return np.where((found == ignore) | (found >= classes), -1, found)


def prepare(opened: Run) -> tuple[Corpus, Val, Json]:
    """What the person sees, what is scored, and the two ends of the scale."""
    found = Descriptors(*(opened.artifact(stage) for stage in ("features", "head", "clusters")), device="auto")
    maps, images = LabelMaps(opened.artifact("labels"), opened.config.dataset.root), opened._images
    rows = [row for row in images.splits["train"] if maps.names and images.name(row) in maps]
    rows = [rows[at] for at in np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(int))]
    codes, truth = [], []
    for row in rows:
        plane, label = found.plane(row), maps.read(images.row(row))
        if plane is not None and label is not None:
            codes.append(plane.astype(np.float16))
            truth.append(on_grid(label, plane.shape, 1, maps.ignore, len(maps.names)))
    val = Val(opened, found, maps)
    baseline = opened.artifact("baseline").read_tensors("clusters.safetensors")
    probe = opened.artifact("probe").read_tensors("probe.safetensors")
    k = len(baseline["prototypes"])

    def by_probe(tokens: np.ndarray) -> np.ndarray:
        return (tokens - probe["center"]) @ probe["tokens.weight"].T + probe["tokens.bias"]

    def by_baseline(tokens: np.ndarray) -> np.ndarray:
        return (tokens - baseline["center"]) @ baseline["prototypes"].T

    def by_group(codes: np.ndarray) -> np.ndarray:
        return found.clusters.cut().best(codes @ found.clusters.vectors.T)

    ends = {
        "kmeans": val.miou("tokens", by_baseline, k, matched=True),
        "groups": val.miou("planes", by_group, k, matched=True),
        "probe": val.miou("tokens", by_probe, val.classes),
    }
    return Corpus(found.clusters, len(maps.names), np.stack(codes), np.stack(truth)), val, ends


app = App(name="annotate", help=__doc__, version_flags=[])


@app.default
def annotate(
    *,
    data: Path | None = None,
    sets: Names = None,
    seeds: Annotated[str, Parameter(help="Separated by commas.")] = "0,1,2",
    store: str = ".quality",
    prototypes: int | None = None,
    out: Path | None = None,
    render: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure what is missing, merge it into annotate.json, write docs/annotate.md, its plot and results.md.

    Parameters
    ----------
    data
        Folder of labelled sets: NAME/{images,labels}/{train,val}/… and NAME/dataset.yaml.
    store
        Where artifacts stay for the next call.
    prototypes
        clusters.prototypes, in place of the default.
    out
        Folder for all three files, in place of benchmarks/ and docs/.
    render
        Only write the page and the plot from annotate.json.
    """
    folder, pages = (out, out) if out else (ROOT / "benchmarks", ROOT / "docs")
    path = folder / "annotate.json"
    results: Json = read(path) if path.is_file() else {"sets": {}}
    if not render:
        if data is None:
            raise ConfigError("--data is missing: the folder of labelled sets", next="make annotate DATA=FOLDER")
        roots = find_sets(data)
        for name in chosen("--sets", sets, list(roots)):
            for seed in seeds.split(","):
                measure(results, path, roots[name], int(seed), store, prototypes)
    if not results["sets"]:
        raise ConfigError(f"{path} holds nothing", next="make annotate DATA=FOLDER")
    write(pages / "annotate.md", page(results))
    write(pages / "annotate.svg", plot(results))
    if (folder / "quality.json").is_file():
        write_page((folder / "quality.json", pages / "results.md"), read(folder / "quality.json"))
    print(pages / "annotate.md")
    return 0


def measure(results: Json, path: Path, root: Path, seed: int, store: str, prototypes: int | None) -> None:
    """The four curves of one data set and seed that results lack; written after each."""
    cell = results["sets"].setdefault(root.name, {}).setdefault(str(seed), {"curves": {}})
    missing = [mode for mode in MODES if mode not in cell["curves"]]
    if not missing:
        return
    config = config_of(BASE, root, store, HEAD, seed, False, None)
    if prototypes:
        config = config.model_copy(update={"clusters": config.clusters.model_copy(update={"prototypes": prototypes})})
    corpus, val, ends = prepare(run(config, until="scores", progress=ticker(f"{root.name} {seed}:")))
    cell |= {"ends": {key: round(value, 2) for key, value in ends.items()}, "k": corpus.clusters.k}
    cell |= {"prototypes": len(corpus.clusters.vectors), "commit": commit(), "date": time.strftime("%Y-%m-%d")}
    for mode in missing:
        started = time.monotonic()
        found = curve(corpus, mode, seed, COUNTS, val.classified)
        cell["curves"][mode] = {str(count): round(value, 2) for count, value in found.items()}
        write(path, dump(results) + "\n")
        show(f"{root.name} {seed} {mode}: {cell['curves'][mode]}  ({time.monotonic() - started:.0f} s)\n")


if __name__ == "__main__":
    call(lambda: app(sys.argv[1:], result_action="return_value"))
