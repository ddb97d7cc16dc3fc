"""Data sets × heads × seeds through the pipeline itself, with and without CRF: `make quality DATA=FOLDER`.

Every cell is one run up to `scores`, all of them in one store: features, neighbours and labels are made once per data
set, and a second call does only what is missing. `benchmarks/quality.json` is written after every cell and merged into;
`docs/results.md` is written from that file alone. Labels are for scores, probes and the names of cuts; only K, the
number of classes that dataset.yaml names, is taken from them. Beside each set: k-means on colour alone.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from annotate_page import summary  # beside this file
from cyclopts import App, Parameter
from quality_cell import BASE, ROOT, commit, config_of, find_sets, measure
from quality_results import Json, cell_of, changed, merge, page, start, table
from rich.console import Console

from pipeline.config import PipelineConfig
from pipeline.core.engine import Progress
from pipeline.core.errors import ConfigError, StegoflowError
from pipeline.heads.settings import METHODS
from pipeline.stages.features import weights_digest
from pipeline.terminal import render_error, visible

PAGE = "docs/results.md"
CHANGES = ("", "+guided", "+guided+crops")
"""What a head's name may end with: see `config_of`."""


# The file -------------------------------------------------------------------------------------------------------------


def read(path: Path) -> Json:
    """The content of quality.json."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", next=f"mend or remove {path}") from None


def dump(results: Json) -> str:
    """quality.json's text."""
    return json.dumps(results, indent=1, ensure_ascii=False)


def write(path: Path, text: str) -> None:
    """Write a file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


# The command ----------------------------------------------------------------------------------------------------------

app = App(name="quality", help=__doc__, version_flags=[])
Names = Annotated[str | None, Parameter(help="Names, separated by commas; default: all.")]


@app.default
def quality(
    *,
    data: Path | None = None,
    sets: Names = None,
    heads: Names = None,
    seeds: Annotated[str, Parameter(help="Separated by commas.")] = "0,1,2",
    crf: bool = True,
    store: str = ".quality",
    steps: int | None = None,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    render: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Measure what is missing, merge it into quality.json, write docs/results.md, print a table.

    Parameters
    ----------
    data
        Folder of labelled sets: NAME/{images,labels}/{train,val}/… and NAME/dataset.yaml.
    crf
        With a dense CRF too; --no-crf leaves it out, and keeps what is known of the same clusters.
    store
        Where artifacts stay for the next call.
    steps
        Training steps, for a try; its results go to the store unless --out says where.
    out
        Folder for quality.json and results.md, in place of benchmarks/ and docs/.
    json
        Print quality.json, with the cells that failed.
    render
        Only write results.md from quality.json.
    """
    out = Path(store) if out is None and steps is not None else out
    files = (out / "quality.json", out / "results.md") if out else (ROOT / "benchmarks/quality.json", ROOT / PAGE)
    if render:
        if not files[0].is_file():
            raise ConfigError(f"{files[0]} is not there", next="measure first: --data FOLDER")
        results = read(files[0])
        write_page(files, results)
        if json:
            print(dump(results))
        return 0
    if data is None:
        raise ConfigError("--data is missing: the folder of labelled sets", next="make quality DATA=FOLDER")
    roots = find_sets(data)
    picked = (
        chosen("--sets", sets, list(roots)),
        chosen("--heads", heads, [f"{method}{changes}" for changes in CHANGES for method in METHODS]),
    )
    if not all(seed.isdecimal() for seed in seeds.split(",")):
        raise ConfigError(f"--seeds {seeds}: whole numbers are wanted", next="--seeds 0,1,2")
    grid = [(name, head, int(seed)) for name in picked[0] for head in picked[1] for seed in seeds.split(",")]
    results, failed = measure_grid(roots, grid, BASE, store, files, crf=crf, steps=steps)
    if json:
        print(dump({**results, "failed": failed}))
    else:
        Console().print(table(results, grid))
        for row in failed:
            print(f"FAILED: {visible(row['set'])} {row['head']} {row['seed']}: {row['error']}")
        print(f"{files[0]}\n{files[1]}" if results["sets"] else "nothing was measured")
    return 1 if failed else 0


def write_page(files: tuple[Path, Path], results: Json) -> None:
    """Write results.md, the second of `files`, from quality.json, the first, and annotate.json beside it."""
    person = files[0].with_name("annotate.json")
    write(files[1], page(results) + (summary(read(person)) if person.is_file() else ""))


def chosen(option: str, names: str | None, known: list[str]) -> list[str]:
    """The names of an option; ConfigError for one that is not known."""
    wanted = known if names is None else names.split(",")
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{option}: there is no {name}", next=f"{option} {','.join(known)}")
    return wanted


def measure_grid(
    roots: dict[str, Path],
    grid: list[tuple[str, str, int]],
    base: Json,
    store: str,
    files: tuple[Path, Path],
    *,
    crf: bool = True,
    steps: int | None = None,
) -> tuple[Json, list[Json]]:
    """Measure the cells (data set, head, seed), writing both files after each: all results, and what failed."""
    protocol = PipelineConfig.model_fields["scores"].default.protocol
    settings = {key: base["features"].get(key) for key in ("backbone", "weights", "block")}
    settings |= {"weights_sha256": weights_digest(settings["backbone"], settings["weights"])}
    settings |= {"weights": Path(settings["weights"]).name, "protocol": protocol, "steps": steps}

    def known_results() -> Json:
        return start(read(files[0]) if files[0].is_file() else None, settings)

    results, failed, started = known_results(), [], time.monotonic()
    commit()  # as it is now: this is the program that runs
    for number, (name, head, seed) in enumerate(grid, 1):
        label, before = f"[{number}/{len(grid)}] {visible(name)} {head} {seed}:", time.monotonic()
        show(label)
        try:
            config = config_of(base, roots[name], store, head, seed, crf, steps)
            facts, cell, ran = measure(config, cell_of(known_results(), name, head, seed), progress=ticker(label))
            known = known_results()  # another process may have measured other cells since
            results = merge(known, name, facts, head, seed, cell)
            write(files[0], dump(results) + "\n")
            write_page(files, results)
            found = f"mIoU {cell['without']['miou']:.1f}" + (
                f", CRF {cell['with']['miou']:.1f}" if cell["with"] else ""
            )
            found += "" if cell["share"] is None else f", share {cell['share']:.1f}"
            found += f"; ran {', '.join(ran)}" if ran else "; all reused"
            if name in known["sets"] and changed(known["sets"][name], facts):
                found += "; images, labels, view or K are not what they were: earlier cells of this set dropped"
        except Exception as error:  # the other cells go on
            message = error.message if isinstance(error, StegoflowError) else f"{type(error).__name__}: {error}"
            stage = getattr(error, "stage", None)
            found = visible(f"{stage}: {message}" if stage else message)
            failed.append({"set": name, "head": head, "seed": seed, "error": found})
            found = f"FAILED: {found}"
        now = time.monotonic()
        show(f"{label} {found}  ({now - before:.0f} s, all {now - started:.0f} s)\n")
    return results, failed


def show(text: str) -> None:
    """Progress on standard error; of a line that is not finished, where that is no terminal, nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text.endswith("\n"):
        print(text, end="", file=sys.stderr, flush=True)


def ticker(label: str) -> Progress:
    """A progress callback that says what a cell is at."""
    return lambda stage, done, total, unit: show(f"{label} {stage} {done}/{total} {unit}")


def call(command: Callable[[], int]) -> None:
    """End with a command's exit status; 2 for what cannot be used, 1 for what failed, each told as a sentence."""
    try:
        sys.exit(command())
    except StegoflowError as error:
        print(f"error: {render_error(error)}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    """Exit status 0; 2 for what cannot be used; 1 where a cell failed."""
    call(lambda: app(sys.argv[1:], result_action="return_value"))


if __name__ == "__main__":
    main()
