"""Tables for people, on the terminal (rich). What comes from a store or a config is text, never rich's markup."""

from typing import Any

from rich.table import Table
from rich.text import Text

from pipeline.core.artifact import shown
from pipeline.run import PlanRow
from pipeline.terminal import visible

NAMES = {
    "cluster": "head + clusters",
    "cluster_crf": "head + clusters + CRF",
    "linear": "linear probe on codes (trained with labels)",
    "linear_tokens": "linear probe on tokens (trained with labels)",
    "baseline": "k-means on tokens (baseline)",
}


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


def _cell(value: Any) -> Text:
    return Text(visible(str(value)))
