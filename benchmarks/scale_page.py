"""docs/scale.md and its plot, from scale.json alone."""

from typing import Any

from quality_results import markdown  # beside this file

Json = dict[str, Any]
COMMANDS = {"plan": "first `plan`", "second_plan": "second `plan`", "status": "`status`", "export": "`export`"}
WIDTH, HEIGHT, LEFT, TOP = 520, 240, 56, 14
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#999999")
PER_IMAGE = ("features", "masks", "scores")
# What the arithmetic of larger corpora begins with.
VIEW_BYTES = 23 * 23 * 384 * 2
VIEWS_PER_SECOND = 1000.0
WORKERS = 64
GPU_DOLLARS, PUT_DOLLARS, GET_DOLLARS, MONTH_DOLLARS = 2.0, 5e-6, 4e-7, 0.023


def page(found: Json) -> str:
    """The Markdown page."""
    runs = found["runs"]
    ratios = [
        [name, f"{value:.2f}", f"{each:.2f}" if each else "–"]
        for name, value, each in (
            (name, value, found["seconds_per_view_ratio_by_stage"].get(name))
            for name, value in found["memory_ratio_by_command"].items()
        )
    ]
    large = runs[-1]
    sizes = "; ".join(
        f"{run['views']:,} images ({run['begun']} to {run.get('ended', '…')}, load {run['load']:.0f})" for run in runs
    )
    return f"""# A large corpus

Written by `benchmarks/scale.py` from [scale.json](../benchmarks/scale.json). `make scale` measures it again,
`make scale ARGS='--views 10000 1000000'` other sizes. Images of 32 × 32 pixels with label maps, one view of 2 × 2
tokens each, timm's `test_vit` with random weights, bilinear masks of 8 groups: what is measured is what a view costs
beside the backbone. Two worker processes on {found["machine"]}, which others used too:
seconds say little, CPU seconds and ratios more. Memory is the peak of the largest process of a command. Each stage is
a command of its own, which lists all files first.

Measured: {sizes}. {_cut_short(runs)}

## The largest against the smallest

{markdown(["command", "peak memory, ratio", "CPU milliseconds per image in parts, ratio"], ratios)}

Largest process of all: {found["memory_ratio"]:.2f} × (goal: 1.2). What is fitted (neighbours, head, clusters,
probe, baseline, the label-free scores) sees 100 000 training views at most, and a corpus of 10,000 has fewer: there the
peak grows up to that sample, and not beyond. {_per_image(found)}

{_second_plan(large)}
{_resumed(large)}{_grown(large)}
![CPU milliseconds per image against images](scale.svg)

Of features, masks and scores what an image takes inside of the parts, the median; of the second plan all of it, where
a small corpus pays for the start of the process. How fast a core is depended on what else ran, by a factor of about
1.6: a ratio below 1 says that nothing grows with the corpus, and no more.

{"".join(_table(run) for run in runs)}{PAPER}
{arithmetic()}

What breaks first, as far as the code says:

{markdown(["at", "what"], [list(row) for row in BREAKS])}
"""


def _second_plan(run: Json) -> str:
    if "second_plan" not in run:
        return ""
    row = run["second_plan"]
    return f"Second `plan` of {run['views']:,} images: {row['seconds']} s, {row['cpu']} CPU seconds (goal: 60 s)."


def _per_image(found: Json) -> str:
    ratios = found["seconds_per_view_ratio_by_stage"]
    if not ratios:
        return "CPU milliseconds per image in a part: not compared, the smallest corpus has too few parts for that."
    most = found["seconds_per_view_ratio"]
    first, last = found["runs"][0], found["runs"][-1]
    rows = ((name, first["stages"][name]["item_ms"], last["stages"][name]["item_ms"]) for name in ratios)
    each = ", ".join(f"{name} {before} → {after}" for name, before, after in rows)
    return f"CPU milliseconds per image inside of the parts: {each}; at most {most:.2f} × (goal: 1.1)."


def _cut_short(runs: list[Json]) -> str:
    """What was not done to its end, and the notes of a person."""
    said = []
    for run in runs:
        said += [run["note"]] if "note" in run else []
        masks = run["stages"].get("masks", {})
        if "images" in masks:
            each = masks["item_ms"] / 1000 * run["views"]
            said.append(
                f"Of {run['views']:,} images masks were stopped after {masks['images']:,}: all of them would have "
                f"taken {each:,.0f} CPU seconds, which the shared machine did not have that day. So scores, report and "
                "export of them were not measured."
            )
    return " ".join(said)


def _table(run: Json) -> str:
    rows = []
    for name, row in [*run["stages"].items(), *((text, run[key]) for key, text in COMMANDS.items() if key in run)]:
        objects, size = (f"{row[key]:,}" if key in row else "–" for key in ("objects", "bytes"))
        name += f" ({row['images']:,} images)" if "images" in row and name != "`export`" else ""
        name += f" (beyond {row['kept']:,} images that were done before)" if "kept" in row else ""
        rows.append([name, f"{row['seconds']:.1f}", f"{row['cpu']:.1f}", f"{row['memory']:.0f}", objects, size])
    head = ["", "seconds", "CPU seconds", "peak MiB", "objects", "bytes"]
    return f"## {run['views']:,} images\n\n{markdown(head, rows)}\n\n"


def _resumed(run: Json) -> str:
    facts = run.get("resume")
    if not facts:
        return ""
    return (
        f"\n\nSIGKILL of all processes of `features` half-way: {facts['parts_kept']} parts were kept, the next run "
        f"made the other {facts['parts_run']}, the first of them after {facts['start_s']} s. "
    )


def _grown(run: Json) -> str:
    facts = run.get("grown")
    if not facts:
        return "\n"
    new = facts["items"] - facts["copied"]
    return (
        f"{facts['images']:,} images more: {new:,} of {facts['items']:,} views went through the backbone, the others "
        f"were copied ({facts['features']['cpu']:.0f} CPU seconds).\n"
    )


def plot(found: Json) -> str:
    """CPU milliseconds per image against images, both on logarithmic axes, as SVG."""
    from math import log10

    runs = found["runs"]
    series = {}
    for name in PER_IMAGE:
        there = [run for run in runs if run["stages"].get(name, {}).get("item_ms")]
        series[name] = [(run["views"], run["stages"][name]["item_ms"]) for run in there]
    there = [run for run in runs if "second_plan" in run]
    series["second plan"] = [(run["views"], 1000 * run["second_plan"]["cpu"] / run["views"]) for run in there]
    series = {name: points for name, points in series.items() if points}
    x0, x1 = log10(runs[0]["views"]), log10(max(runs[-1]["views"], 10 * runs[0]["views"]))
    low, high = -2.0, 2.0

    def place(views: float, value: float) -> str:
        across = (log10(views) - x0) / (x1 - x0)
        up = (log10(max(value, 10**low)) - low) / (high - low)
        return f"{LEFT + WIDTH * across:.1f},{TOP + HEIGHT * (1 - up):.1f}"

    lines = []
    for power in range(int(low), int(high) + 1):
        y = TOP + HEIGHT * (1 - (power - low) / (high - low))
        lines.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} ms</text>')
    for run in runs:
        x = place(run["views"], 1).split(",")[0]
        lines.append(f'<text x="{x}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{run["views"]:,}</text>')
    for number, (name, points) in enumerate(series.items()):
        drawn = " ".join(place(*point) for point in points)
        lines.append(f'<polyline points="{drawn}" fill="none" stroke="{COLOURS[number]}" stroke-width="2.5"/>')
        for point in points:
            across, up = place(*point).split(",")
            lines.append(f'<circle cx="{across}" cy="{up}" r="3.5" fill="{COLOURS[number]}"/>')
        at = LEFT + WIDTH - 110, TOP + 16 + 18 * number
        lines.append(f'<rect x="{at[0]}" y="{at[1] - 9}" width="14" height="4" fill="{COLOURS[number]}"/>')
        lines.append(f'<text x="{at[0] + 20}" y="{at[1]}">{name}</text>')
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 40} {TOP + HEIGHT + 30}" '
        f'font-family="sans-serif" font-size="12" fill="#888">\n{body}\n</svg>\n'
    )


def arithmetic() -> str:
    """10⁷ to 10⁹ views on paper."""
    rows = []
    for power in (7, 8, 9):
        views = 10.0**power
        part = 32  # views of 406 kB in 16 MiB
        parts = views / part
        objects = 3 * parts  # tokens, mean, marker
        gpu_hours = views / VIEWS_PER_SECOND / 3600
        size = views * VIEW_BYTES
        puts, gets = objects, 2 * views + 2 * parts  # a header and all of an image; a look at a marker, and its reading
        rows.append(
            [
                f"10{'⁷⁸⁹'[power - 7]}",
                f"{gpu_hours / WORKERS:,.1f} h",
                f"{size / 1e12:,.0f} TB ({size / 4e12:,.0f} as int8)",
                f"{objects:,.0f}",
                f"{puts:,.0f} PUT, {gets:,.0f} GET",
                f"{gpu_hours * GPU_DOLLARS:,.0f} + {puts * PUT_DOLLARS + gets * GET_DOLLARS:,.0f}",
                f"{size / 1e9 * MONTH_DOLLARS:,.0f}",
            ]
        )
    head = [
        "views",
        f"{WORKERS} GPUs",
        "tokens",
        "objects",
        "requests",
        "dollars: GPUs + requests",
        "dollars a month to keep",
    ]
    return markdown(head, rows)


PAPER = f"""## On paper: 10⁷ to 10⁹ views

Nothing of this was run. Features alone, of ViT-S/14 with 23 × 23 tokens of 384 channels: {VIEW_BYTES / 1000:.0f} kB a
view, 32 views a part; {VIEWS_PER_SECOND:.0f} views a second and GPU (an assumption: `make bench` measures it),
{WORKERS} GPUs at {GPU_DOLLARS:.0f} dollars an hour, S3 at 5 dollars a million PUT, 0.4 a million GET, 0.023 a GB and
month. Hours are views ÷ rate ÷ GPUs; objects three a part (tokens, mean, marker), each one PUT; GET two an image
(its header, and all of it) and two a part.
"""
BREAKS = (
    (
        "10⁷",
        "Copying rows of an earlier artifact holds 50 bytes a view in the run's process: 0.5 GB, where there is an "
        "earlier one. A flat folder of so many files is listed with its names in memory: 1 GB; sub-folders are not.",
    ),
    ("10⁷", "The explorer's search index is in memory whole; an export holds the names of the images that it writes."),
    (
        "10⁸",
        "The run's process reads every marker once at the end of `features`, `masks` and `scores`: 3 million GET each, "
        "eight at a time, three hours at 30 ms. Their names are a list: 0.3 GB.",
    ),
    (
        "10⁸",
        "One process lists the files: a bucket gives 1000 a request, so 100 000 requests, an hour at 40 ms. It reads "
        "the head of each new object: 10⁸ requests, eight at a time, four days at 30 ms.",
    ),
    (
        "10⁹",
        "The scheduler: 31 million tasks at some hundred a second are days. Parts should then be larger than 16 MiB, "
        "or several to a task.",
    ),
    (
        "never",
        "Neighbours, head, clusters, probe and baseline: they are fitted on 100 000 training views, however many there "
        "are. FAISS then holds 100 000 × 384 float32, 154 MB, and compares blocks of 4096 queries with all of them: "
        "exactly, so neither an index on disk nor one in shards is wanted.",
    ),
)
"""What grows with the corpus still."""
