"""Versions of the annotation of some clusters: numbered records that are created once and never changed or removed.

annotations/<fingerprint of clusters>/<n>.json: nodes of a tree mean nothing for another tree. The highest n is the
newest. What a writer was told to be stored is there, whatever happens to it afterwards.
"""

from pipeline.artifacts.annotation import Annotation
from pipeline.core.artifact import Artifact, read_record, record, shown
from pipeline.core.errors import Command, ConflictError, DamageError, NotFoundError


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
    store, path = clusters.store, f"{_folder(clusters)}/{number}.json"
    try:
        found = read_record(store, path)
    except FileNotFoundError:
        known = ", ".join(map(str, versions(clusters)[-5:])) or "none"
        raise NotFoundError(
            f"there is no version {number} of the annotation of clusters {shown(clusters.fingerprint)}; "
            f"the newest are: {known}",
            next="name one of these",
        ) from None
    except DamageError as error:
        raise DamageError(error.message, next="put back the file from a copy, or name an earlier --version") from None
    return Annotation.model_validate({**found["annotation"], "clusters": clusters.fingerprint})


def save(clusters: Artifact, annotation: Annotation, after: int | None = None) -> int:
    """Store a version: its number, or that of the newest where this says the same.

    `after` is the version that it was made from, 0 for none; None where that does not matter. ConflictError where the
    newest is another one by now: the version is stored all the same, and `error.stored` and `error.other` name the two
    to be merged.
    """
    store = clusters.store
    content = {"after": after, "content": annotation.digest, "annotation": annotation.plain}
    while True:  # somebody else may take the next number first
        last = max(versions(clusters), default=0)
        if last and read(clusters, last).digest == annotation.digest:
            return last
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


def _folder(clusters: Artifact) -> str:
    return f"annotations/{clusters.fingerprint}"
