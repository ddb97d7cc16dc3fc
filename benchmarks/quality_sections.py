"""Sections of docs/results.md on what groups are worth to a person. Pure functions of quality.json."""

import statistics
from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]
CUTS = ("10", "25", "50", "100", "200")
TEXT = """## Named cuts

Each group of a cut into 10, 25, 50, 100 and 200 is named by the majority of the *training* labels, in at most 100
training images, and scored on val (mIoU); no match is sought. `share` compares methods: the mean of that curve
over the logarithm of the number of groups, as percent of the way from k-means on tokens at K (one Hungarian match) to
the linear probe on tokens. It is of the cuts that a tree has: where these are fewer, compare the columns instead. Heads
whose clusters are K prototypes are clustered again for this with 256 of them, each a piece of one of the K clusters.

{shares}

{cuts}

## Boundaries

mIoU of the pixels that lie within 5 pixels of a border of the label map (pixels to ignore have one too), with the match
of all pixels: masks without CRF, K groups.

{boundaries}

## Ten lines of colour

What a user has without a backbone: k-means of every pixel's blurred colour (Gaussian, 1 % of the shorter side) and the
local deviation of grey, each channel standardised (`benchmarks/quality_colour.py`).

{colour}"""


def sections(sets: dict[str, Json], labels: dict[str, str], usual: list[str]) -> str:
    """The sections. `labels` are the names of heads, `usual` the seeds that need not be named beside a number."""
    cells = {name: {head: found["seeds"] for head, found in entry["heads"].items()} for name, entry in sets.items()}

    def rows(key: str) -> list[list[str]]:
        return [
            [label, *(shown(of.get(head, {}), usual, key) for of in cells.values())] for head, label in labels.items()
        ]

    def colour(key: str) -> list[str]:
        return [shown(one_by_seed(of.values(), "colour"), usual, "colour", key) for of in cells.values()]

    tokens = [shown(one_by_seed(of.values(), "boundary_baseline"), usual, "boundary_baseline") for of in cells.values()]
    cuts = [
        [name, label, *(shown(of[head], usual, "named", n) for n in CUTS), shown(of[head], usual, "share")]
        for name, of in cells.items()
        for head, label in labels.items()
        if any(cell.get("named") for cell in of.get(head, {}).values())
    ]
    return TEXT.format(
        shares=markdown(["head: share", *sets], rows("share")),
        cuts=markdown(["data set", "head", *(f"{n} groups" for n in CUTS), "share"], cuts or [["–"] * (len(CUTS) + 3)]),
        boundaries=markdown(
            ["head", *sets],
            [*rows("boundary"), ["k-means on tokens, bilinear", *tokens], ["colour", *colour("boundary")]],
        ),
        colour=markdown(
            ["", *sets],
            [["K = classes, one Hungarian match", *colour("k")], ["50 groups, named", *colour("named")]],
        ),
    )


def one_by_seed(heads: Iterable[Json], key: str) -> Json:
    """For each seed the cell of the first head that holds `key`, which does not depend on the head."""
    found: Json = {}
    for seeds in heads:
        for seed, cell in seeds.items():
            if cell.get(key) is not None:
                found.setdefault(seed, cell)
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def shown(seeds: Json, usual: list[str], *path: str) -> str:
    """`mean ± sd` over seeds of what cells hold at a path, with its seeds where they are not the usual ones; a dash for
    nothing."""
    values = {seed: value for seed, cell in seeds.items() if (value := at(cell, *path)) is not None}
    if not values:
        return "–"
    sd = f" ± {statistics.stdev(values.values()):.1f}" if len(values) > 1 else ""
    note = "" if list(values) == usual else f" (seed {', '.join(values)})"
    return f"{statistics.mean(values.values()):.1f}{sd}{note}"


def at(cell: Json, *path: str) -> float | None:
    """What a cell holds at a path of keys; None where it holds nothing there."""
    found: Any = cell
    for key in path:
        found = None if found is None else found.get(key)
    return found


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
