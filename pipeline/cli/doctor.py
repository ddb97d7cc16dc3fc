"""What a run needs, checked one by one: packages, extras, device, weights, dataset, store, Prefect server.

Nothing is remembered from one call to the next, and no check waits for longer than `PATIENCE`.
"""

import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from pipeline.core.errors import StegoflowError, render
from pipeline.core.extras import EXTRAS, installed, require_all
from pipeline.core.store import Store, local_folder, redact
from pipeline.terminal import visible

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig

PATIENCE = 30.0
"""Seconds that a check may take."""
PURPOSES = {
    "cpu": "k-means and neighbours: every run (on a GPU: the extra gpu)",
    "crf": "masks.crf=true; not on Python 3.13",
    "demo": "stegoflow demo, features.weights=packaged",
    "tiff": "compressed TIFFs, PNGs of 16 bits",
    "geo": "CRS of GeoTIFFs, JPEG 2000, VRT; exports as geotiff, geojson and gpkg",
    "coco": "exports as coco",
    "explore": "stegoflow explore",
    "fits": "FITS, dataset.values=zscale",
    "wsi": "whole slides: SVS, NDPI, MRXS, SCN, BIF, DICOM",
    "report": "the report",
    "dask": "execution.executor=dask",
    "flows": "Prefect deployments",
}
"""What each extra is for."""


class Check(NamedTuple):
    """One thing that was looked at."""

    what: str
    state: str
    """`ok`, `warning` or `error`."""
    found: str
    next: str = ""


def examine(config: str | None, store: str | None) -> list[Check]:
    """All checks, for a config where one is given. Nothing is written but a probe in a store that exists."""
    found = [_packages(), *_extras()]
    loaded: PipelineConfig | None = None
    if config:
        try:
            from pipeline.config import load

            loaded = load(config, store=store)
            found += [Check("config", "ok", config), *_asked_for(loaded)]
        except StegoflowError as error:
            found.append(_failed("config", "error", error))
    found += _within("device", lambda: _device(loaded))
    found += _within("weights", lambda: _weights(loaded))
    if loaded:
        found += _within("dataset", lambda: _dataset(loaded.dataset.root, loaded.dataset.layout))
    found += _within("store", lambda: _store(store or (loaded.store if loaded else "./store")))
    found += _within("prefect server", _prefect) if installed("prefect") else []
    return [Check(check.what, check.state, visible(check.found), visible(check.next)) for check in found]


def _failed(what: str, state: str, error: StegoflowError) -> Check:
    return Check(what, state, error.message, render(error.next))


def _within(what: str, check: Callable[[], Iterator[Check]]) -> list[Check]:
    """What a check finds within `PATIENCE`, else a warning: it is left behind, and ends with the process."""
    found: list[Check] = []

    def look() -> None:
        try:
            found.extend(check())
        except StegoflowError as error:
            found.append(_failed(what, "error", error))
        except Exception as error:
            found.append(Check(what, "error", f"{type(error).__name__}: {error}"))

    thread = Thread(target=look, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    late = Check(what, "warning", f"no answer within {PATIENCE:.0f} s", "try again; a run waits for longer")
    return [late] if thread.is_alive() else found


def _packages() -> Check:
    names = [re.split(r"[^\w.-]", line)[0] for line in requires("stegoflow") or () if "extra ==" not in line]
    missing = [name for name in names if _version(name) is None]
    if missing:
        return Check("packages", "error", f"missing: {', '.join(missing)}", "install stegoflow again")
    shown = ", ".join(f"{name} {_version(name)}" for name in ("stegoflow", "torch", "timm", "zarr"))
    return Check("packages", "ok", f"{shown}; all {len(names)} that every run needs")


def _extras() -> Iterator[Check]:
    lacking: dict[str, list[str]] = {}
    for package, extra in EXTRAS.items():
        if not installed(package):
            lacking.setdefault(extra, []).append(package)
    there = [extra for extra in PURPOSES if extra not in lacking]
    yield Check("extras", "ok", ", ".join(there) or "none is installed")
    for extra, packages in lacking.items():
        state = "error" if extra == "cpu" else "warning"
        text = f"not installed ({', '.join(packages)}). For: {PURPOSES[extra]}"
        yield Check(f"extra {extra}", state, text, f"pip install 'stegoflow[{extra}]'")
    if _version("faiss-cpu") and _version("faiss-gpu"):
        yield Check("faiss", "error", "faiss-cpu and faiss-gpu share a folder", "uninstall both, then install one")


def _asked_for(config: "PipelineConfig") -> Iterator[Check]:
    """Packages that a config asks for and that are missing."""
    from pipeline.planning import STAGES

    for stage in STAGES:
        try:
            require_all(getattr(config, stage.name).packages())
        except StegoflowError as error:
            yield _failed("packages", "warning" if stage.optional else "error", error)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device(config: "PipelineConfig | None") -> Iterator[Check]:
    from pipeline.backbones.devices import compute_dtype, pick_device
    from pipeline.core.execution import cores

    device = pick_device(config.execution.device if config else "auto")
    dtype = str(compute_dtype(device, config.execution.precision if config else "auto")).removeprefix("torch.")
    yield Check("device", "ok", f"{device} ({dtype} products), {cores()} cores")


def _weights(config: "PipelineConfig | None") -> Iterator[Check]:
    from pipeline.backbones.weights import find_weights

    backbone = config.features.backbone if config else "vit_small_patch14_dinov2"
    weights = config.features.weights if config else "packaged"
    try:
        yield Check("weights", "ok", f"{backbone} {weights}: {find_weights(backbone, weights)}")
    except StegoflowError as error:
        yield _failed("weights", "error" if config else "warning", error)


def _dataset(root: str, layout: str) -> Iterator[Check]:
    from pipeline.datasets import folder
    from pipeline.datasets.benchmarks.listing import shortcomings

    lacking = shortcomings(root, layout) if layout != "folder" else []
    for state, what, todo in lacking:
        yield Check("dataset", state, f"{layout} in {redact(root)}: {what}", todo)
    if any(state == "error" for state, _, _ in lacking):
        return
    found = folder.scan(root, "images", layout=layout, look=False)
    for note in found.notes:
        if note not in [what for _, what, _ in lacking]:
            wide = note.endswith(folder.FIRST_THREE)
            todo = "choose them: stegoflow params dataset" if wide else "mend, convert or remove them"
            yield Check("dataset", "warning", note, todo)
    yield Check("dataset", "ok", f"{len(found)} images in {', '.join(found.splits)}")


def _store(url: str) -> Iterator[Check]:
    """Whether the store can be written, and whether a create-only put is honoured: the contract stands on it."""
    todo = "give a --store that can be written"
    where = local_folder(url)
    if where is not None and not where.exists():
        above = next(parent for parent in where.parents if parent.exists())
        if os.access(above, os.W_OK) and above.is_dir():
            yield Check("store", "ok", f"{url} does not exist yet; a run makes it")
        else:
            yield Check("store", "error", f"{url}: {above} cannot be written", todo)
        return
    try:
        opened = Store(url, create=False)
        path = "cache/doctor"
        opened.delete(path)
        first, second = opened.create(path, b"1"), opened.create(path, b"2")
        opened.delete(path)
    except Exception as error:
        yield Check("store", "error", f"{redact(url)}: {str(error).splitlines()[0]}", todo)
        return
    if opened.folder:
        with suppress(OSError):  # not empty: it was there before
            Path(opened.folder, "cache").rmdir()
    if not first or second:
        overwrites = f"{opened.shown} overwrites on a create-only put"
        yield Check("store", "error", overwrites, "use a store with conditional writes")
        return
    free = f", {shutil.disk_usage(opened.folder).free / 1e9:.0f} GB free" if opened.folder else ""
    yield Check("store", "ok", f"{opened.shown} can be written{free}")


def _prefect() -> Iterator[Check]:
    url = os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    url = redact(url).rstrip("/")  # urllib could not use a password in it
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=3) as answer:  # noqa: S310  (the user's own URL)
            yield Check("prefect server", "ok", f"{url} answers {answer.status}")
    except (OSError, ValueError, urllib.error.URLError) as error:
        text = f"{url}: {getattr(error, 'reason', error)}"
        yield Check("prefect server", "warning", text, "only deployments need one: prefect server start")
