"""docs/annotate.md and its plot, from annotate.json alone."""

from collections.abc import Iterable
from statistics import mean

from annotate_person import IMAGES, MODES, NAMED, SHOWN  # beside this file
from quality_results import Json, markdown

GOALS = {"50": (60, 40), "200": (80, None)}
"""Interactions: the goal for the mean of the sets, and that for each, in percent of the distance."""
WIDTH, HEIGHT, LEFT, TOP = 520, 260, 46, 14
COLOURS = {"names": "#e69f00", "clicks": "#56b4e9", "both": "#009e73", "next": "#d55e00"}


def share(cell: Json, mode: str, count: str) -> float | None:
    """How far a curve has come from k-means on tokens (0) to the linear probe on tokens (100)."""
    value = cell["curves"].get(mode, {}).get(count)
    ends = cell.get("ends", {})
    return None if value is None else 100 * (value - ends["kmeans"]) / (ends["probe"] - ends["kmeans"])


def of_set(seeds: Json, mode: str, count: str) -> float | None:
    """The mean share over seeds."""
    return _mean(share(cell, mode, count) for cell in seeds.values())


def counts(results: Json) -> list[str]:
    """Numbers of interactions that were measured."""
    cells = [cell for seeds in results["sets"].values() for cell in seeds.values()]
    found = {n for cell in cells for values in cell["curves"].values() for n in values}
    return sorted(found, key=int)


def page(results: Json) -> str:
    """The Markdown page."""
    sets, known = results["sets"], counts(results)
    means, goals = _means(results), _goals(results)
    cells = [cell for seeds in sets.values() for cell in seeds.values() if "ends" in cell]
    rows = []
    for name, seeds in sets.items():
        ends = [cell["ends"] for cell in seeds.values() if "ends" in cell]
        ends_text = "{:.1f} → {:.1f}".format(*(mean(end[key] for end in ends) for key in ("kmeans", "probe")))
        for mode, title in MODES.items():
            values = [_mean(cell["curves"].get(mode, {}).get(n) for cell in seeds.values()) for n in known]
            texts = [
                "–" if value is None else f"{value:.1f} ({of_set(seeds, mode, n):.0f})"
                for n, value in zip(known, values, strict=True)
            ]
            rows.append([f"{name}, {ends_text}", title, *texts])
    commits = ", ".join(sorted({cell["commit"] or "?" for cell in cells}))
    seeds = ", ".join(sorted({seed for each in sets.values() for seed in each}))
    return f"""# How much a minute of a person is worth

Written by `benchmarks/annotate.py` from [annotate.json](../benchmarks/annotate.json); commit {commits}, seeds {seeds}.
`make annotate DATA=FOLDER` measures it again.

A simulated person answers from the labels of *training* images. It names groups of the tree by the majority of {SHOWN}
patches of each, splits mixed ones, and clicks the middle of the largest error that it sees in {IMAGES} images: any, or
(where next) those that the program proposes. A name, a split and a click are one interaction each. With both, the
first {NAMED} interactions go to names. The classifier is that of the stage `classes`, on cached tokens. mIoU of
the val split, on a grid of 4 × 4 places per patch, upsampled bilinearly; no val image is clicked. Distance: from
k-means on tokens with K = classes, matched, to a linear probe on tokens that was trained with every training label, on
the same grid.

![Share of the distance against interactions](annotate.svg)

## Share of the distance, percent, mean of {len(sets)} sets

{means}

{goals}.

## mIoU by set (share of the distance)

{markdown(["set, k-means → probe", "what is said", *known], rows)}
"""


def summary(results: Json) -> str:
    """The section of docs/results.md."""
    return f"""
## What a person wins in minutes

A simulated person names groups, splits mixed ones and clicks errors of training images; how far that comes from k-means
on tokens (0 %) to the linear probe on tokens (100 %), mean of {len(results["sets"])} sets. How, and each set:
[annotate.md](annotate.md).

![Share of the distance against interactions](annotate.svg)

{_means(results)}

{_goals(results)}.
"""


def _means(results: Json) -> str:
    """The table of means over sets."""
    known, sets = counts(results), results["sets"].values()
    rows = [
        [name, *(_percent(_mean(of_set(seeds, mode, n) for seeds in sets)) for n in known)]
        for mode, name in MODES.items()
    ]
    return markdown(["interactions", *known], rows)


def _goals(results: Json) -> str:
    known = counts(results)
    return ". ".join(_goal(results, n, *wanted) for n, wanted in GOALS.items() if n in known)


def _goal(results: Json, count: str, wanted: int, least: int | None) -> str:
    """What came of a goal, with both and where next."""
    found = {name: of_set(seeds, "next", count) for name, seeds in results["sets"].items()}
    values = [value for value in found.values() if value is not None]
    if not values:
        return f"{count} interactions: not measured"
    low = min((value, name) for name, value in found.items() if value is not None)
    each = f", no set below {least}" if least else ""
    reached = f"{mean(values):.0f} % (goal: {wanted}{each}; the lowest is {low[1]} with {low[0]:.0f})"
    return f"With both and where next, {count} interactions come to {reached}"


def plot(results: Json) -> str:
    """The curves as SVG: share of the distance against interactions, which are on a logarithmic axis."""
    known = counts(results)
    places = {n: LEFT + WIDTH * at / max(1, len(known) - 1) for at, n in enumerate(known)}

    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - max(-20.0, min(100.0, value)) / 100)

    lines = [
        f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#8884"/>'
        f'<text x="{LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v}</text>'
        for v in range(0, 101, 20)
    ]
    lines += [f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{n}</text>' for n, x in places.items()]
    for number, (mode, name) in enumerate(MODES.items()):
        found = {n: _mean(of_set(seeds, mode, n) for seeds in results["sets"].values()) for n in known}
        points = " ".join(f"{places[n]:.1f},{y(value):.1f}" for n, value in found.items() if value is not None)
        lines.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[mode]}" stroke-width="2.5"/>')
        at = LEFT + 12, TOP + 16 + 18 * number
        lines.append(f'<rect x="{at[0]}" y="{at[1] - 9}" width="14" height="4" fill="{COLOURS[mode]}"/>')
        lines.append(f'<text x="{at[0] + 20}" y="{at[1]}">{name}</text>')
    title = f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">interactions</text>'
    body = "\n".join([*lines, title])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 24} {TOP + HEIGHT + 48}" '
        f'font-family="sans-serif" font-size="12" fill="#888">\n{body}\n</svg>\n'
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
