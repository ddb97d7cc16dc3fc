"""Block, facet, size and kind of view, chosen without labels and looked at with them: `make choices DATA=FOLDER`.

Every variant of `features` goes through the pipeline itself, without training (`head.method: none`), with one seed.
Three criteria read images and masks alone; labels say afterwards what each would have been worth. The kinds of view
(STEGO's five crops for training, sliding windows) are trained as published and have no criterion.
`benchmarks/choices.json` is written after every cell and merged into; `docs/choices.md` is written from it alone.
"""

import copy
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import App, Parameter
from quality import chosen, dump, read, show, ticker, write  # beside this file
from quality_cell import BASE, ROOT, VIEWS, commit, config_of, find_sets, machine
from quality_results import Json, markdown

from pipeline.api import run
from pipeline.artifacts.masks import label_maps
from pipeline.config import PipelineConfig
from pipeline.core.engine import Progress, silent
from pipeline.core.errors import ConfigError, StegoflowError
from pipeline.terminal import render_error, visible

CRITERIA = {
    "silhouette": "silhouette of the clusters of tokens (cosine)",
    "stability": "agreement of the clusterings of two halves of the images (Lange et al. 2004)",
    "colour": "share of an image's colour variance that lies between its segments, less that with the mask mirrored",
}


def variants(size: list[int]) -> dict[str, Json]:
    """Changes of `features` by name; the first is where the others start from. size: of a view, in pixels."""

    def scaled(factor: float) -> Json:
        return {"views": {"size": [14 * max(1, round(factor * side / 14)) for side in size]}}

    blocks = {f"block {block}": {"block": block} for block in (8, 2, 5, 11)}
    keys = {f"keys of block {block}": {"block": block, "facet": "key"} for block in (8, 11)}
    return {**blocks, **keys, "size × 0.7": scaled(0.7), "size × 1.4": scaled(1.4)}


def kinds(size: list[int]) -> dict[str, Json]:
    """Likewise, of the kinds of view."""
    return {
        "whole": {},
        "trained on five crops": {"views": {"kind": "crops", "size": size}},
        "sliding, 224 × 224 px": {"views": {"kind": "sliding", "size": [224, 224]}},
    }


def colour(image: np.ndarray, mask: np.ndarray) -> float:
    """Share of the colour variance of an image (h, w, 3) that lies between the segments of its mask (h, w), less the
    same with the mask mirrored left to right: what a mask of that shape explains by chance."""

    def between(mask: np.ndarray) -> float:
        _, segment = np.unique(mask, return_inverse=True)
        count = np.bincount(segment.ravel())
        sums = np.stack([np.bincount(segment.ravel(), channel) for channel in pixels.T])
        return float((sums**2 / count).sum())

    pixels = image.reshape(-1, 3).astype(np.float64)
    pixels -= pixels.mean(0)
    total = float((pixels**2).sum())
    return (between(mask) - between(mask[:, ::-1])) / total if total else 0.0


def measure(config: PipelineConfig, progress: Progress = silent) -> Json:
    """One cell: scores with labels, criteria without."""
    result = run(config, until="scores", progress=progress)
    content = result.artifact("scores").read_json("scores.json")
    plain = label_maps(result.artifact("masks"), result.images.images, crf=False)
    values = [colour(result.image(name), mask) for name, mask in plain.items() if mask.size]
    return {
        "clusters": round(result.scores.cluster.miou, 2),
        "probe": round(result.scores.linear_tokens.miou, 2),
        **{name: round(value, 4) for name, value in content["label_free"].items()},
        "colour": round(float(np.mean(values)), 4),
        "date": result.artifact("scores").manifest["written"][:10],
    }


def page(results: Json) -> str:
    """docs/choices.md."""
    sets = results["sets"]
    parts = []
    for name, entry in sets.items():
        if cells := entry.get("features"):
            columns = ["clusters", "probe", *CRITERIA]
            best = {key: max(cells, key=lambda variant, key=key: cells[variant][key]) for key in columns}
            rows = [
                [variant, *(f"**{cell[key]}**" if best[key] == variant else str(cell[key]) for key in columns)]
                for variant, cell in cells.items()
            ]
            worth = ", ".join(f"{key} {cells[best[key]]['clusters']}" for key in CRITERIA)
            most = cells[best["clusters"]]["clusters"]
            last = f"mIoU of what each criterion chooses: {worth}; of the best variant {most}."
            parts.append(f"### {visible(name)}\n\n{markdown(['variant', *columns], rows)}\n\n{last}")
    kinds = list(dict.fromkeys(kind for entry in sets.values() for kind in entry.get("views", {})))
    shown = [
        [kind, *(str(entry.get("views", {}).get(kind, {}).get("clusters", "–")) for entry in sets.values())]
        for kind in kinds
    ]
    counted = [
        [visible(name), str(found["classes"]), str(found["k"]), f"{found['groups']:.1f}", told_peaks(found["peaks"])]
        for name, entry in sets.items()
        if (found := entry.get("k"))
    ]
    kinds_of_view = (
        f"""
## Kinds of view, with STEGO's head

mIoU of clusters, percent, one seed, 2 000 steps. Five crops are views of training alone; prediction sees whole images.

{markdown(["view", *sets], shown)}
"""
        if kinds
        else ""
    )
    explained = "\n".join(f"- `{name}`: {what}" for name, what in CRITERIA.items())
    return f"""# Choosing block, facet, size and kind of view

Written by `benchmarks/choices.py` from [choices.json](../benchmarks/choices.json): `make choices DATA=FOLDER`, seed
{results["seed"]}, {results["date"]}, {results["machine"]}, {results["commit"]}. Packaged weights (trained further for
saliency), K = number of classes, protocol `full`, guided masks without CRF.

## Block, facet and size, without training

`clusters` and `probe` are mIoU in percent and take labels: of k-means on the tokens, and of a linear probe on them. The
others read images alone, and larger is better:

{explained}

The best of each column is bold. Sizes are relative to the view of the set, at block 8.

{chr(10).join(f"{part}{chr(10)}" for part in parts)}
## How many clusters

What the stage `suggestion` answers where `clusters.k` is not given, block 8. The number of classes is what the labels
distinguish, which need not be what the images show.

{markdown(["data set", "classes", "suggested K", "effective groups", "peaks of stability"], counted)}
{kinds_of_view}"""


def told_peaks(peaks: list[tuple[int, float]]) -> str:
    """In words."""
    return ", ".join(f"{k} ({value:.2f})" for k, value in peaks) or "none"


def count(config: PipelineConfig, progress: Progress = silent) -> Json:
    """What `suggestion` finds, and the number of classes."""
    free = config.clusters.model_copy(update={"k": None})
    result = run(config.model_copy(update={"clusters": free}), until="suggestion", progress=progress)
    artifact = result.artifact("suggestion")
    found = artifact.read_json("suggestion.json")
    return {"classes": config.clusters.k, **found, "date": artifact.manifest["written"][:10]}


app = App(name="choices", help=__doc__, version_flags=[])
Names = Annotated[str | None, Parameter(help="Names, separated by commas; default: all.")]


@app.default
def choices(*, data: Path, sets: Names = None, what: Names = None, store: str = ".quality", seed: int = 0) -> int:
    """Measure what is missing in choices.json, write docs/choices.md.

    Parameters
    ----------
    data
        Folder of labelled sets: NAME/{images,labels}/{train,val}/… and NAME/dataset.yaml.
    what
        features, k, views: separated by commas.
    store
        Where artifacts stay for the next call.
    """
    roots = find_sets(data)
    parts = chosen("--what", what, ["features", "k", "views"])
    files = ROOT / "benchmarks/choices.json", ROOT / "docs/choices.md"
    results = read(files[0]) if files[0].is_file() else {"seed": seed, "sets": {}}
    if results["seed"] != seed:
        raise ConfigError(f"{files[0].name} holds seed {results['seed']}", next=f"--seed {results['seed']}")
    commit()  # as it is now: this is the program that runs
    for name in chosen("--sets", sets, list(roots)):
        size = VIEWS.get(name, [322, 322])
        for part in parts:
            changes = {"features": variants(size), "k": {"k": {}}, "views": kinds(size)}[part]
            for variant, change in changes.items():
                entry = results["sets"].setdefault(name, {})
                if part in entry and (part == "k" or variant in entry[part]):
                    continue
                base = copy.deepcopy(BASE)
                base["features"] |= {"views": {"size": size}} | change
                head = "stego+guided" if part == "views" else "none+guided"
                before, label = time.monotonic(), f"{visible(name)} {variant}:"
                config = config_of(base, roots[name], store, head, seed, False, None)
                cell = (count if part == "k" else measure)(config, ticker(label))
                if part == "k":
                    entry["k"] = cell
                else:
                    entry.setdefault(part, {})[variant] = cell
                results |= {"date": cell["date"], "machine": machine(), "commit": commit()}
                write(files[0], dump(results) + "\n")
                write(files[1], page(results))
                said = f"K = {cell['k']}" if part == "k" else f"mIoU {cell['clusters']}"
                show(f"{label} {said}  ({time.monotonic() - before:.0f} s)\n")
    print(f"{files[0]}\n{files[1]}")
    return 0


def main() -> None:
    """Exit status 0; 2 for what cannot be used."""
    try:
        sys.exit(app(sys.argv[1:], result_action="return_value"))
    except StegoflowError as error:
        print(f"error: {render_error(error)}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
