"""An artifact: a folder of the store whose manifest, written last, makes it exist (storage_layout.md)."""

import json
import os
import platform
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.fingerprint import canonical
from pipeline.core.store import Store

RECORD_VERSION = 1
"""encoding-version of spec, marker, manifest, run and name records."""


@dataclass(frozen=True)
class Artifact:
    """A stage's result in a store. Holding one says nothing of whether it exists: ask `manifest`."""

    store: Store
    stage: str
    fingerprint: str

    @property
    def root(self) -> str:
        return f"artifacts/{self.stage}/{self.fingerprint}"

    def data(self, name: str) -> str:
        """Path of a data object inside the store."""
        return f"{self.root}/data/{name}"

    @property
    def exists(self) -> bool:
        return self.store.exists(f"{self.root}/manifest.json")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest record; FileNotFoundError where the artifact does not exist."""
        return json.loads(self.store.get(f"{self.root}/manifest.json"))

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The spec record: stage, version, params, inputs, and what the stage fixed when it began."""
        return json.loads(self.store.get(f"{self.root}/spec.json"))

    # Parts ----------------------------------------------------------------------------------------------------------

    def markers(self) -> set[str]:
        """Names of the finished parts ("00000000-00000032")."""
        return {entry.path.rsplit("/", 1)[-1][: -len(".json")] for entry in self.store.entries(f"{self.root}/parts")}

    def marker(self, part: str) -> dict[str, Any]:
        """What a finished part recorded."""
        return json.loads(self.store.get(f"{self.root}/parts/{part}.json"))

    def finish_part(self, part: str, facts: dict[str, Any]) -> bool:
        """Write a part's marker, after its data. False: another run had written it already."""
        return self.store.create(f"{self.root}/parts/{part}.json", record("part", {"part": part, **facts}))

    # Data -----------------------------------------------------------------------------------------------------------

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet table, zstd-compressed."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.store.put(self.data(name), sink.getvalue().to_pybytes())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a Parquet table that `write_table` wrote."""
        return pq.read_table(pa.BufferReader(self.store.get(self.data(name))), columns=columns)

    def write_tensors(self, name: str, tensors: dict[str, Any], **facts: str) -> None:
        """Write numpy arrays as safetensors; `facts` become its metadata."""
        from safetensors.numpy import save

        self.store.put(self.data(name), save(tensors, metadata=facts or None))

    def read_tensors(self, name: str) -> dict[str, Any]:
        """Read the numpy arrays of a safetensors file."""
        from safetensors.numpy import load

        return load(self.store.get(self.data(name)))

    def write_json(self, name: str, value: Any) -> None:
        """Write plain JSON data."""
        self.store.put(self.data(name), json.dumps(value, indent=1).encode())

    def read_json(self, name: str) -> Any:
        """Read plain JSON data."""
        return json.loads(self.store.get(self.data(name)))


def record(kind: str, content: dict[str, Any]) -> bytes:
    """Bytes of a record: `content` with the encoding it is written in and the time (UTC) of writing."""
    head = {"encoding-type": f"stegoflow-{kind}", "encoding-version": RECORD_VERSION}
    stamp = {"written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    return json.dumps({**head, **content, **stamp}, indent=1, ensure_ascii=False).encode()


def spec_record(
    stage: str, version: int, encoding: int, params: dict[str, Any], inputs: dict[str, str], recipe: str
) -> bytes:
    """The record that opens an artifact's folder. `recipe` hashes the params without any input."""
    canonical(params)  # refuses what could not be hashed again
    return record(
        "spec",
        {
            "stage": stage,
            "version": version,
            "encoding": encoding,
            "params": params,
            "inputs": inputs,
            "recipe": recipe,
        },
    )


def environment() -> dict[str, str]:
    """What computed an artifact: recorded in its manifest, never hashed."""
    packages = ("stegoflow", "torch", "timm", "zarr", "numpy", "scikit-learn")
    found = {name: installed(name) for name in packages}
    return {**found, "python": platform.python_version(), "machine": platform.machine(), "cores": str(os.cpu_count())}


def shown(fingerprint: str) -> str:
    """The short form of a fingerprint for people."""
    return fingerprint[:12]
