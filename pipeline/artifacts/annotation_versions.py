"""Versions of the annotation of some clusters: numbered records that are created once and never changed or removed.

annotations/<fingerprint of clusters>/<n>.json: nodes of a tree mean nothing for another tree. The highest n is the
newest. What a writer was told to be stored is there, whatever happens to it afterwards.
"""

from pathlib import Path
from typing import Any

from pipeline.artifacts.annotation import Annotation, parse
from pipeline.core.artifact import Artifact, read_record, record, shown
from pipeline.core.errors import Command, ConfigError, ConflictError, DamageError, NotFoundError, Set

NONE, NEWEST = "none", "newest"
"""Values of `classes.annotation` that are no file: no annotation, and the newest version."""


def versions(clusters: Artifact) -> list[int]:
    """The numbers of all versions, oldest first."""
    names = (entry.path.rsplit("/", 1)[-1].removesuffix(".json") for entry in clusters.store.entries(_folder(clusters)))
    return sorted(int(name) for name in names if name.isdecimal())


def newest(clusters: Artifact) -> tuple[int, Annotation] | None:
    """The newest version and its number; None where there is none."""
    numbers = versions(clusters)
    return (numbers[-1], read(clusters, numbers[-1])) if numbers else None


def read(clusters: Artifact, number: int) -> Annotation:
    """A version. NotFoundError where there is none of this number, DamageError where it is not what was written."""
    try:
        found = _record(clusters, number)
    except FileNotFoundError:
        known = ", ".join(map(str, versions(clusters)[-5:])) or "none"
        raise NotFoundError(
            f"there is no version {number} of the annotation of clusters {shown(clusters.fingerprint)}; "
            f"the newest are: {known}",
            next="name one of these",
        ) from None
    return Annotation.model_validate({**found["annotation"], "clusters": clusters.fingerprint})


def save(clusters: Artifact, annotation: Annotation, after: int | None = None) -> int:
    """Store a version: its number, or that of the newest where this says the same.

    `after` is the version that it was made from, 0 for none; None where that does not matter. ConflictError where the
    newest is another one by now: the version is stored all the same, and `error.stored` and `error.other` name the two
    to be merged. To be called again after a failure: nothing is stored twice.
    """
    store = clusters.store
    content = {"after": after, "content": annotation.digest, "annotation": annotation.plain}
    while True:  # somebody else may take the next number first
        last = max(versions(clusters), default=0)
        known = _record(clusters, last) if last else {"content": None}
        if known["content"] == annotation.digest and after in (None, last, known["after"]):
            number, last = last, last - 1 if after == known["after"] else last  # the same write, done again
            break
        number = last + 1
        if store.create(f"{_folder(clusters)}/{number}.json", record("annotation", {"version": number, **content})):
            break
    if after is not None and last != after:
        raise ConflictError(
            f"version {last} was written meanwhile, not from version {after}; yours is stored as version {number}",
            next=(Command("annotate", "RUN", "FILE", after=str(after), merge=True), " takes both together"),
            stored=number,
            other=last,
        )
    return number


def _record(clusters: Artifact, number: int) -> dict[str, Any]:
    """The record of a version."""
    try:
        return read_record(clusters.store, f"{_folder(clusters)}/{number}.json")
    except DamageError as error:
        raise DamageError(error.message, next="put back the file from a copy, or name an earlier --version") from None


def _folder(clusters: Artifact) -> str:
    return f"annotations/{clusters.fingerprint}"


def pinned(ref: str, clusters: Artifact) -> str:
    """`classes.annotation` with the number of the newest version in the place of `newest`. NotFoundError where there is
    none."""
    if ref != NEWEST:
        return ref
    numbers = versions(clusters)
    if not numbers:
        raise NotFoundError(
            f"no annotation is stored for clusters {shown(clusters.fingerprint)}",
            next=("store one with ", Command("annotate", "RUN", "FILE"), ", or ", Set("classes.annotation", NONE)),
        )
    return str(numbers[-1])


def find(ref: str, clusters: Artifact) -> Annotation:
    """What `classes.annotation` means for some clusters: a number is a stored version, anything else a file.
    ConfigError where there is no such version or file, or it is no annotation."""
    if ref.isdecimal():
        return read(clusters, int(ref))
    try:
        data = Path(ref).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"annotation {ref}: {error.strerror}",
            next=("name a YAML file; ", Command("annotation", "RUN"), " prints one to begin with"),
        ) from None
    try:
        return parse(data.decode(), ref)
    except UnicodeDecodeError:
        raise ConfigError(f"{ref} is not UTF-8 text", next="save it as UTF-8") from None
