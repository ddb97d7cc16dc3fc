"""Leave-one-set-out: a number is chosen on all labelled sets but one, and shown on that one.

A number that wins on the sets that it was chosen on says little. This runs the pipeline with every value of a field on
every set, takes for each set the value that is best on the others, and prints what that value is worth there beside the
default and beside the best that could have been chosen in sight of the set:

    python benchmarks/leave_one_out.py --data FOLDER --field clusters.prototypes --values 64,128,256 --seeds 0,1
"""

import sys
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from quality import call, show  # beside this file
from quality_cell import BASE, config_of, find_sets, measure
from quality_sections import at, markdown

from pipeline.config import PipelineConfig, apply, validate

Table = dict[str, dict[str, float]]
"""Of each set the score of each value."""
SCORES = {"k": ("without", "miou"), "named": ("named", "50"), "share": ("share",)}


def left_out(table: Table) -> dict[str, str]:
    """For each set the value with the best mean on all others; of equal ones the first."""
    values = next(iter(table.values()))
    return {
        name: max(values, key=lambda value: mean(row[value] for other, row in table.items() if other != name))
        for name in table
    }


def page(field: str, default: str, table: Table) -> str:
    """The table in Markdown, with the mean of all sets in its last row."""
    chosen = left_out(table)
    values = list(next(iter(table.values())))

    def row(name: str, scores: dict[str, float], out: float, value: str) -> list[str]:
        own = scores.get(default)
        return [
            name,
            *(f"{scores[value]:.1f}" for value in values),
            f"{out:.1f}" + (f" ({value})" if value else ""),
            "–" if own is None else f"{out - own:+.1f}",
            f"{max(scores.values()) - out:.1f}",
        ]

    rows = [row(name, scores, scores[chosen[name]], chosen[name]) for name, scores in table.items()]
    middle = {value: mean(scores[value] for scores in table.values()) for value in values}
    rows.append(row("mean", middle, mean(table[name][chosen[name]] for name in table), ""))
    head = ["data set", *(f"{field} {v}" for v in values), "chosen on the others", "to the default", "below the best"]
    return markdown(head, rows)


def with_value(config: PipelineConfig, field: str, value: str) -> PipelineConfig:
    """The same config with one field changed."""
    data: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True)
    apply(data, f"{field}={value}")
    return validate(data, "leave-one-out")


app = App(name="leave_one_out", help=__doc__, version_flags=[])


@app.default
def main(
    *,
    data: Path,
    field: str,
    values: str,
    head: str = "stegoflow+guided",
    seeds: Annotated[str, Parameter(help="Separated by commas.")] = "0",
    score: Literal["k", "named", "share"] = "share",
    store: str = ".quality",
) -> int:
    """Print the table of one field.

    Parameters
    ----------
    data
        Folder of labelled sets: NAME/{images,labels}/{train,val}/… and NAME/dataset.yaml; at least three.
    field
        A field of the config, such as head.context.
    values
        What it is set to, separated by commas; with the default among them, the table says what is gained.
    score
        k: mIoU at K = classes; named: mIoU of 50 named groups; share: of the curve of named cuts (docs/results.md).
    """
    table: Table = {}
    for name, root in find_sets(data).items():
        for value in values.split(","):
            found = []
            for seed in seeds.split(","):
                show(f"{name} {field}={value} seed {seed}\n")
                base = config_of(BASE, root, store, head, int(seed), False, None)
                _, cell, _ = measure(with_value(base, field, value))
                found.append(at(cell, *SCORES[score]) or 0.0)
            table.setdefault(name, {})[value] = mean(found)
    section, _, rest = field.partition(".")
    default = getattr(getattr(validate({**BASE, "dataset": {"root": str(data)}}, "default"), section), rest)
    print(page(field, str(default), table))
    return 0


if __name__ == "__main__":
    call(lambda: app(sys.argv[1:], result_action="return_value"))
