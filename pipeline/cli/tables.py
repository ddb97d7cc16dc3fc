"""Tables for people, on the terminal (rich). What comes from a store or a config is text, never rich's markup."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pipeline.artifacts.scores import NAMES
from pipeline.core.artifact import shown
from pipeline.estimate import Estimate
from pipeline.planning import PlanRow
from pipeline.terminal import visible


def stages_table(stages: list[dict[str, Any]]) -> Table:
    """What a run did, stage by stage."""
    table = Table("stage", "fingerprint", "status", title_justify="left")
    for name in ("seconds", "parts run", "parts"):
        table.add_column(name, justify="right")
    for row in stages:
        status = Text("reused") if row["status"] == "reused" else Text("ran", "bold")
        repeated = f" ({row['parts_repeated']} also by another run)" if row["parts_repeated"] else ""
        counts = (f"{row['seconds']:.1f}", f"{row['parts_run']}{repeated}", str(row["parts_total"]))
        table.add_row(row["stage"], shown(row["fingerprint"]), status, *counts)
    return table


def scores_table(scores: dict[str, Any], protocol: str) -> Table:
    """Accuracy and mIoU in percent under a protocol; a dash where there are no labels."""
    table = Table(f"percent, protocol {protocol}", title_justify="left")
    table.add_column("accuracy", justify="right")
    table.add_column("mIoU", justify="right")
    for method, value in scores.items():
        numbers = [f"{value[key]:.1f}" if value and value[key] is not None else "–" for key in ("accuracy", "miou")]
        table.add_row(NAMES[method], *numbers)
    return table


def plan_table(rows: list[PlanRow]) -> Table:
    """Reuse or run, why, and what the nearest earlier artifact cost."""
    table = Table("stage", "fingerprint", "action", "why")
    table.add_column("last time", justify="right")
    for row in rows:
        known = [] if row.items is None else [f"{row.items} items"]
        known += [] if row.seconds is None else [f"{row.seconds:.0f} s"]
        known += [] if row.bytes is None else [f"{row.bytes / 1e6:.0f} MB"]
        action = Text("reuse") if row.action == "reuse" else Text("run", "bold")
        table.add_row(row.stage, shown(row.fingerprint), action, _cell(row.why), ", ".join(known) or "–")
    return table


def status_tables(facts: dict[str, Any]) -> list[Any]:
    """Artifacts and runs of a store."""
    total = sum(row["bytes"] for row in facts["artifacts"])
    title = _cell(f"artifacts in {facts['store']}, {total / 1e6:.1f} MB")
    artifacts = Table("stage", "fingerprint", "state", "written", title=title, title_justify="left")
    for name in ("items", "MB", "runs"):
        artifacts.add_column(name, justify="right")
    for row in facts["artifacts"]:
        state = row["state"] if row["state"] == "finished" else f"{row['state']}, {row['parts']} parts done"
        size = f"{row['bytes'] / 1e6:.1f}"
        written = (row["written"] or "–").replace("T", " ")[:16]
        cells = row["stage"], shown(row["fingerprint"]), state, written, row["items"], size, row["runs"]
        artifacts.add_row(*(_cell(value) for value in cells))
    runs = Table("run", "names", "dataset", "stages finished", title="runs", title_justify="left")
    for row in facts["runs"]:
        counts = f"{row['finished']} of {row['planned']}"
        runs.add_row(*(_cell(value) for value in (row["run"], ", ".join(row["names"]), row["dataset"], counts)))
    steps = ["show RUN_OR_FINGERPRINT"]
    if any(row["state"] == "damaged" for row in facts["artifacts"]):
        steps.insert(0, "verify")
    if any(not row["runs"] for row in facts["artifacts"]):
        steps.append(f"gc --store {facts['store']}")
    return [artifacts, runs, _cell("next: " + "   |   ".join(f"stegoflow {step}" for step in steps))]


def estimate_table(found: Estimate) -> Table:
    """One size, stage by stage."""
    title = f"{found.views:,} views of {found.images:,} images, {count(found.workers, 'worker')}"
    table = Table("stage", title=title, title_justify="left")
    for name in ("items", "1 worker", "all workers", "written", "read", "puts", "gets", "memory", "$", "$/month"):
        table.add_column(name, justify="right")
    table.add_column("rate")
    for row in found.stages:
        table.add_row(
            row.stage, f"{row.items:,} {row.unit}", duration(row.seconds_one), duration(row.seconds),
            size(row.bytes_written), size(row.bytes_read), f"{row.puts:,}", f"{row.gets:,}", size(row.memory),
            dollars(row.cost), dollars(row.cost_month), row.rate,
        )  # fmt: skip
    table.add_section()
    table.add_row(
        "all", "", duration(found.total("seconds_one")), duration(found.total("seconds")),
        size(found.total("bytes_written")), size(found.total("bytes_read")), f"{found.total('puts'):,}",
        f"{found.total('gets'):,}", size(found.memory), dollars(found.total("cost")),
        dollars(found.total("cost_month")),
    )  # fmt: skip
    return table


def estimates_table(estimates: list[Estimate]) -> Table:
    """Several sizes, one a line."""
    table = Table(title=count(estimates[0].workers, "worker"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("views", no_wrap=True)
    for name in ("time", "written", "requests", "memory", "$", "$/month"):
        table.add_column(name, justify="right")
    table.add_column("breaks first")
    for found in estimates:
        first = found.breaks[0].stage if found.breaks else "–"
        table.add_row(
            f"{found.views:.0e}".replace("e+0", "e"), duration(found.total("seconds")),
            size(found.total("bytes_written")), f"{found.total('puts') + found.total('gets'):.1e}", size(found.memory),
            dollars(found.total("cost")), dollars(found.total("cost_month")), first,
        )  # fmt: skip
    return table


def count(number: int, what: str) -> str:
    """`1 worker`, `8 workers`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time that a person can take in: 12 s, 3.4 h, 2.0 years."""
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48), ("days", 86400, 730)):
        if seconds < most * length:
            return f"{seconds / length:.{0 if unit == 's' else 1}f} {unit}"
    return f"{seconds / 86400 / 365.25:,.0f} years"


def dollars(amount: float) -> str:
    """An amount to the cent, from a hundred on to the dollar."""
    return f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}"


def size(bytes: float) -> str:
    """Bytes as kB, MB, GB, TB, PB, of 1000 each."""
    value, units = bytes / 1e3, ["kB", "MB", "GB", "TB"]
    while value >= 1000 and units[1:]:
        value, units = value / 1000, units[1:]
    return f"{value:,.1f} {units[0]}" if value < 1000 else f"{value / 1000:,.1f} PB"


def _cell(value: Any) -> Text:
    return Text(visible(str(value)))
