"""Tables for people, on the terminal (rich)."""

from typing import Any

from rich.table import Table

from pipeline.core.artifact import shown
from pipeline.run import PlanRow

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
        status = "reused" if row["status"] == "reused" else "[bold]ran[/bold]"
        counts = (f"{row['seconds']:.1f}", str(row["parts_run"]), str(row["parts_total"]))
        table.add_row(row["stage"], shown(row["fingerprint"]), status, *counts)
    return table


def scores_table(scores: dict[str, Any]) -> Table:
    """Accuracy and mIoU in percent; a dash where there are no labels."""
    table = Table("percent", title_justify="left")
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
        action = "reuse" if row.action == "reuse" else "[bold]run[/bold]"
        table.add_row(row.stage, shown(row.fingerprint), action, row.why, ", ".join(known) or "–")
    return table


def status_tables(facts: dict[str, Any]) -> list[Any]:
    """Artifacts and runs of a store."""
    artifacts = Table(
        "stage", "fingerprint", "state", "written", title=f"artifacts in {facts['store']}", title_justify="left"
    )
    for name in ("items", "MB"):
        artifacts.add_column(name, justify="right")
    for row in facts["artifacts"]:
        size = f"{row['bytes'] / 1e6:.1f}"
        artifacts.add_row(
            row["stage"], shown(row["fingerprint"]), row["state"], row["written"], str(row["items"]), size
        )
    runs = Table("run", "dataset", "stages finished", title="runs", title_justify="left")
    for row in facts["runs"]:
        runs.add_row(row["run"], row["dataset"], f"{row['finished']} of {row['planned']}")
    return [artifacts, runs, "next: stegoflow show RUN_OR_FINGERPRINT"]
