"""One store, the same calls on a local folder and on S3, GCS or Azure (obstore underneath)."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from pipeline.core.errors import Command, ConfigError, NotFoundError, StoreError

if TYPE_CHECKING:
    from zarr.storage import ObjectStore

ENCODING_VERSION = 4
MARK = "stegoflow.json"
GO_ON = "mend the cause and run the same command again: finished parts are kept"
"""The next step after a failure that trying again may mend."""
BULK = 1000
"""Objects that are deleted in one call."""
LEFTOVER = re.compile(r"#\d+$")
"""The end of a name under which a local store stages a write: what a killed process leaves. Never listed."""


class Entry(NamedTuple):
    """One object: its path inside the store, bytes, seconds since the epoch of its last change, and in a bucket its
    ETag as the store writes it."""

    path: str
    size: int
    modified: float
    tag: str = ""


class Store:
    """Objects by path. Reads of what is missing raise FileNotFoundError, other failures StoreError.

    Pickles as its URL, so that a worker process opens its own connection.
    """

    def __init__(self, url: str | Path, *, create: bool = True) -> None:
        self.url = str(url)
        refuse_secrets(self.url)
        try:
            self.folder = local_folder(self.url)
            """The folder of a local store, None for a bucket."""
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL byte
            raise ConfigError(f"the store {self.url!r} cannot be opened: {error}", next="another --store") from None
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"the store {self.url} is a file, not a folder", next="give another --store")
        if self.folder is not None and not create and not self.folder.exists():
            raise NotFoundError(f"there is no store {self.url}", next="name one: --store FOLDER_OR_URL")
        try:
            if self.folder is not None:
                if create:
                    self.folder.mkdir(parents=True, exist_ok=True)
                self.objects = LocalStore(prefix=self.folder)
            else:
                self.objects = from_url(self.url)  # type: ignore[assignment]
        except Exception as error:
            text = f"the store {self.shown} cannot be opened: {first_line(error)}"
            raise ConfigError(text, next=Command("doctor")) from None  # the error itself quotes the whole URL

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.url,)

    @property
    def shown(self) -> str:
        """The URL without user names, passwords and query: what logs, manifests and reports may hold."""
        return redact(self.url)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def mark(self) -> None:
        """Write (or check) the object that says which layout this store has, before a run writes anything.

        ConfigError for another layout, for a store that cannot be written, and for one that does not honour
        create-only puts: two runs could then overwrite each other's manifests.
        """
        mark = json.dumps({"encoding-type": "stegoflow-store", "encoding-version": ENCODING_VERSION}).encode()
        try:
            if not self.exists(MARK):
                self.create(MARK, mark)
            self.check_layout()
            overwritten = self.create(MARK, mark)
        except OSError as error:
            text = f"the store {self.shown} is not usable: {first_line(error)}"
            raise ConfigError(text, next=Command("doctor")) from error
        if overwritten:
            raise ConfigError(
                f"the store {self.shown} overwrites where it was asked to create: results could be lost",
                next="use a store with conditional writes (If-None-Match), or a local folder",
            )

    def check_layout(self) -> None:
        """ConfigError unless this is a store of the layout that this program reads. Writes nothing."""
        try:
            found = json.loads(self.get(MARK))
        except FileNotFoundError:
            text = f"{self.shown} is not a stegoflow store"
            raise NotFoundError(text, next="name one: --store FOLDER_OR_URL") from None
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("encoding-type") != "stegoflow-store":
            raise ConfigError(f"{self.path_of(MARK)} is not a store's mark", next="give another --store")
        layout = found.get("encoding-version")
        if layout != ENCODING_VERSION:
            raise ConfigError(
                f"the store {self.shown} has layout {layout}; this program reads layout {ENCODING_VERSION}",
                next="use another --store, or the program's version that wrote it",
            )

    @contextmanager
    def wrap_errors(self, what: str, path: str, size: int | None = None) -> Iterator[None]:
        """Whatever the store raises inside becomes a StoreError that says where, and how much room was needed.

        FileNotFoundError passes: it means that nothing is there.
        """
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, BaseError) as error:
            need = ""
            if size is not None:
                free = f", {shutil.disk_usage(self.folder).free:,} are free" if self.folder else ""
                need = f" ({size:,} bytes needed{free})"
            raise StoreError(f"{what} {self.path_of(path)}{need}: {first_line(error)}", next=GO_ON) from None

    def get(self, path: str) -> bytes:
        """The bytes of an object."""
        with self.wrap_errors("cannot read", path):
            return bytes(obstore.get(self.objects, path).bytes())

    def put(self, path: str, data: bytes) -> None:
        """Write an object, replacing whatever was there (data; never a manifest, marker or name)."""
        with self.wrap_errors("cannot write", path, len(data)):
            obstore.put(self.objects, path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless one is there: True for the single writer that wins, on every kind of store."""
        with self.wrap_errors("cannot write", path, len(data)):
            try:
                obstore.put(self.objects, path, data, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def exists(self, path: str) -> bool:
        """Whether an object is there."""
        with self.wrap_errors("cannot look for", path):
            try:
                obstore.head(self.objects, path)
            except FileNotFoundError:
                return False
            return True

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Every object below the folder `prefix`, in no order."""
        with self.wrap_errors("cannot list", prefix):
            for chunk in obstore.list(self.objects, prefix):
                for meta in chunk:
                    tag = "" if self.folder else meta["e_tag"] or ""
                    yield Entry(meta["path"], meta["size"], meta["last_modified"].timestamp(), tag)

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below `prefix`, sorted."""
        with self.wrap_errors("cannot list", prefix):
            found = obstore.list_with_delimiter(self.objects, prefix)["common_prefixes"]
            return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    def delete(self, *paths: str) -> None:
        """Remove objects, a thousand in a request where the store can; fine where one is gone already."""
        for start in range(0, len(paths), BULK):
            some = paths[start : start + BULK]
            with self.wrap_errors("cannot delete", some[0]):
                try:
                    obstore.delete(self.objects, some)
                except FileNotFoundError:
                    for path in some:
                        self._delete_one(path)

    def _delete_one(self, path: str) -> None:
        try:
            obstore.delete(self.objects, path)
        except FileNotFoundError:
            return

    def leftovers(self) -> Iterator[Entry]:
        """What killed writers left below a local store: staged files that no listing shows. None in a bucket, which
        drops an unfinished upload by its own lifecycle rules."""
        for parent, _, names in os.walk(self.folder) if self.folder else ():
            for name in names:
                if LEFTOVER.search(name):
                    path = Path(parent, name)
                    try:
                        stat = path.stat()
                    except FileNotFoundError:  # its writer was alive, and has put it in place
                        continue
                    yield Entry(path.relative_to(self.folder).as_posix(), stat.st_size, stat.st_mtime)  # type: ignore[arg-type]

    def delete_leftover(self, path: str) -> None:
        """Remove one of `leftovers`; fine if it is gone already."""
        assert self.folder is not None
        assert LEFTOVER.search(path)
        (self.folder / path).unlink(missing_ok=True)

    def drop_empty(self, prefix: str) -> None:
        """Remove empty folders at and below `prefix` of a local store; a bucket has none."""
        if self.folder:
            for parent, _, _ in os.walk(self.folder / prefix, topdown=False):
                try:
                    Path(parent).rmdir()
                except OSError:  # not empty, or gone
                    continue

    def zarr(self, path: str, *, read_only: bool = False) -> "ObjectStore[Any]":
        """The folder `path` as a Zarr store of its own: Zarr writes nothing outside of it."""
        from zarr.storage import ObjectStore

        if self.folder is not None:
            return ObjectStore(LocalStore(prefix=self.folder / path, mkdir=not read_only), read_only=read_only)
        return ObjectStore(from_url(f"{self.url.rstrip('/')}/{path}"), read_only=read_only)

    def path_of(self, path: str) -> str:
        """What to show a user for an object: a file path for a local store, else a URL."""
        return str(self.folder / path) if self.folder else f"{self.shown.rstrip('/')}/{path}"


def local_folder(url: str) -> Path | None:
    """The folder that a path or file:// URL names (user and relative parts resolved), None for other schemes."""
    if "://" not in url:
        return Path(url).expanduser().resolve()
    parts = urlsplit(url)
    return Path(unquote(parts.path)).resolve() if parts.scheme == "file" else None


def redact(url: str) -> str:
    """A URL without credentials or query."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, "", ""))


def refuse_secrets(url: str) -> None:
    """ConfigError for a URL with a password, a key or a query: a URL ends up in logs, processes and Prefect's database.

    obstore ignores them in s3://, gs:// and az:// URLs anyway. A container before the @ of abfss:// is no secret.
    """
    scheme, separator, rest = url.partition("://")
    user, at, _ = rest.partition("@")  # not urlsplit: a key may hold a slash
    given = at and "/" not in user.partition(":")[0] and (":" in user or not scheme.startswith("abfs"))
    if separator and (given or "?" in rest):
        raise ConfigError(
            f"a {scheme}:// URL was given with a user, a key or a query in it",
            next="give it without them; credentials come from the environment (docs/security.md)",
        )


def first_line(error: BaseException) -> str:
    """What an error says, without obstore's "Debug source", and without the credentials and query of a URL in it."""
    line = str(error).partition("\n")[0]
    return re.sub(r"\?[^\s\"]*", "", re.sub(r"://[^/\s]*@", "://", line))


def open_existing(store: "str | Path | Store") -> Store:
    """A store that is read: ConfigError where there is none, or one of another layout."""
    if isinstance(store, Store):
        return store
    opened = Store(store, create=False)
    opened.check_layout()
    return opened


@lru_cache(maxsize=8)
def open_store(url: str) -> Store:
    """The store of this process for a URL: opened once, used by every part."""
    return Store(url)
