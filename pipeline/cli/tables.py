"""What a store and a plan look like on the terminal (rich). What comes from a store or a config is text, never rich's
markup."""

import os
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from pipeline.artifacts.annotation import Annotation
from pipeline.artifacts.scores import NAMES
from pipeline.core.artifact import shown
from pipeline.terminal import duration, size, visible

WIDE = 200
"""Characters of a line where output goes to a file or another program: nothing is folded there."""


def console() -> Console:
    """Standard output."""
    made = Console()
    return made if made.is_terminal else Console(width=WIDE)


def waiting(text: str) -> Status:
    """What a terminal shows while something goes on that is not counted."""
    return Console(stderr=True).status(text)


def table(*left: str, right: tuple[str, ...] = ()) -> Table:
    """A table without frames: columns that are text, then columns of numbers."""
    made = Table(*left, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def scores_table(scores: dict[str, Any], protocol: str) -> Table | None:
    """Accuracy and mIoU in percent of the methods that were scored; None where nothing was."""
    made = table(f"percent, protocol {protocol}", right=("accuracy", "mIoU"))
    for method, value in scores.items():
        if value:
            made.add_row("{} ({})".format(*NAMES[method]), *(f"{value[name]:.1f}" for name in ("accuracy", "miou")))
    return made if made.row_count else None


def groups_table(groups: list[dict[str, Any]], annotation: Annotation) -> Table:
    """Groups (`cuts.examples`) with their names in an annotation, and one patch of each."""
    made = table("group", "id", right=("share of patches",))
    for name in ("parent", "name", "such as (y, x)"):
        made.add_column(name, overflow="fold")
    for number, row in enumerate(groups):
        name, best = annotation.groups.get(row["id"], ""), next(iter(row["examples"]), None)
        place = f"{best['split']}/{best['image']} ({best['y']}, {best['x']})" if best else "–"
        parent = "–" if row["parent"] is None else row["parent"]
        made.add_row(str(number), cell(row["id"]), f"{row['share']:.1%}", cell(parent), cell(name), cell(place))
    return made


def plan_table(rows: list[Any]) -> Table:
    """A plan (PlanRow): what is reused, what runs and why, and what that is expected to take."""
    made = table("stage", "action", "why", right=("items", "seconds", "bytes"))
    for row in rows:
        items = "–" if row.items is None else f"{row.bound} {row.items:,} {row.unit}".strip()
        why = "new in this store" if row.why.endswith("in this store yet") else row.why
        if row.action == "reuse":
            made.add_row(cell(row.stage), "reuse", cell(why), items, "–", "–", style="dim")
        else:
            made.add_row(cell(row.stage), Text("run", "bold"), cell(why), items, duration(row.seconds), size(row.bytes))
    wanted = [row for row in rows if row.action == "run"]
    made.add_section()
    took, written = duration(sum(row.seconds for row in wanted)), size(sum(row.bytes for row in wanted))
    made.add_row("total", f"{len(wanted)} run", "", "", took, written, style="bold")
    return made


def runs_table(facts: dict[str, Any]) -> Table:
    """The runs of a store (`cataloguing.status`), oldest first."""
    made = table(right=())
    for name in ("run", "name", "date"):
        made.add_column(name, no_wrap=True)
    made.add_column("data", overflow="fold")
    made.add_column("head")
    said = any(row.get("said") for row in facts["runs"])
    for name in ("K", *(("names + points",) if said else ()), "mIoU", "stages"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in facts["runs"]:
        if "damaged" in row:
            made.add_row(cell(row["run"]), cell(", ".join(row["names"])), Text("damaged record", "red"))
            continue
        miou = "–" if row["miou"] is None else f"{row['miou']:.1f}"
        data = near(row["dataset"]) + (" (segment)" if row["pinned"] else "")
        text = [row["run"], ", ".join(row["names"]), date(row["written"]), data, row["head"]]
        counts = f"{row['finished']} of {row['planned']}"
        given = ["{groups} + {points}".format(**row["said"]) if row["said"] else "–"] if said else []
        made.add_row(*map(cell, text), "–" if row["k"] is None else str(row["k"]), *given, miou, counts)
    return made


def artifacts_table(facts: dict[str, Any]) -> Table:
    """The artifacts of a store, a line for each stage; what is unfinished or damaged is named."""
    made = table("stage", right=("artifacts", "size"))
    made.add_column("not finished")
    counts = Counter(row["stage"] for row in facts["artifacts"])
    for stage, count in counts.items():
        rows = [row for row in facts["artifacts"] if row["stage"] == stage]
        odd = [row for row in rows if row["state"] != "finished"]
        named = cell(", ".join(map(state, odd)), "red" if any(row["state"] == "damaged" for row in odd) else "")
        made.add_row(cell(stage), f"{count:,}", size(sum(row["bytes"] for row in rows)), named)
    made.add_section()
    total = size(sum(row["bytes"] for row in facts["artifacts"]))
    made.add_row("all", f"{len(facts['artifacts']):,}", total, style="bold")
    return made


def every_artifact_table(facts: dict[str, Any]) -> Table:
    """The artifacts of a store, a line for each."""
    made = table("stage", "fingerprint", "state", "date", right=("items", "size", "runs"))
    for row in facts["artifacts"]:
        texts = row["stage"], shown(row["fingerprint"]), state(row, named=False), date(row["written"])
        made.add_row(*map(cell, texts), f"{row['items']:,}", size(row["bytes"]), str(row["runs"]))
    return made


def state(row: dict[str, Any], named: bool = True) -> str:
    """`unfinished 0123456789ab (3 parts done)`"""
    if row["state"] == "finished":
        return "finished"
    name = f" {shown(row['fingerprint'])}" if named else ""
    parts = f" ({row['parts']} parts done)" if row["parts"] else ""
    return f"{row['state']}{name}{parts}"


def stages_table(stages: dict[str, dict[str, Any]]) -> Table:
    """The stages of a run (`cataloguing.show`)."""
    made = table("stage", "fingerprint", "state", right=("items", "seconds"))
    for stage, row in stages.items():
        done = row["state"] == "finished"
        numbers = (f"{row['items']:,}", duration(row["seconds"])) if done else ("–", "–")
        look = {"finished": "", "damaged": "red"}.get(row["state"], "yellow")
        made.add_row(cell(stage), cell(shown(row["fingerprint"])), cell(row["state"], look), *numbers)
    return made


def lineage_lines(lineage: dict[str, Any], depth: int = 1) -> list[str]:
    """What an artifact was made from, a line for each, indented by how far away it is."""
    lines = []
    for role, row in lineage.items():
        lines.append(f"{'  ' * depth}{role} {shown(row['fingerprint'])}")
        lines += lineage_lines(row["inputs"], depth + 1)
    return lines


def date(written: str | None) -> str:
    """`2025-11-25 23:45` (UTC) of a record's time."""
    return (written or "–").replace("T", " ")[:16]


def near(path: str) -> str:
    """A path as short as it can be: relative where it lies in the folder that the program was started in."""
    if "://" in path:
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else f"./{relative}" if relative != "." else "."


def command(text: str, store: str = "./store") -> str:
    """A stegoflow command for a store; `--store` is left out where that is the one that commands take anyway."""
    usual = "://" not in store and Path(store).resolve() == Path("store").resolve()
    return visible(f"stegoflow {text}" + ("" if usual else f" --store {shlex.quote(near(store))}"))


def cell(value: Any, style: str = "") -> Text:
    """Whatever it is, as one line of text."""
    return Text(visible(str(value)), style)
