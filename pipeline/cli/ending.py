"""What the end of a run says: groups and their shares, scores, what ran, where the report is, what to do next."""

from typing import Any

from rich.table import Table
from rich.text import Text

from pipeline.api import NEWEST_REPORT
from pipeline.cli.tables import command, console, near, scores_table, table
from pipeline.core.store import open_store
from pipeline.datasets.finding import some
from pipeline.terminal import duration, visible

MOST_GROUPS = 12
"""Lines of groups, at most."""
WIDEST = 30
"""Characters of the longest bar."""


def show_end(result: dict[str, Any], seconds: float, store: str) -> None:
    """Print the end of a run from the object that `run --json` prints."""
    out = console()
    out.print()
    if result["groups"]:
        what = "classes" if result["classes"] else "groups"
        print(f"{len(result['groups'])} {what}, by their share of the pixels")
        out.print(groups_table(result["groups"], result["classes"]))
        out.print()
    found = scores_table(result["scores"], result["protocol"]) if result["scores"] else None
    if found:
        out.print(found)
        out.print()
    lines = [f"run      {result['run']}, {duration(seconds)}", f"stages   {stages_line(result['stages'])}"]
    if result["classes"]:
        names, points = (sum(row[what] for row in result["classes"]) for what in ("groups", "points"))
        lines.insert(1, f"person   groups named: {names}, points: {points}")
    if result["failed"]["images"]:
        named = visible(some(result["failed"]["paths"]))
        lines.append(f"skipped  {counted(result['failed']['images'])} that cannot be decoded: {named}")
    if result["report"]:
        lines.append(f"report   {near(visible(open_store(store).path_of(NEWEST_REPORT)))}")
        lines.append(f"next     {command('open', store)}")
        lines.append("         " + command(f"explore {result['run']}", store))
        lines.append("         " + command(f"export {result['run']} --out masks", store))
    else:
        lines.append(f"next     {command('status', store)}")
    for line in lines:
        out.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def counted(images: int) -> str:
    """`1 image`, `12 images`"""
    return f"{images:,} image" + "s" * (images != 1)


def groups_table(shares: list[float], classes: list[dict[str, Any]] | None = None) -> Table:
    """The share of pixels of every group or class, the largest first, each with a bar in the colour that masks give
    it."""
    from pipeline.numerics.palette import palette

    colours = ["#" + bytes(colour).hex() for colour in palette(len(shares))]
    names = [f"group {number}" for number in range(len(shares))]
    if classes:
        colours, names = [row["color"] for row in classes], [visible(row["name"]) for row in classes]
    order = sorted(range(len(shares)), key=lambda group: -shares[group])
    made = Table.grid(padding=(0, 2))
    for _ in range(2):
        made.add_column(justify="right")
    widest = max(shares[order[0]], 1e-9)
    for group in order[:MOST_GROUPS]:
        bar = "█" * max(1, round(WIDEST * shares[group] / widest)) if shares[group] else ""
        made.add_row(Text(names[group]), f"{shares[group]:.1%}", Text(bar, colours[group]))
    rest = order[MOST_GROUPS:]
    if rest:
        made.add_row(f"{len(rest)} more", f"{sum(shares[group] for group in rest):.1%}", "")
    return made


def stages_line(stages: list[dict[str, Any]]) -> str:
    """`4 ran (head 17 s, masks 9.8 s, scores 3.1 s, report 1.2 s), 8 reused`"""
    ran = sorted((row for row in stages if row["status"] == "ran"), key=lambda row: -row["seconds"])
    reused = len(stages) - len(ran)
    longest = ", ".join(f"{row['stage']} {duration(row['seconds'])}" for row in ran[:4])
    more = ", …" if len(ran) > 4 else ""
    repeated = sum(row["parts_repeated"] for row in ran)
    said = [f"{len(ran)} ran ({longest}{more})"] if ran else []
    said += [f"{reused} reused"] if reused and ran else ["all reused"] if reused else []
    said += [f"{repeated} parts were also done by another run"] if repeated else []
    return ", ".join(said)


def show_demo(result: dict[str, Any], seconds: float, store: str) -> None:
    """Print what each stage of the demo did, then the end of a run, and what its numbers are worth."""
    made = table("stage", "", right=("seconds",))
    for row in result["stages"]:
        reused = row["status"] == "reused"
        made.add_row(row["stage"], "Reused" if reused else "ran", "" if reused else f"{row['seconds']:.1f}")
    out = console()
    out.print()
    out.print(made)
    show_end(result, seconds, store)
    again = "" if any(row["status"] == "reused" for row in result["stages"]) else " Run it again: all is Reused."
    print("\nWeights: packaged, a DINOv2 ViT-S/14 that its author trained further for saliency.")
    print(f"Took {seconds:.0f} s.{again}")
