"""An artifact: a folder of the store whose manifest, written last, makes it exist (storage_layout.md).

Nothing here is read blindly. Records (specs, markers, manifests, runs, names) hold their own digest; data files have
names that their content decides, and their digests stand in the marker or manifest that names them.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import Command, ConfigError, DamageError
from pipeline.core.store import Store

RECORD_VERSION = 3
"""encoding-version of spec, marker, manifest, run and name records."""
PART_NAME = re.compile(r"\d{8,}-\d{8,}")


@dataclass(frozen=True)
class Artifact:
    """A stage's result in a store. Holding one says nothing of whether it exists: ask `manifest`."""

    store: Store
    stage: str
    fingerprint: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)
    """Data files written through this object and not yet recorded: {name: {"path", "bytes", "sha256"}}."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("manifest", "spec")}

    def __post_init__(self) -> None:
        for name in (self.stage, self.fingerprint):  # records of someone else's store may hold anything
            if not name or "/" in name or name.startswith("."):
                raise ConfigError(f"{name!r} names no artifact", next="look at who wrote this store")

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
        """The manifest record; FileNotFoundError where the artifact does not exist, DamageError where it is damaged."""
        return self._record("manifest.json")

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The spec record: stage, version, encoding, params, inputs, roots and recipe, written before any data."""
        return self._record("spec.json")

    def _record(self, name: str) -> dict[str, Any]:
        try:
            return read_record(self.store, f"{self.root}/{name}")
        except DamageError as error:
            raise self.damaged(error.message) from None

    def damaged(self, message: str) -> DamageError:
        """The error that says what is damaged in this artifact and how to replace it."""
        return DamageError(message, next=(retracting(self), ", then run again"))

    # Parts ----------------------------------------------------------------------------------------------------------

    def markers(self) -> set[str]:
        """Names of the finished parts ("00000000-00000032")."""
        return set(self.each_marker_name())

    def each_marker_name(self) -> Iterator[str]:
        """The names of `markers` as the store lists them, one by one."""
        for entry in self.store.entries(f"{self.root}/parts"):
            name = entry.path.rsplit("/", 1)[-1]
            if name.endswith(".json"):
                yield name[: -len(".json")]

    def each_marker(self) -> Iterator[dict[str, Any]]:
        """What every finished part recorded, in the order of the parts; several are read at once."""
        names = sorted(self.each_marker_name())
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(names), 8 * READERS):
                yield from pool.map(self.marker, names[start : start + 8 * READERS])

    def marker(self, part: str) -> dict[str, Any]:
        """What a finished part recorded."""
        return self._record(f"parts/{part}.json")

    def finish_part(self, part: str, facts: dict[str, Any]) -> bool:
        """Write a part's marker, after its data: the files whose names hold the part's. False: another run had written
        it already, and its files count."""
        files = {name: facts for name, facts in self.files.items() if part in name}
        content = {"part": part, **facts, "files": files}
        return self.store.create(f"{self.root}/parts/{part}.json", record("part", content))

    # Data -----------------------------------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Write a data file. Its path holds a piece of its digest, so that no run overwrites what another one wrote;
        the name is bound to the path by a marker (of the part that `name` contains) or by the manifest."""
        self.files[name] = self.put(name, data)

    def put(self, name: str, data: bytes) -> dict[str, Any]:
        """Write a data file that something else will name: {"path", "bytes", "sha256"}."""
        sha256 = hashlib.sha256(data).hexdigest()
        stem, _, suffix = name.rpartition(".")
        path = f"{stem}.{sha256[:16]}.{suffix}"
        self.store.put(self.data(path), data)
        return {"path": path, "bytes": len(data), "sha256": sha256}

    def record_file(self, name: str) -> None:
        """Record a data file that was written under its plain name (the metadata of a Zarr array)."""
        data = self.store.get(self.data(name))
        self.files[name] = {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def file(self, name: str) -> dict[str, Any]:
        """Where a data file lies, its size and its digest: {"path", "bytes", "sha256"}."""
        part = PART_NAME.search(name)
        if part:
            return self.marker(part[0])["files"][name]
        return self.files[name] if name in self.files else self.manifest["files"][name]

    def path(self, name: str) -> str:
        """What to show a user for a data file: a file path for a local store, else a URL."""
        return self.store.path_of(self.data(self.file(name)["path"]))

    def read(self, name: str) -> bytes:
        """The bytes of a data file, which are those that were written: DamageError otherwise."""
        return self.get(self.file(name))

    def get(self, wanted: dict[str, Any]) -> bytes:
        """The bytes of a data file of which {"path", "bytes", "sha256"} is known, as `read` gives them."""
        path = self.data(wanted["path"])
        try:
            data = self.store.get(path)
        except FileNotFoundError:
            raise self.damaged(f"{self.store.path_of(path)} is gone") from None
        if hashlib.sha256(data).hexdigest() != wanted["sha256"]:
            raise self.damaged(f"{self.store.path_of(path)} is damaged: its bytes are not those that were written")
        return data

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet table, zstd-compressed."""
        self.write(name, to_parquet(table))

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a Parquet table that `write_table` wrote."""
        return from_parquet(self.read(name), columns)

    def held(self, name: str, read: Callable[["Artifact", str], Any]) -> Any:
        """What `read` makes of a data file, kept in this process while the file's content is the same: for what all
        parts need, such as a table of all images. Not to be changed by who gets it. `read` is a function of a module,
        called with this artifact and `name`."""
        return _held(self, name, self.file(name)["sha256"], read)

    def write_tensors(self, name: str, tensors: dict[str, Any], **facts: str) -> None:
        """Write numpy arrays as safetensors; `facts` become its metadata."""
        from safetensors.numpy import save

        self.write(name, save(tensors, metadata=facts or None))

    def read_tensors(self, name: str) -> dict[str, Any]:
        """Read the numpy arrays of a safetensors file."""
        from safetensors.numpy import load

        return load(self.read(name))

    def read_facts(self, name: str) -> dict[str, str]:
        """The metadata of a safetensors file: the `facts` of `write_tensors`."""
        data = self.read(name)
        return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})

    def write_json(self, name: str, value: Any) -> None:
        """Write plain JSON data."""
        self.write(name, json.dumps(value, indent=1).encode())

    def read_json(self, name: str) -> Any:
        """Read plain JSON data."""
        return json.loads(self.read(name))


READERS = 8
"""Markers that are read at once."""


def to_parquet(table: pa.Table) -> bytes:
    """A table as a Parquet file, zstd-compressed."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def from_parquet(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or some of its columns."""
    return pq.read_table(pa.BufferReader(data), columns=columns)


@lru_cache(maxsize=12)  # a stage holds six at most
def _held(artifact: Artifact, name: str, sha256: str, read: Callable[[Artifact, str], Any]) -> Any:
    return read(artifact, name)


def record(kind: str, content: dict[str, Any]) -> bytes:
    """Bytes of a record: `content`, the encoding it is written in, the time (UTC) of writing, and as the last field
    the sha256 of the same JSON without that field."""
    head = {"encoding-type": f"stegoflow-{kind}", "encoding-version": RECORD_VERSION}
    stamp = {"written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    return _sealed(json.dumps({**head, **content, **stamp}, indent=1, ensure_ascii=False).encode())


def _sealed(body: bytes) -> bytes:
    return body.removesuffix(b"\n}") + f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}'.encode()


SEAL = len(_sealed(b"\n}")) - len(b"\n}")
"""Bytes that the digest adds to a record."""


def read_record(store: Store, path: str) -> dict[str, Any]:
    """A record of a store. FileNotFoundError where there is none, DamageError where it is not what was written."""
    data = store.get(path)
    body = data[: -SEAL - 2] + b"\n}"
    if _sealed(body) != data:
        text = f"{store.path_of(path)} is damaged: its bytes are not those that were written"
        raise DamageError(text, next=Command("verify", store=store.shown))
    return json.loads(body)


def retracting(artifact: Artifact) -> Command:
    """The command that removes an artifact and what was made from it, so that the next run makes them again."""
    return Command("retract", shown(artifact.fingerprint), downstream=True, store=artifact.store.shown)


def shown(fingerprint: str) -> str:
    """The short form of a fingerprint for people."""
    return fingerprint[:12]
