"""The commands that compute: run, plan, segment, export, demo."""

import shlex
import time
from pathlib import Path
from typing import Annotated, Any

from pipeline.cli.options import As, Flag, Json, Logs, Sets, StoreURL, open_existing, print_json
from pipeline.cli.progress import reporting
from pipeline.core.errors import ConfigError
from pipeline.terminal import visible


def run(
    config: str,
    /,
    *,
    set: Sets = None,
    stage: str | None = None,
    store: StoreURL = None,
    json: Json = False,
    logs: Logs = Logs(),  # noqa: B008
) -> int:
    """Run all stages of a config.

    What exists is reused; what was cut short goes on where it stopped.

        stegoflow run my.yaml --set clusters.k=20

    Parameters
    ----------
    config
        YAML file; `stegoflow init my.yaml` writes one.
    stage
        Run this stage alone; its inputs must exist.
    """
    from pipeline.api import run as run_config
    from pipeline.config import load

    started = time.monotonic()
    with reporting(logs) as progress:
        loaded = load(config, set, store)
        result = run_config(loaded, stage=stage, progress=progress).summary()
    if json:
        return print_json(result)
    from pipeline.cli.ending import show_end

    show_end(result, time.monotonic() - started, loaded.store)
    return 0


def plan(
    config: str,
    /,
    *,
    set: Sets = None,
    views: float | None = None,
    why: Annotated[bool, Flag] = False,
    store: StoreURL = None,
    json: Json = False,
    logs: Logs = Logs(),  # noqa: B008
) -> int:
    """Say what `run` would do, and what that takes.

    Per stage: reuse or run, why, and the seconds and bytes to expect. Runs nothing. The forecast takes the rates of the
    nearest artifacts in the store, else rates that are built in; it is an order of magnitude.

        stegoflow plan my.yaml --set clusters.k=20

        stegoflow plan my.yaml --views 1e6

    Parameters
    ----------
    config
        YAML file; `stegoflow init my.yaml` writes one.
    views
        Forecast a run on a corpus of so many views (windows of images that the backbone sees; mirrored ones come on
        top), of which dataset.root is a sample.
    why
        List everything that differs from the nearest artifact, stage by stage.
    """
    from dataclasses import asdict

    from pipeline.config import load
    from pipeline.planning import plan as plan_config

    if views is not None and not 1 <= views <= 1e12:
        raise ConfigError(f"--views {views:g}: expected 1 to 1e12", next="--views 1e6")
    with reporting(logs) as progress:
        rows = plan_config(load(config, set, store), views=views, progress=progress)
    if json:
        return print_json({"stages": [asdict(row) for row in rows]})
    from pipeline.cli.tables import console, plan_table
    from pipeline.core.artifact import shown
    from pipeline.forecast import MACHINE

    out = console()
    if views is not None:
        print(f"a corpus of {views:,.0f} views like those of dataset.root")
    out.print(plan_table(rows))
    for row in rows:
        if row.stage == "features" and row.items is not None:
            left_out = " (those of nodata and slide glass are left out)" if row.bound.startswith("at most") else ""
            print(f"views: {f'{row.bound} {row.items:,}'.strip()}, mirrored ones among them{left_out}")
    for row in rows if why else ():
        nearest = f", compared with {shown(row.nearest)}" if row.nearest and row.action == "run" else ""
        print(f"{row.stage} {shown(row.fingerprint)}: {row.action}{nearest}")
        for change in row.changes or [row.why]:
            print(f"    {visible(change)}")
    built_in = [row.stage for row in rows if row.action == "run" and not row.measured]
    if built_in:
        names = "all stages" if len(built_in) == len(rows) else ", ".join(built_in)
        print(f"built-in rates ({MACHINE}): {names}")
    words = ["stegoflow", "run", config, *(word for change in set or () for word in ("--set", change))]
    print(visible(f"next: {shlex.join([*words, '--store', store] if store else words)}"))
    return 0


def segment(
    run: str,
    images: str,
    /,
    *,
    out: str,
    format: As = None,
    crf: bool | None = None,
    overwrite: Annotated[bool, Flag] = False,
    store: StoreURL = None,
    json: Json = False,
    logs: Logs = Logs(),  # noqa: B008
) -> int:
    """Segment new images with the head and clusters of a run.

    Nothing is trained.

        stegoflow segment latest NEW_IMAGES --out new_masks

    Parameters
    ----------
    run
        A run's id or name, or `latest`.
    images
        Folder of images.
    out
        A new or empty folder for the label maps and their legend.
    crf
        With the dense CRF or without (--no-crf). Default: as the run has it.
    overwrite
        Write into a folder that is not empty.
    """
    from pipeline.segmenting import segment as segment_images
    from pipeline.writing import Writing

    with reporting(logs) as progress:
        how = Writing(format=format, overwrite=overwrite, progress=progress)
        facts = segment_images(open_existing(store), run, images, out, crf=crf, **how)
    return _written(facts, json)


def export(
    run: str,
    /,
    *,
    out: str,
    format: As = None,
    split: list[str] | None = None,
    crf: bool | None = None,
    matched: Annotated[bool, Flag] = False,
    baseline: Annotated[bool, Flag] = False,
    annotation: str | None = None,
    cut: int | None = None,
    scores: Annotated[bool, Flag] = False,
    overwrite: Annotated[bool, Flag] = False,
    store: StoreURL = None,
    json: Json = False,
    logs: Logs = Logs(),  # noqa: B008
) -> int:
    """Write a run's label maps for the tools of the field.

    They are as large as the images and lie under their paths below the split; `classes.json` and `legend.html` say what
    the ids mean. An export that was cut short goes on when the command is repeated. What opens which format:
    docs/formats.md.

        stegoflow export latest --out masks

        stegoflow export latest --as geojson --out for-qupath

        stegoflow export latest --cut 50 --split train --split val --as coco --out finer

    Parameters
    ----------
    run
        A run's id or name, or `latest`.
    out
        A new or empty folder.
    split
        Only this split; repeatable. Default: every predicted one (with several, a folder each).
    crf
        With the dense CRF or without (--no-crf). Default: with it where the run has it.
    matched
        Class ids of the Hungarian match instead of group ids; unmatched groups become 255. Needs labels.
    baseline
        The label maps of the baseline, k-means on tokens.
    annotation
        What a person said of groups and patches: a file, `newest` or the number of a version; any split will do.
    cut
        The tree of clusters cut into so many groups; any split will do. Nothing is trained or clustered again.
    scores
        Also the probability of every class at every pixel, × 255: as bands of geotiff, channels of ome-zarr and
        ome-tiff, planes of fits; in table the mean confidence of each class.
    overwrite
        Write into a folder that is not empty.
    """
    from pipeline.exporting import export as write_masks

    with reporting(logs) as progress:
        facts = write_masks(
            open_existing(store),
            run,
            out,
            format=format,
            splits=split or (),
            crf=crf,
            matched=matched,
            baseline=baseline,
            annotation=annotation,
            cut=cut,
            scores=scores,
            overwrite=overwrite,
            progress=progress,
        )
    return _written(facts, json)


def _written(facts: dict[str, Any], json: bool) -> int:
    if json:
        return print_json(facts)
    print(f"{facts['written']} label maps by run {facts['run']} in {visible(facts['out'])}, as {facts['format']}")
    return 0


def demo(*, folder: str = ".demo", json: Json = False, logs: Logs = Logs()) -> int:  # noqa: B008
    """Compose a labelled demo corpus and run every stage on it.

    Needs the extra `demo`; the masks with CRF need `crf`. The weights come with a package, so no network is needed.
    Run it again: every stage is Reused.

        stegoflow demo

    Parameters
    ----------
    folder
        Where the corpus and the store go.
    """
    from pipeline import configs
    from pipeline.api import run as run_config
    from pipeline.config import load
    from pipeline.core.extras import installed
    from pipeline.datasets.demo.corpus import build

    started = time.monotonic()
    with reporting(logs) as progress:
        build(Path(folder, "corpus"), progress=lambda done, total: progress("demo corpus", done, total, "images"))
        changes = [f"dataset.root={folder}/corpus"] + ([] if installed("pydensecrf") else ["masks.crf=false"])
        config = load(configs.path("demo"), changes, f"{folder}/store")
        result = run_config(config, progress=progress).summary()
    if json:
        return print_json(result)
    from pipeline.cli.ending import show_demo

    show_demo(result, time.monotonic() - started, config.store)
    return 0
