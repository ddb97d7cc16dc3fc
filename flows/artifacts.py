"""What a finished flow run shows in Prefect's UI: scores, a picture of some masks, where the report lies."""

import html
import os
import re
from typing import Any
from urllib.parse import quote

import numpy as np
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipeline.artifacts.scores import NAMES, PROTOCOLS
from pipeline.core.errors import Command
from pipeline.report.raster import jpeg
from pipeline.results import Run

PICTURES = 4
"""Images in the contact sheet."""
LINK = "STEGOFLOW_STORE_LINK"
"""The environment variable that says under which address browsers find the store's folder or prefix."""


def publish(done: Run) -> None:
    """Create the artifacts of whichever of scores, masks and report the run's stages were."""
    stages = {outcome.stage for outcome in done.stages}
    if "scores" in stages:
        value = done.artifact("scores").read_json("scores.json")
        scored = f"Percent. Protocol {value['protocol']}: {PROTOCOLS[value['protocol']]}."
        text = scored if value["classes"] else "Without labels."
        create_table_artifact(score_table(value), key="scores", description=text)
    if "masks" in stages:
        sheet, names = done.figure(PICTURES)
        if sheet is not None:
            # Not an image artifact: its page spells out the whole URI below the picture.
            text = f"![masks]({jpeg(np.asarray(sheet))})\n\n" + ", ".join(escape(name) for name in names)
            create_markdown_artifact(text, key="masks", description="Images, their groups, and those of the baseline")
    if "report" in stages:
        create_markdown_artifact(where(done), key="report", description=f"The report of run {done.id}")


def where(done: Run) -> str:
    """Markdown that leads to a run's report: a link where the store has an address, else its path or URL."""
    made = done.artifact("report")
    if base := os.environ.get(LINK):
        return f"[Open the report]({base.rstrip('/')}/{quote(made.data(made.file('report.html')['path']))})"
    command = str(Command("open", done.id, store=done.store.shown))
    return f"Open in a browser: {escape(done.report)}\n\nOr run: {escape(command)}"


def score_table(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table artifact for the content of `scores.json`: percentages, then the numbers without labels."""
    rows: list[dict[str, Any]] = [
        {"what": NAMES[method].name, "accuracy": f"{score['accuracy']:.1f}", "mIoU": f"{score['miou']:.1f}"}
        for method, score in value["scores"].items()
        if score
    ]
    free = {name: "–" if number is None else f"{number:.3f}" for name, number in value["label_free"].items()}
    if not rows:
        return [{"what": f"{name} (no labels needed)", "value": number} for name, number in free.items()]
    return rows


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no line break."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~:@/])", r"\\\1", html.escape(line, quote=False))
