"""The command line `stegoflow`. Heavy imports stand inside the commands, so that --help answers at once."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from pipeline.cli.estimate import estimate
from pipeline.cli.progress import progress_bars
from pipeline.cli.store import COMMANDS, Json, Sets, StoreURL, open_existing, print_json
from pipeline.core.errors import StegoflowError, render
from pipeline.terminal import render_error, visible

app = App(
    name="stegoflow",
    help="""Unsupervised semantic segmentation from a cache of frozen ViT features.

A frozen backbone sees every image once; its tokens are cached. Everything after that runs from the cache, stage by
stage: dataset, labels, features, suggestion (of K, where none is given), neighbours, head, clusters, probe, baseline,
masks, scores, report. A stage whose inputs and params did not change is reused.

First steps:  stegoflow init my.yaml,  stegoflow plan my.yaml,  stegoflow run my.yaml""",
)


@app.command
def run(
    config: str, /, *, set: Sets = None, stage: str | None = None, store: StoreURL = None, json: Json = False
) -> int:
    """Run all stages of a config; what exists is reused, what was cut short goes on where it stopped.

    Parameters
    ----------
    config
        YAML file; `stegoflow init my.yaml` writes one.
    stage
        Run this stage alone; its inputs must exist.
    """
    with progress_bars() as progress:
        try:
            from pipeline.config import load
            from pipeline.session import run as run_config

            result = run_config(load(config, set, store), stage=stage, progress=progress)
        except StegoflowError as error:
            if json:
                facts = {"stage": error.stage, "message": error.message, "next": render(error.next)}
                print_json({"error": facts})
                return error.exit_status
            raise
        except Exception as error:
            if not json:
                raise
            name, message = getattr(error, "stage", None), f"{type(error).__name__}: {error}"
            print_json({"error": {"stage": name, "message": message, "next": "run the same command without --json"}})
            return 1
    if json:
        print_json(result)
        return 0
    from rich.console import Console

    from pipeline.cli.tables import scores_table, stages_table

    console = Console()
    console.print(stages_table(result["stages"]))
    if result["report"]:
        console.print(scores_table(result["scores"], result["protocol"]))
        console.print(f"report: {visible(result['report'])}", markup=False, emoji=False, soft_wrap=True)
    console.print(f"run {result['run']}   next: stegoflow export {result['run']} --out masks/", soft_wrap=True)
    return 0


@app.command
def plan(
    config: str,
    /,
    *,
    set: Sets = None,
    why: Annotated[bool, Parameter(negative="")] = False,
    store: StoreURL = None,
    json: Json = False,
) -> int:
    """Say what `run` would do: per stage reuse or run, why, and what it cost the last time. Runs nothing.

    Parameters
    ----------
    config
        YAML file; `stegoflow init my.yaml` writes one.
    why
        List everything that differs from the nearest artifact, stage by stage.
    """
    from dataclasses import asdict

    from pipeline.config import load
    from pipeline.planning import plan as plan_config

    with progress_bars() as progress:
        rows = plan_config(load(config, set, store), progress=progress)
    if json:
        print_json({"stages": [asdict(row) for row in rows]})
        return 0
    from rich.console import Console

    from pipeline.cli.tables import plan_table

    console = Console()
    console.print(plan_table(rows))
    for row in rows if why else ():
        nearest = f", compared with {row.nearest}" if row.nearest else ""
        print(f"{row.stage} {row.fingerprint}: {row.action}{nearest}")
        for change in row.changes or [row.why]:
            print(f"    {visible(change)}")
    changes = "".join(f" --set {change}" for change in set or ())
    print(visible(f"next: stegoflow run {config}{changes}"))
    return 0


@app.command
def params(section: str | None = None, /) -> int:
    """Explain every field that a config may set, with its default, as YAML.

    Parameters
    ----------
    section
        Only this stage, or `execution`.
    """
    from pipeline.config import reference

    print(reference(section))
    return 0


@app.command
def export(
    run: str,
    /,
    *,
    out: str,
    split: str | None = None,
    crf: bool = True,
    matched: Annotated[bool, Parameter(negative="")] = False,
    store: StoreURL = None,
    json: Json = False,
) -> int:
    """Write a run's label maps as PNG: cluster ids, at every image's own size, under its path below the split.

    Parameters
    ----------
    run
        A run's id or `latest`.
    out
        Folder to write to; made if needed, nothing else is put there.
    split
        Only this split; default: every predicted one (with several, a folder each).
    crf
        With the dense CRF (--no-crf: without). A run with masks.crf=false has none: --no-crf then.
    matched
        Class ids of the Hungarian match instead of cluster ids; unmatched clusters become 255. Needs labels.
    """
    from pipeline.exporting import export as write_masks

    with progress_bars() as progress:
        facts = write_masks(
            open_existing(store), run, Path(out), split=split, crf=crf, matched=matched, progress=progress
        )
    return _written(facts, json)


@app.command
def segment(run: str, images: str, /, *, out: str, crf: bool = True, store: StoreURL = None, json: Json = False) -> int:
    """Segment new images with the head and clusters of an existing run; nothing is trained.

    Parameters
    ----------
    run
        A run's id or `latest`.
    images
        Folder of images.
    out
        Folder for the label maps.
    crf
        With the dense CRF (--no-crf: without).
    """
    from pipeline.segmenting import segment as segment_images

    with progress_bars() as progress:
        facts = segment_images(open_existing(store), run, images, Path(out), crf=crf, progress=progress)
    return _written(facts, json)


@app.command
def demo(*, folder: str = ".demo", json: Json = False) -> int:
    """Compose the demo corpus and run every stage on it with the packaged weights, without Prefect (make demo: with).

    Needs the extra `demo`; the masks with CRF need `crf`.

    Parameters
    ----------
    folder
        Where the corpus and the store go.
    """
    from pipeline import configs
    from pipeline.core.extras import installed
    from pipeline.datasets.demo.corpus import build

    with progress_bars() as progress:
        build(Path(folder, "corpus"), progress=lambda done, total: progress("demo corpus", done, total, "images"))
    changes = [f"dataset.root={folder}/corpus"] + ([] if installed("pydensecrf") else ["masks.crf=false"])
    return run(str(configs.path("demo")), set=changes, store=f"{folder}/store", json=json)


@app.command
def doctor(config: str | None = None, /, *, store: StoreURL = None, json: Json = False) -> int:
    """Check the installation: packages, device, weights, store, Prefect server. Exit status 1 where a run would fail.

    Parameters
    ----------
    config
        Check the weights, dataset and store of this config.
    """
    from pipeline.cli.doctor import examine

    checks = examine(config, store)
    if json:
        print_json({"checks": checks})
    else:
        for check in checks:
            mark = {"ok": "ok  ", "warning": "warn", "error": "FAIL"}[check["state"]]
            print(
                f"{mark}  {check['what']}: {check['found']}"
                + (f"\n      next: {check['next']}" if check["next"] else "")
            )
    return 1 if any(check["state"] == "error" for check in checks) else 0


for command in (estimate, *COMMANDS):
    app.command(command)


def main() -> None:
    """Entry point: exit status 0, 2 for a config or input that cannot be used, 1 for anything else."""
    try:
        sys.exit(app(sys.argv[1:], result_action="return_value"))
    except StegoflowError as error:
        print(f"error: {f'{error.stage}: ' if error.stage else ''}{render_error(error)}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        print(f"error: {type(error).__name__}: {visible(str(error))}", file=sys.stderr)
        print("  next: mend the cause and run the same command again: finished parts are kept", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _written(facts: dict[str, Any], json: bool) -> int:
    if json:
        print_json(facts)
    else:
        print(f"{facts['written']} label maps in {visible(facts['out'])}")
    return 0


if __name__ == "__main__":
    main()
