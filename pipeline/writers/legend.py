"""The legend beside an export: `classes.json` for programs, `legend.html` for people. Names are escaped."""

import json
from html import escape
from typing import Any

from pipeline.writers.folder import Folder
from pipeline.writers.interface import Legend

HEAD = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>Legend</title>
<style>body { font: 15px/1.6 system-ui, sans-serif; margin: 2em; } td { padding: 2px 10px; }
td:nth-child(even) { text-align: right; font-variant-numeric: tabular-nums; }</style>"""


def write_legend(out: Folder, legend: Legend, first: int, pixels: dict[int, int]) -> None:
    """Write both. first: the value of class 0 in the files; pixels: of each class that occurs, in all label maps."""
    total = max(1, sum(pixels.values()))
    entries = [
        {**entry, "share": round(pixels.get(entry["id"], 0) / total, 6)} for entry in class_entries(legend, first)
    ]
    nothing = 0 if first else legend.nothing
    content = {"classes": entries, "nothing": nothing, "provenance": legend.provenance}
    out.write("classes.json", json.dumps(content, indent=1, ensure_ascii=False))
    out.write("legend.html", _html(entries))


def class_entries(legend: Legend, first: int = 0) -> list[dict[str, Any]]:
    """Of each class its id, its value in the files, name, colour, parent, and node where it is one of the tree."""
    nodes = legend.nodes or [{"parent": None}] * len(legend.names)
    return [
        {"id": number, "value": number + first, "name": name, "color": legend.css(number), **node_facts(node)}
        for number, (name, node) in enumerate(zip(legend.names, nodes, strict=True))
    ]


def node_facts(node: dict[str, Any]) -> dict[str, Any]:
    """`parent`, and `node` where there is one."""
    return {key: node[key] for key in ("node", "parent") if key in node}


def _html(entries: list[dict[str, Any]]) -> str:
    rows = "\n".join(
        f'<tr><td style="background:{entry["color"]};width:2em"></td><td>{entry["value"]}</td>'
        f"<td>{escape(entry['name'])}</td><td>{100 * entry['share']:.1f} %</td></tr>"
        for entry in entries
    )
    return f"{HEAD}\n<table>\n{rows}\n</table>\n"
