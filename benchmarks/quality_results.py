"""What benchmarks/quality.json holds: merging into it, docs/results.md and a table from it. Pure functions."""

import copy
import shlex
import statistics
from typing import Any

from quality_sections import markdown, sections, shown  # beside this file
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pipeline.core.errors import ConfigError
from pipeline.terminal import visible

Json = dict[str, Any]
KINDS = {"without": "cluster", "with": "cluster_crf", "probe_codes": "linear", "probe_tokens": "linear_tokens"}
"""What a cell holds, by what `scores` calls it. `without` and `with` CRF."""
KEYS = ("accuracy", "miou")
WORTH = ("named", "share", "boundary", "boundary_baseline", "colour")
"""What a cell holds beside scores: see `quality_named.worth` and `quality_colour.worth`. Older cells have none."""
VALUES = (*KINDS, "seconds", "clusters", *WORTH)


def start(results: Json | None, settings: Json) -> Json:
    """The results to merge into; ConfigError where they were measured with other settings."""
    results = results or {"date": None, "machine": None, "commit": None, **settings, "sets": {}}
    for name, value in settings.items():
        if results.get(name) != value:
            why = f"quality.json was measured with {name} {results.get(name)}, not {value}"
            raise ConfigError(why, next="--out FOLDER for other numbers, or remove quality.json")
    return results


def merge(results: Json, name: str, facts: Json, head: str, seed: int, cell: Json) -> Json:
    """New results in which one cell is replaced.

    A cell of the same values keeps its date, machine and commit. A score with CRF that was not measured this time is
    kept where clusters and the score without CRF are the same; of a set whose images or labels changed, nothing is.
    """
    results = copy.deepcopy(results)
    old = results["sets"].get(name)
    if old is None or changed(old, facts):
        old = results["sets"][name] = {**facts, "heads": {}}
    seeds = old["heads"].setdefault(head, {"seeds": {}})["seeds"]
    before = seeds.get(str(seed))
    if before and not cell["with"] and all(before[key] == cell[key] for key in ("clusters", "without")):
        cell = {**cell, "with": before["with"]}
    if before and all(before.get(key) == cell.get(key) for key in VALUES):
        return results
    seeds[str(seed)] = cell
    results |= {key: cell[key] for key in ("date", "machine", "commit")}
    results["sets"] = dict(sorted(results["sets"].items()))
    for entry in results["sets"].values():
        entry["heads"] = {method: _summary(entry["heads"][method]["seeds"]) for method in sorted(entry["heads"])}
    return results


def cell_of(results: Json, name: str, head: str, seed: int) -> Json | None:
    """A cell that is known already."""
    heads = results["sets"].get(name, {"heads": {}})["heads"]
    return heads.get(head, {"seeds": {}})["seeds"].get(str(seed))


def changed(entry: Json, facts: Json) -> bool:
    """Whether a set is another one than was measured."""
    return any(entry[key] != value for key, value in facts.items())


def _summary(seeds: Json) -> Json:
    seeds = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
    spread = {kind: {key: _spread(seeds, kind, key) for key in KEYS} for kind in KINDS}
    seconds = statistics.mean(sum(cell["seconds"].values()) for cell in seeds.values())
    both = ({kind: {key: pair[at] for key, pair in keys.items()} for kind, keys in spread.items()} for at in (0, 1))
    return {"seeds": seeds, **dict(zip(("mean", "sd"), both, strict=True)), "seconds": round(seconds, 2)}


def _spread(seeds: Json, kind: str, key: str) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None of nothing, and the latter of one value."""
    values = [cell[kind][key] for cell in seeds.values() if cell[kind]]
    sd = round(statistics.stdev(values), 4) if len(values) > 1 else None
    return (round(statistics.mean(values), 4) if values else None), sd


def page(results: Json) -> str:
    """The page of results."""
    sets, seeds = results["sets"], _seeds(results)
    heads = _heads(results)
    tries = "" if results["steps"] is None else f"**A try with {results['steps']} training steps, not results.**\n"
    weights = results["weights"] + (" (trained further for saliency)" if results["weights"] == "packaged" else "")
    backbone = f"{results['backbone']}, weights {weights}, block {results['block']}"
    corpora = [[name, *_corpus(entry)] for name, entry in sets.items()]
    seconds = [[_label(head), *(_seconds(e["heads"].get(head)) for e in sets.values())] for head in heads]
    return f"""# Results by data set and head

Written by `benchmarks/quality.py` from [quality.json](../benchmarks/quality.json), {results["date"]}. It comes from:

```bash
{command(results)}
```

{tries}Percent, mean ± sample standard deviation over seeds {", ".join(seeds)} (`head.seed` = `clusters.seed`), protocol
`{results["protocol"]}`, one Hungarian match. Masks are upsampled bilinearly, as published, or guided by the image
where it says so. Training sees whole images, or STEGO's five crops of each where it says so; prediction sees whole
images. Backbone {backbone}.
K is the number of classes; nothing else is taken from labels but scores, probes and the names of named cuts. The linear
probes are trained with labels, only to measure. On tokens it is the limit to hold clusters against (a head that is not
linear may pass it).{_mixed(results)}

## mIoU

{markdown(["head", *sets], _rows(results, "miou"))}

## Accuracy

{markdown(["head", *sets], _rows(results, "accuracy"))}

{sections(sets, {head: _label(head) for head in heads}, seeds)}

## Seconds

Of the stages head and clusters together, mean over seeds: a method's own cost, on the machine below. It is wall time,
and longer where other programs ran at the same time.

{markdown(["head", *sets], seconds)}

## What was measured

{markdown(["data set", "view in pixels", "images", "K"], corpora)}

{markdown(["date", "machine", "commit", "cells: data set, head, seed"], _origins(results))}
"""


def command(results: Json) -> str:
    """The command that measures every cell of the results, and those that are missing of their grid."""
    cells = [cell for e in results["sets"].values() for h in e["heads"].values() for cell in h["seeds"].values()]
    words = ["python", "benchmarks/quality.py", "--data", "FOLDER", "--sets", ",".join(results["sets"])]
    words += ["--heads", ",".join(_heads(results)), "--seeds", ",".join(_seeds(results))]
    words += [] if any(cell["with"] for cell in cells) else ["--no-crf"]
    words += [] if results["steps"] is None else ["--steps", str(results["steps"])]
    return shlex.join(words)


def table(results: Json, grid: list[tuple[str, str, int]]) -> Table:
    """The data sets and heads of a grid."""
    found = Table("", title=f"percent, protocol {results['protocol']}", title_justify="left", box=SIMPLE_HEAD)
    for name in ("accuracy", "mIoU", "acc., CRF", "mIoU, CRF", "s", "named", "share"):
        found.add_column(name, justify="right")
    seeds = _seeds(results)
    for name in dict.fromkeys(name for name, _, _ in grid):
        entry = results["sets"].get(name, {"heads": {}})
        found.add_row(Text(visible(name), "bold"))
        for head in dict.fromkeys(head for _, head, _ in grid):
            known = entry["heads"].get(head)
            cells = [_shown(known, kind, key, seeds) for kind in ("without", "with") for key in KEYS]
            of_seeds = known["seeds"] if known else {}
            paths = (("named", "50"), ("share",))
            found.add_row(head, *cells, _seconds(known), *(shown(of_seeds, seeds, *path) for path in paths))
            if known and head != "none" and "+" not in head:
                found.add_row(" probe on codes", *(_shown(known, "probe_codes", key, seeds) for key in KEYS))
        found.add_row("probe on tokens", *(_on_tokens(entry, key) for key in KEYS))
        found.add_section()
    return found


def _rows(results: Json, key: str) -> list[list[str]]:
    sets, seeds = results["sets"].values(), _seeds(results)
    kinds = {"without": "{}", "with": "{}, CRF", "probe_codes": "linear probe on codes of {} (with labels)"}
    rows = []
    for kind, label in kinds.items():
        for head in _heads(results):
            # The codes of `none` are the tokens, and how masks are upsampled changes no code.
            if kind == "without" or ("+" not in head and (kind, head) != ("probe_codes", "none")):
                cells = (_shown(entry["heads"].get(head), kind, key, seeds) for entry in sets)
                rows.append([label.format(_label(head)), *cells])
    return [*rows, ["linear probe on tokens (with labels)", *(_on_tokens(entry, key) for entry in sets)]]


def _shown(entry: Json | None, kind: str, key: str, usual: list[str]) -> str:
    """`mean ± sd` of a head on a set, with its seeds where they are not the usual ones; a dash for nothing."""
    if not entry or entry["mean"][kind][key] is None:
        return "–"
    sd = entry["sd"][kind][key]
    seeds = [seed for seed, cell in entry["seeds"].items() if cell[kind]]
    note = "" if seeds == usual else f" (seed {', '.join(seeds)})"
    return f"{entry['mean'][kind][key]:.1f}" + (f" ± {sd:.1f}" if sd is not None else "") + note


def _on_tokens(entry: Json, key: str) -> str:
    """Of the linear probe on tokens of whole views, which does not depend on head or seed: one number per set."""
    heads = (content for head, content in entry["heads"].items() if not head.endswith("+crops"))
    found = [content["mean"]["probe_tokens"][key] for content in heads]
    known = [value for value in found if value is not None]
    return f"{statistics.mean(known):.1f}" if known else "–"


def _seconds(entry: Json | None) -> str:
    return f"{entry['seconds']:.1f}" if entry else "–"


def _corpus(entry: Json) -> tuple[str, str, str]:
    images = ", ".join(f"{count} {split or 'in one split'}" for split, count in entry["images"].items())
    return "×".join(str(side) for side in entry["views"]), images, str(entry["k"])


def _origins(results: Json) -> list[list[str]]:
    """When, where and with which commit: a row for each that differs, with its cells."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, entry in results["sets"].items():
        for head, content in entry["heads"].items():
            for seed, cell in content["seeds"].items():
                source = cell["date"], cell["machine"], cell["commit"] or "not known"
                found.setdefault(source, []).append(f"{name} {head} {seed}")
    return [[*source, "all" if len(found) == 1 else "; ".join(found[source])] for source in sorted(found)]


def _mixed(results: Json) -> str:
    """A paragraph that names the data sets and heads whose seeds were measured with several commits."""
    commits = {
        f"{name} {head}": {cell["commit"] for cell in content["seeds"].values()}
        for name, entry in results["sets"].items()
        for head, content in entry["heads"].items()
    }
    mixed = [cells for cells, found in commits.items() if len(found) > 1]
    why = "Seeds of several commits, so that ± is more than the spread of seeds (see the last table)"
    return f"\n\n{why}: {'; '.join(mixed)}." if mixed else ""


def _heads(results: Json) -> list[str]:
    return sorted({head for entry in results["sets"].values() for head in entry["heads"]})


def _seeds(results: Json) -> list[str]:
    heads = [head for entry in results["sets"].values() for head in entry["heads"].values()]
    return sorted({seed for head in heads for seed in head["seeds"]}, key=int)


def _label(head: str) -> str:
    name, *changes = head.split("+")
    name = "none (k-means on tokens)" if name == "none" else name
    return ", ".join([name, *(change.replace("crops", "trained on five crops") for change in changes)])
