"""What a finished flow run shows in Prefect's UI: scores, a picture of some masks, where the report lies."""

import base64
import html
import io
import re
from typing import Any

import numpy as np
from PIL import Image
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipeline.core.artifact import Artifact
from pipeline.core.engine import Job, Node, Outcome
from pipeline.numerics.palette import colourise, palette
from pipeline.session import Session
from pipeline.stages import report

METHODS = {
    "cluster": "clusters",
    "cluster_crf": "clusters + CRF",
    "linear": "linear probe on codes",
    "linear_tokens": "linear probe on tokens",
    "baseline": "k-means on tokens",
}
"""Names of the methods that `scores` measures."""
PICTURES = 4
HEIGHT, WIDEST, GAP = 220, 330, 6
"""Pixels of one picture in the contact sheet: height and width at most, and the space between two."""


def publish(opened: Session, outcomes: list[Outcome]) -> None:
    """Create the artifacts of whichever of scores, masks and report these outcomes hold."""
    nodes = {node.stage.name: node for node in opened.nodes}
    found = {outcome.stage: Artifact(opened.store, outcome.stage, outcome.fingerprint) for outcome in outcomes}
    if "scores" in found:
        value = found["scores"].read_json("scores.json")
        scored = f"Percent. Protocol {value['protocol']}: {report.PROTOCOLS[value['protocol']]}."
        text = scored if value["classes"] else "Without labels."
        create_table_artifact(score_table(value), key="scores", description=text)
    if "masks" in found:
        sheet, names = contact_sheet(opened, nodes["masks"])
        if sheet is not None:
            # Not an image artifact: its page spells out the whole URI below the picture.
            text = f"![masks]({data_uri(sheet)})\n\n" + ", ".join(escape(name) for name in names)
            create_markdown_artifact(text, key="masks", description="Images above their masks, one colour per cluster")
    if "report" in found:
        path = found["report"].path("report.html")
        create_markdown_artifact(
            f"Open in a browser: {escape(path)}", key="report", description=f"The report of run {opened.id}"
        )


def score_table(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table artifact for the content of `scores.json`: percentages, then the numbers without labels."""
    rows: list[dict[str, Any]] = [
        {"what": METHODS[method], "accuracy": f"{score['accuracy']:.1f}", "mIoU": f"{score['miou']:.1f}"}
        for method, score in value["scores"].items()
        if score
    ]
    free = {name: "–" if number is None else f"{number:.3f}" for name, number in value["label_free"].items()}
    if not rows:
        return [{"what": f"{name} (no labels needed)", "value": number} for name, number in free.items()]
    return rows


def contact_sheet(opened: Session, node: Node) -> tuple[np.ndarray | None, list[str]]:
    """Some predicted images above their masks, uint8 (height, width, 3) or None without any, and the images' names."""
    artifacts = {role: Artifact(opened.store, role, name) for role, name in node.inputs.items()}
    masks = node.artifact(opened.store)
    job = Job(masks, None, {**artifacts, "masks": masks}, node.roots, opened.config.execution)
    found = report.pictures(job, PICTURES)
    colours = palette(masks.manifest["clusters"])
    columns = []
    for picture in found:
        mask = list(picture.groups.values())[-1]  # with CRF where there is one
        scale = min(HEIGHT / mask.shape[0], WIDEST / mask.shape[1])
        size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
        column = Image.new("RGB", (size[0] + GAP, 2 * HEIGHT + GAP), "white")
        painted = Image.fromarray(colourise(mask, colours)).resize(size, Image.Resampling.NEAREST)
        column.paste(Image.fromarray(picture.photo).resize(size, Image.Resampling.LANCZOS), (0, HEIGHT - size[1]))
        column.paste(painted, (0, HEIGHT + GAP))
        columns.append(np.asarray(column))
    return np.hstack(columns)[:, :-GAP] if columns else None, [picture.name for picture in found]


def data_uri(picture: np.ndarray) -> str:
    """A picture, uint8 (height, width, 3), as a URI that holds it: the store need not be served to a browser."""
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no line break."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~:@/])", r"\\\1", html.escape(line, quote=False))
