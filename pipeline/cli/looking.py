"""The commands that look: status, show, open, params, doctor; and init, which writes a config to begin with."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.cli.options import Flag, Json, Sets, StoreURL, open_existing, print_json
from pipeline.core.errors import ConfigError
from pipeline.terminal import duration, size, visible

NEWEST = 20
"""Runs that `status` lists."""


def init(config: str, /, *, kind: Annotated[str, Parameter(name="--for")] = "folder") -> int:
    """Write a commented config to begin with.

    An existing file is not touched.

        stegoflow init my.yaml

    Parameters
    ----------
    config
        The YAML file to write.
    kind
        What the images are: one of the configs that come with stegoflow.
    """
    from pipeline import configs

    offered = [name for name in configs.names() if name != "demo"]
    if kind not in offered:
        raise ConfigError(f"--for {kind}: there are {', '.join(offered)}", next="--for folder")
    text = configs.path(kind).read_text(encoding="utf-8")
    try:
        with Path(config).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{config} exists; it is left as it is", next="name another file, or remove it") from None
    except OSError as error:
        raise ConfigError(f"{config}: {error.strerror}", next="name a file in a folder that can be written") from None
    print(visible(f"wrote {config}"))
    print(visible(f"next: set dataset.root in it to a folder of images, then: stegoflow plan {config}"))
    return 0


def params(section: str | None = None, /) -> int:
    """Explain every field that a config may set.

    Printed as YAML with the defaults, which a config can begin with.

        stegoflow params clusters

    Parameters
    ----------
    section
        Only this stage, or `execution`.
    """
    from pipeline.config import reference

    print(reference(section))
    return 0


def config(file: str, /, *, set: Sets = None, store: StoreURL = None) -> int:
    """Print a config, with changes, as the one JSON object that a Prefect flow takes.

    Checked, with paths made absolute. Prefect's UI shows it to everyone: no password may stand in it.

        stegoflow config my.yaml --set clusters.k=20

    Parameters
    ----------
    file
        YAML file; `stegoflow init my.yaml` writes one.
    """
    from pipeline.config import load
    from pipeline.core.store import refuse_secrets

    loaded = load(file, set, store)
    for url in (loaded.store, loaded.dataset.root, loaded.execution.dask_address or ""):
        refuse_secrets(url)
    return print_json(loaded.model_dump(mode="json", exclude_unset=True))


def doctor(config: str | None = None, /, *, store: StoreURL = None, json: Json = False) -> int:
    """Check what a run needs: packages, device, weights, data, store.

    Exit status 1 where a run would fail.

        stegoflow doctor my.yaml

    Parameters
    ----------
    config
        Check the weights, dataset and store of this config.
    """
    from pipeline.cli.doctor import examine

    checks = examine(config, store)
    if json:
        print_json({"checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            mark = {"ok": "ok  ", "warning": "warn", "error": "FAIL"}[check.state]
            print(f"{mark}  {check.what}: {check.found}")
            if check.next:
                print(f"      next: {check.next}")
    return 1 if any(check.state == "error" for check in checks) else 0


def status(*, all: Annotated[bool, Flag] = False, store: StoreURL = None, json: Json = False) -> int:
    """List a store's runs with what they found, and its artifacts.

        stegoflow status --store s3://bucket/prefix

    Parameters
    ----------
    all
        List every run and every artifact.
    """
    from pipeline.cataloguing import status as read_status

    facts = read_status(open_existing(store))
    if json:
        return print_json(facts)
    from pipeline.cli.tables import artifacts_table, command, console, every_artifact_table, near, runs_table

    out = console()
    count = f"{len(facts['runs'])} {'run' if len(facts['runs']) == 1 else 'runs'}"
    total = size(sum(row["bytes"] for row in facts["artifacts"]))
    print(visible(f"{near(facts['store'])}: {count}, {len(facts['artifacts'])} artifacts, {total}"))
    print()
    older = 0 if all else max(0, len(facts["runs"]) - NEWEST)
    if older:
        print(f"{older} older runs are listed by --all\n")
    newest = {**facts, "runs": facts["runs"][older:]}
    for made in (runs_table(newest), every_artifact_table(facts) if all else artifacts_table(facts)):
        out.print(made)
        out.print()
    steps = ["show latest"] if facts["runs"] else []
    if any(row["state"] == "damaged" for row in facts["artifacts"]) or any("damaged" in row for row in facts["runs"]):
        steps.insert(0, "verify")
    where = store or "./store"
    for number, step in enumerate(steps):
        print(f"{'next: ' if not number else '      '}{command(step, where)}")
    if any(not row["runs"] for row in facts["artifacts"]):
        print(f"{'      ' if steps else 'next: '}stegoflow gc --store {near(facts['store'])}")
    return 0


def show(ref: str, /, *, config: Annotated[bool, Flag] = False, store: StoreURL = None, json: Json = False) -> int:
    """Show a run, or an artifact.

    Of a run: its data, K, scores, report, stages. Of an artifact: its state, and what it was made from.

        stegoflow show latest

    Parameters
    ----------
    ref
        A run's id or name, `latest`, or a fingerprint; the beginning is enough.
    config
        Print the config of the run as a file that makes it again, and nothing else; of an artifact its params.
    """
    from pipeline.cataloguing import show as read_ref

    opened = open_existing(store)
    facts = read_ref(opened, ref)
    if json:
        return print_json(facts)
    if config:
        return _print_config(facts, opened.url)
    if "run" in facts:
        _show_run(facts)
    else:
        _show_artifact(facts)
    return 0


def _print_config(facts: dict[str, Any], store: str) -> int:
    import yaml

    made_by = facts.get("environment", {})
    what = f"run {facts['run']}" if "run" in facts else f"params of {facts['stage']} {facts['fingerprint']}"
    print(f"# {what}, by stegoflow {made_by.get('stegoflow', '?')}, commit {made_by.get('commit', 'unknown')}")
    if facts.get("pinned"):
        print(f"# taken from another run, by `stegoflow segment`: {', '.join(facts['pinned'])}")
    data = {"store": store, **facts["config"]} if "run" in facts else facts["params"]
    print("\n".join(map(visible, yaml.safe_dump(data, sort_keys=False, allow_unicode=True).splitlines())))
    return 0


def _show_run(facts: dict[str, Any]) -> None:
    from pipeline.cli.tables import console, date, near, scores_table, stages_table

    splits = ", ".join(f"{count:,} {split}" for split, count in facts["images"].items())
    features = facts["config"]["features"]
    views = features.get("views", {})
    size = views.get("size") or facts["view"]
    seen = f"{features['backbone']}, weights {_weights(features['weights'])}, " if "backbone" in features else ""
    rows = {
        "run": facts["run"] + (f" ({', '.join(facts['names'])})" if facts["names"] else ""),
        "date": f"{date(facts['written'])} UTC",
        "data": near(facts["dataset"]) + (f": {splits}" if splits else ""),
        "backbone": f"{seen}{views.get('kind', 'whole')} views"
        + (f" of {'×'.join(map(str, size))} px" if size else ""),
        "head": facts["head"] + (" (of another run)" if facts["pinned"] else ""),
        "K": str(facts["k"]) if facts["k"] is not None else "not known yet",
    }
    if facts["config"]["clusters"].get("k") is None and facts["k"] is not None:
        rows["K"] += " (suggested)"
    if facts["annotation"]:
        from pipeline.artifacts.scores import Annotated

        rows["annotation"] = str(Annotated(**facts["annotation"]))
    if facts["report"]:
        rows["report"] = near(facts["report"])
    _print_rows(rows)
    out = console()
    found = scores_table(facts["scores"], facts["protocol"])
    for made in (found, stages_table(facts["stages"])):
        if made:
            out.print()
            out.print(made)


def _weights(name: str) -> str:
    from pipeline.cli.tables import near

    return near(name) if "/" in name else name


def _show_artifact(facts: dict[str, Any]) -> None:
    from pipeline.cli.tables import date, lineage_lines, near

    rows = {"artifact": f"{facts['stage']} {facts['fingerprint']}", "state": facts["state"]}
    if facts["state"] == "finished":
        rows["items"] = f"{facts['items']:,}"
        rows["made"] = f"{date(facts['written'])} UTC, in {duration(facts['seconds'])}"
    rows["path"] = f"{near(facts['path'])} ({size(facts['size'])})"
    _print_rows(rows)
    if facts["lineage"]:
        print("made from")
        print("\n".join(map(visible, lineage_lines(facts["lineage"]))))


def _print_rows(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {visible(value)}")


def open(run: str | None = None, /, *, store: StoreURL = None) -> int:
    """Open the newest report, or a run's, in the browser.

    Its path or URL is printed too.

        stegoflow open

    Parameters
    ----------
    run
        A run's id or name; default: the run that ended last.
    """
    from pipeline.api import NEWEST_REPORT, open_run

    opened = open_existing(store)
    newest = run is None and opened.exists(NEWEST_REPORT)
    path = opened.path_of(NEWEST_REPORT) if newest else open_run(opened, run or "latest").report
    print(visible(path))
    if opened.folder is not None and has_display():
        import webbrowser

        webbrowser.open(Path(path).as_uri())
    return 0


def has_display() -> bool:
    """Whether a browser can show a window; without one `webbrowser` would open a text browser in this terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
