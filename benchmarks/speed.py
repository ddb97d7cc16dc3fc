"""Every stage's time beside its floor, measured in turns in one run: `make bench`.

Prints a table and writes `benchmarks/speed.json`. Times belong to the machine and the hour; what carries over are the
ratios. The goals are those of the project, for a CPU that multiplies bf16 in hardware.
"""

import datetime
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import speed_head  # beside this file
import speed_stages as stages
import speed_user
from cyclopts import App, Parameter
from memory import measure
from quality import dump, read, show, write
from quality_cell import ROOT, commit, machine
from quality_results import Json
from rich.console import Console
from rich.table import Table
from store_codecs import codecs

FILE = ROOT / "benchmarks/speed.json"
IMAGES = 300
"""Of the section `memory`; `python benchmarks/memory.py` takes 20 000."""
SECTIONS: dict[str, Callable[[Path], Json]] = {
    "features": stages.features,
    "head": lambda _: speed_head.head(),
    "neighbours": lambda _: stages.neighbours(),
    "clusters": lambda _: stages.clusters(),
    "crf": stages.crf,
    "user": speed_user.user,
    "store": codecs,
    "memory": lambda folder: measure(IMAGES, folder / "memory"),
}
GOALS: list[tuple[str, str, str, Callable[[Any], bool]]] = [
    ("features", "floor_ratio", "≥ 0.70", lambda value: value >= 0.7),
    ("head", "ms_per_step", "≤ 25", lambda value: value <= 25),
    ("head", "default_floor_ratio_cpu", "≥ 0.8", lambda value: value >= 0.8),
    ("head", "default_floor_ratio_beside_one", "≥ 0.5", lambda value: value >= 0.5),
    ("head", "per_anchor_vs_stego_loop", "≥ 900", lambda value: value >= 900),
    ("neighbours", "recall", "≥ 0.98", lambda value: value >= 0.98),
    ("crf", "speedup_per_core", "≥ 4", lambda value: value >= 4),
    ("crf", "same_pixels", "≥ 0.995", lambda value: value >= 0.995),
    ("user", "cpu_minutes_to_report", "≤ 3", lambda value: value <= 3),
    ("user", "cut_cpu_seconds_of_100", "≤ 10", lambda value: value <= 10),
    ("store", "bytes_vs_fp16", "≤ 0.25", lambda value: value <= 0.25),
    ("store", "miou_lost", "≤ 0.3", lambda value: value <= 0.3),
]

app = App(name="speed", help=__doc__, version_flags=[])


@app.default
def speed(*, only: str | None = None, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Measure, print, write speed.json.

    Parameters
    ----------
    only
        Sections, separated by commas; the others stay in speed.json as they are.
    as_json
        Print speed.json in place of the table.
    """
    names = only.split(",") if only else list(SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        print(f"error: --only {unknown[0]}: the sections are {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    results: Json = read(FILE) if only and FILE.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            begin = time.monotonic()
            show(f"{name} …")
            results[name] = rounded(SECTIONS[name](Path(folder)))
            results |= {"date": datetime.date.today().isoformat(), "machine": machine(), "commit": commit(), "seed": 0}
            write(FILE, dump(results) + "\n")
            show(f"{name}: {time.monotonic() - begin:.0f} s\n")
    if as_json:
        print(dump(results))
    else:
        Console().print(table(results))
        print(FILE)
    return 0


def rounded(value: Any) -> Any:
    """Four significant digits of every float, at any depth."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(results: Json) -> Table:
    """All that was measured, with the goals."""
    goals = {(section, key): (text, met) for section, key, text, met in GOALS}
    shown = Table("section", "what", "value", "goal", "", title=f"{results['machine']}, {results['date']}")
    for section in (name for name in SECTIONS if name in results):
        for key, value in results[section].items():
            text, met = goals.get((section, key), ("", None))
            shown.add_row(section, key, str(value), text, "" if met is None else "met" if met(value) else "missed")
    return shown


if __name__ == "__main__":
    sys.exit(app(sys.argv[1:], result_action="return_value"))
