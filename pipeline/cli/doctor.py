"""What a run needs, checked one by one: packages, device, weights, dataset, store, Prefect server."""

import shutil
import urllib.error
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from os import environ
from typing import Any

from pipeline.backbones.devices import compute_dtype, pick_device
from pipeline.backbones.weights import find_weights
from pipeline.config import PipelineConfig, load
from pipeline.core.errors import StegoflowError, render
from pipeline.core.execution import cores
from pipeline.core.extras import EXTRAS, installed, require_all
from pipeline.core.store import Store, redact
from pipeline.planning import STAGES
from pipeline.terminal import visible

PACKAGES = ("torch", "timm", "zarr", "obstore", "scikit-learn", "pyarrow")


def examine(config: str | None, store: str | None) -> list[dict[str, Any]]:
    """Checks as {"what", "state": ok|warning|error, "found", "next"}; nothing is downloaded or written but a probe."""
    checks: list[dict[str, Any]] = []

    def say(what: str, state: str, found: str, next: str = "") -> None:
        checks.append({"what": what, "state": state, "found": visible(found), "next": visible(next)})

    missing = []
    for name in PACKAGES:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    state = "error" if missing else "ok"
    found = f"missing: {', '.join(missing)}" if missing else ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    say("packages", state, found, "pip install stegoflow" if missing else "")
    there = {extra for package, extra in EXTRAS.items() if installed(package)}
    absent = sorted({extra for package, extra in EXTRAS.items() if not installed(package)} - {"cpu"})
    say("extras", "ok", ", ".join(sorted(there - {*absent, "cpu"})) or "none")
    if absent:
        say(
            "extras",
            "warning",
            f"without {', '.join(absent)}",
            f"where one is needed: pip install 'stegoflow[{','.join(absent)}]'",
        )

    faiss = [name for name in ("faiss-cpu", "faiss-gpu") if _installed(name)]
    state = "ok" if len(faiss) == 1 else "error"
    say(
        "faiss",
        state,
        " and ".join(faiss) or "none",
        "" if state == "ok" else "install exactly one of the extras cpu, gpu",
    )

    loaded: PipelineConfig | None = None
    if config:
        try:
            loaded = load(config, store=store)
            say("config", "ok", config)
        except StegoflowError as error:
            say("config", "error", error.message, render(error.next))
        for stage in STAGES if loaded else ():
            try:
                require_all(getattr(loaded, stage.name).packages())
            except StegoflowError as error:
                say("packages", "warning" if stage.optional else "error", error.message, render(error.next))
    name = loaded.execution.device if loaded else "auto"
    try:
        device = pick_device(name)
        dtype = str(compute_dtype(device, loaded.execution.precision if loaded else "auto")).removeprefix("torch.")
        say("device", "ok", f"{device} ({dtype} products), {cores()} cores")
    except StegoflowError as error:
        say("device", "error", error.message, render(error.next))

    wanted = (
        [(loaded.features.backbone, loaded.features.weights)] if loaded else [("vit_small_patch14_dinov2", "packaged")]
    )
    for backbone, weights in wanted:
        try:
            say("weights", "ok", f"{backbone} {weights}: {find_weights(backbone, weights)}")
        except StegoflowError as error:
            say("weights", "error" if loaded else "warning", error.message, render(error.next))

    if loaded:
        _check_dataset(loaded.dataset.root, loaded.dataset.layout, say)
    _check_store(store or (loaded.store if loaded else "./store"), say)
    if installed("prefect"):
        _check_prefect(say)
    return checks


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _check_dataset(root: str, layout: str, say: Any) -> None:
    from pipeline.datasets import folder
    from pipeline.datasets.benchmarks.listing import shortcomings

    try:
        lacking = shortcomings(root, layout) if layout != "folder" else []
        for state, what, todo in lacking:
            say("dataset", state, f"{layout} in {redact(root)}: {what}", todo)
        if any(state == "error" for state, _, _ in lacking):
            return
        items, notes = folder.scan(root, "images", layout=layout)
        for note in notes:
            if note not in [what for _, what, _ in lacking]:
                say("dataset", "warning", note, "mend, convert or remove them")
        splits = {item.split for item in items}
        say("dataset", "ok", f"{len(items)} images in {', '.join(sorted(splits))}")
    except (StegoflowError, OSError) as error:
        say("dataset", "error", getattr(error, "message", str(error)), render(getattr(error, "next", "")))


def _check_store(url: str, say: Any) -> None:
    """Whether the store can be written, and whether a create-only put is honoured: the contract stands on it."""
    try:
        opened = Store(url)
    except StegoflowError as error:
        say("store", "error", error.message, "give a --store that can be written")
        return
    try:
        path = "cache/doctor"
        opened.delete(path)
        first, second = opened.create(path, b"1"), opened.create(path, b"2")
        opened.delete(path)
    except Exception as error:
        say("store", "error", f"{opened.shown}: {str(error).splitlines()[0]}", "give a --store that can be written")
        return
    if not first or second:
        say("store", "error", f"{opened.shown} overwrites on a create-only put", "use a store with conditional writes")
        return
    free = f", {shutil.disk_usage(opened.folder).free / 1e9:.0f} GB free" if opened.folder else ""
    say("store", "ok", f"{opened.shown} can be written{free}")


def _check_prefect(say: Any) -> None:
    url = redact(environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api"))  # urllib could not use a password in it
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=3) as answer:  # noqa: S310 (the user's own setting)
            say("prefect server", "ok", f"{url} answers {answer.status}")
    except (OSError, ValueError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        say("prefect server", "warning", f"{url}: {reason}", "only deployments need one: prefect server start")
