"""Print the table of benchmarks/faults.json and put it into the README."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- faults: written by tests/faults/table.py from benchmarks/faults.json -->\n", "<!-- /faults -->"


def table() -> str:
    """The table in Markdown, with its date, machine and totals."""
    facts = json.loads((ROOT / "benchmarks/faults.json").read_text())
    rows = "".join(f"| {fault} | {found} |\n" for fault, found in facts["table"].items())
    totals = (
        f"{facts['date']}, {facts['machine']}, seed {facts['seed']}, {facts['seconds'] / 60:.0f} minutes. "
        f"{facts['kills']} kills, {facts['recovered']} recovered; {facts['parts_repeated']} parts done twice; "
        f"{facts['concurrent_runs']} runs beside others; {facts['flips_detected']} of {facts['bytes_flipped']} flipped "
        f"bytes found; lost {facts['lost']}, wrong {facts['wrong']}."
    )
    return f"\n| fault | what was found |\n|---|---|\n{rows}\n{totals}\n\n"


def main() -> None:
    path = ROOT / "README.md"
    text = path.read_text()
    before, rest = text.split(BEGIN)
    path.write_text(before + BEGIN + table() + END + rest.split(END, 1)[1])
    print(table())


if __name__ == "__main__":
    main()
