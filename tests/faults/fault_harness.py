"""Runs in children that can be killed, and what must hold for the store afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts.features import Rows, Tokens
from pipeline.artifacts.masks import decode_png, read_masks
from pipeline.core.artifact import Artifact
from pipeline.core.catalog import every_artifact
from pipeline.core.gc import collect
from pipeline.core.pieces import files_of_pieces
from pipeline.core.runs import find_run
from pipeline.core.store import Store
from pipeline.core.verify import verify

SAME_COSINE = 0.9999
"""The least cosine of a token to that of an uninterrupted run."""
SAME_VALUE = 1e-4
"""The largest difference of any other number; masks must be equal pixel by pixel."""


class Zygote:
    """Starts children that run, collect, or are killed; see fault_zygote.py."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, count()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fault_zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, do: str, **command: Any) -> "Child":
        number = next(self.number)
        files = {name: str(self.folder / f"{number}.{name}") for name in ("log", "answer")}
        pid = self._ask({"start": {"do": do, **files, **command}})["pid"]
        return Child(self, pid, files)

    def wait(self, pid: int) -> int:
        return self._ask({"wait": pid})["status"]

    def close(self) -> None:
        with self.process:  # closes both pipes, which ends it
            pass


class Child:
    """A forked child under way."""

    def __init__(self, zygote: Zygote, pid: int, files: dict[str, str]) -> None:
        self.zygote, self.pid, self.files = zygote, pid, files

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def finish(self) -> dict[str, Any]:
        """Its answer; {"killed": True} where it was killed."""
        status = self.zygote.wait(self.pid)
        if status == -signal.SIGKILL:
            return {"killed": True}
        answer = json.loads(Path(self.files["answer"]).read_text())
        assert status == 0 or "error" in answer, Path(self.files["log"]).read_text()[-2000:]
        return answer

    def ended(self) -> bool:
        """Whether the child has come to its end (it is reaped by `finish`)."""
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z"


def together(zygote: Zygote, folder: Path, commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers of runs that start at the same moment."""
    go = folder / f"go-{time.monotonic_ns()}"
    children = [zygote.start("run", go=str(go), **command) for command in commands]
    deadline = time.monotonic() + 60
    while len(list(folder.glob(f"{go.name}.*"))) < len(children) and time.monotonic() < deadline:
        time.sleep(0.01)
    go.touch()
    return [child.finish() for child in children]


def parts_of(store: Store, run: str = "latest") -> int:
    """All parts of a run's artifacts."""
    record = find_run(store, run)
    return sum(len(Artifact(store, *pair).markers()) for pair in record["stages"].items())


def differences(mine: Store, reference: Store, run: str = "latest", of: str = "latest") -> list[str]:
    """Where the artifacts of a run differ from those of the reference run, by more than the tolerance; in words.

    Also whatever of the store is not what was written, and whatever is stray after a collection without grace.
    """
    names = find_run(mine, run)["stages"]
    wanted = find_run(reference, of)["stages"]
    found = [f"{stage} has another name" for stage in wanted if names.get(stage) != wanted[stage]]
    if found:
        return found
    for stage, name in names.items():
        one, other = Artifact(mine, stage, name), Artifact(reference, stage, name)
        if not one.exists:
            found.append(f"{stage} does not exist")
            continue
        found += [f"{stage}: {text}" for text in COMPARE.get(stage, _same_files)(one, other)]
    found += [f"{problem.file}: {problem.problem}" for problem in verify(mine, list(every_artifact(mine)))]
    return found


def strays(store: Store) -> list[str]:
    """What is left of a store after a collection without grace that no record names; all its writers are dead."""
    for entry in store.leftovers():
        os.utime(store.folder / entry.path, (0, 0))  # type: ignore[operator]
    collect(store, 0.0, delete=True)
    found = [entry.path for entry in store.leftovers()]
    for artifact in every_artifact(store):
        if not artifact.exists:
            continue
        named = {f"{artifact.root}/spec.json", f"{artifact.root}/manifest.json"}
        pieces = {facts["path"]: facts for facts in files_of_pieces(artifact, artifact.manifest["files"])}
        files = [pieces, artifact.manifest["files"], *(artifact.marker(part)["files"] for part in artifact.markers())]
        named |= {artifact.data(facts["path"]) for group in files for facts in group.values()}
        named |= {f"{artifact.root}/parts/{part}.json" for part in artifact.markers()}
        found += [
            entry.path
            for entry in store.entries(artifact.root)
            if entry.path not in named and ".zarr/" not in entry.path
        ]
    return found + [entry.path for entry in store.entries("removing")]


def _same_features(one: Artifact, other: Artifact) -> list[str]:
    rows = np.arange(Tokens(one).shape[0])
    a, b = (Tokens(artifact).read(rows).astype(np.float64) for artifact in (one, other))
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    found = [] if np.nanmin(cosine) >= SAME_COSINE else [f"a token's cosine is {np.nanmin(cosine)}"]
    found += [] if (np.isnan(a) == np.isnan(b)).all() else ["holes differ"]
    return found + _close("mean", Rows(one, "mean").read(rows), Rows(other, "mean").read(rows))


def _same_masks(one: Artifact, other: Artifact) -> list[str]:
    found = []
    for a, b in zip(read_masks(one), read_masks(other), strict=True):
        for key in ("mask", "mask_crf"):
            if (a["id"], a["split"]) != (b["id"], b["split"]) or (decode_png(a[key]) != decode_png(b[key])).any():
                found.append(f"{key} of {a['id']} differs")
    return found


def _same_files(one: Artifact, other: Artifact) -> list[str]:
    found = []
    for name in other.manifest["files"]:
        if name.endswith(".safetensors"):
            mine, theirs = one.read_tensors(name), other.read_tensors(name)
            for key in theirs:
                found += _close(f"{name} {key}", mine[key], theirs[key])
        elif name.endswith(".parquet"):
            mine, theirs = one.read_table(name), other.read_table(name)
            for key in theirs.column_names:
                values = [
                    np.concatenate([np.ravel(v) for v in table[key].to_pylist()]) if len(table) else np.empty(0)
                    for table in (mine, theirs)
                ]
                if values[1].dtype.kind == "f":
                    found += _close(f"{name} {key}", *values)
                elif list(values[0]) != list(values[1]):
                    found.append(f"{name} {key} differs")
        elif name.endswith(".json"):
            mine, theirs = (_numbers(artifact.read_json(name)) for artifact in (one, other))
            found += _close(name, np.asarray(mine), np.asarray(theirs))
        else:
            one.read(name)
    return found


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in _numbers(value[key])]
    if isinstance(value, list):
        return [number for inner in value for number in _numbers(inner)]
    if isinstance(value, str):
        return [float(sum(value.encode()))]
    return [-1.0 if value is None else float(value)]


def _close(name: str, mine: np.ndarray, theirs: np.ndarray) -> list[str]:
    if mine.shape != theirs.shape:
        return [f"{name} has shape {mine.shape}, not {theirs.shape}"]
    if mine.size and not np.allclose(mine, theirs, atol=SAME_VALUE, rtol=SAME_VALUE, equal_nan=True):
        return [f"{name} differs by {np.nanmax(np.abs(mine - theirs))}"]
    return []


COMPARE = {"features": _same_features, "masks": _same_masks}
