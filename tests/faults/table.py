"""Write docs/faults.md from benchmarks/faults.json, and print its table."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP = """# Faults: what was tried on a store, and what was found

Written by `make faults` (tests/faults/table.py) from `benchmarks/faults.json`. All but the slowest of these tests also
run in `make test`.
"""


def table(facts: dict) -> str:
    """The table in Markdown, with its date, machine and totals."""
    rows = "".join(f"| {fault} | {found} |\n" for fault, found in facts["table"].items())
    totals = (
        f"{facts['date']}, {facts['machine']}, seed {facts['seed']}, {facts['seconds'] / 60:.0f} minutes. "
        f"{facts['kills']} kills, {facts['recovered']} recovered; {facts['parts_repeated']} parts done twice; "
        f"{facts['concurrent_runs']} runs beside others; {facts['flips_detected']} of {facts['bytes_flipped']} flipped "
        f"bytes found; lost {facts['lost']}, wrong {facts['wrong']}."
    )
    return f"\n| fault | what was found |\n|---|---|\n{rows}\n{totals}\n"


def main() -> None:
    text = table(json.loads((ROOT / "benchmarks/faults.json").read_text()))
    (ROOT / "docs/faults.md").write_text(TOP + text)
    print(text)


if __name__ == "__main__":
    main()
