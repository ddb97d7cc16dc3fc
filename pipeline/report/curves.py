"""Curves of the report: SVG that takes its colours from the page and holds no text but numbers."""

import io
import math
import re
from typing import Any

import numpy as np
from markupsafe import Markup

CURVE_POINTS = 300  # longer logs are averaged down to this many points
LINES = 6  # line colours in the style sheet


def curves(losses: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A panel for each family of columns (loss, loss_self, ... are one); their names stay outside of the SVG."""
    families: dict[str, dict[str, np.ndarray]] = {}
    for name, column in losses.items():
        if name != "step" and len(column):
            families.setdefault(name.split("_")[0], {})[name] = np.asarray(column, float)
    panels = []
    for i, (family, columns) in enumerate(families.items()):
        lines = []
        for j, (name, y) in enumerate(columns.items()):
            bad = int((~np.isfinite(y)).sum())
            lines.append(
                {"name": name, "line": j % LINES, "last": float(y[-1]) if math.isfinite(y[-1]) else None, "bad": bad}
            )
        panels.append({"name": family, "lines": lines, "svg": panel(columns, losses.get("step"), f"panel{i}-")})
    return panels


def panel(columns: dict[str, np.ndarray], step: np.ndarray | None, prefix: str) -> Markup:
    """The curves as SVG that takes its colours from the page and holds no text but numbers."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 2.7), layout="tight")
    axes = figure.add_subplot()
    ink, grid = "#0000f0", "#0000f1"
    for i, y in enumerate(columns.values()):
        x = np.arange(len(y), dtype=float) if step is None else np.asarray(step, float)[: len(y)]
        good = np.isfinite(x) & np.isfinite(y[: len(x)])
        x, y = x[good], y[: len(good)][good]
        parts = np.array_split(np.arange(len(x)), min(len(x), CURVE_POINTS)) if len(x) else []
        middle = [x[part].mean() for part in parts]
        colour = f"#0000e{i % LINES}"
        if len(x) > CURVE_POINTS:
            low, high = [y[part].min() for part in parts], [y[part].max() for part in parts]
            axes.fill_between(middle, low, high, color=colour, alpha=0.15, linewidth=0)
        mean, marker = [y[part].mean() for part in parts], "o" if len(x) == 1 else ""
        axes.plot(middle, mean, color=colour, linewidth=1.6, marker=marker)
    axes.grid(color=grid, linewidth=0.8)
    axes.tick_params(colors=ink, length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.margins(x=0.01)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "stegoflow"}):
        unset = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=unset)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(ink, "var(--muted)").replace(grid, "var(--line)")
    svg = re.sub(r"#0000e(\d)", r"var(--line\1)", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", svg)  # ids are unique in the whole page
    return Markup(svg)  # safe: matplotlib's own words and numbers only  # noqa: S704 (drawn here; holds numbers alone)
