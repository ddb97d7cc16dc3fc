"""What a person says of a run's groups and images: kept as versions in the store, merged where two wrote at once."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

from pipeline.artifacts import annotation_versions
from pipeline.artifacts.annotation import Annotation, Point, check
from pipeline.artifacts.clusters import read_clusters
from pipeline.artifacts.images import Images
from pipeline.core.errors import ConflictError
from pipeline.core.runs import run_artifact
from pipeline.core.store import Store

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Merged(NamedTuple):
    """Two annotations taken together."""

    annotation: Annotation
    conflicts: list[str]
    """In words, each thing that both changed, and differently: mine was taken."""


class Saved(NamedTuple):
    """What `save_merged` stored."""

    number: int
    annotation: Annotation
    conflicts: list[str]


def versions(store: Store, record: dict[str, Any]) -> list[int]:
    """The numbers of all versions of the annotation of a run's clusters, oldest first."""
    return annotation_versions.versions(run_artifact(store, record, "clusters"))


def newest(store: Store, record: dict[str, Any]) -> tuple[int, Annotation] | None:
    """The newest version of the annotation of a run's clusters, and its number; None where there is none."""
    return annotation_versions.newest(run_artifact(store, record, "clusters"))


def read(store: Store, record: dict[str, Any], number: int) -> Annotation:
    """One version; NotFoundError, DamageError."""
    return annotation_versions.read(run_artifact(store, record, "clusters"), number)


def save(store: Store, record: dict[str, Any], annotation: Annotation, after: int | None = None) -> int:
    """Check an annotation against a run's tree and images, and store it as the next version: its number.

    ConfigError for what does not fit, with its line where it was parsed. ConflictError where the newest version is not
    `after` (None: whichever it is); it is stored all the same, see `annotation_versions.save`. `save_merged` goes on
    from there.
    """
    clusters = run_artifact(store, record, "clusters")
    images = Images(run_artifact(store, record, "dataset"))
    check(annotation, read_clusters(clusters).tree, images, clusters.fingerprint)
    return annotation_versions.save(clusters, annotation, after)


def save_merged(store: Store, record: dict[str, Any], annotation: Annotation, after: int) -> Saved:
    """`save`, and where somebody else wrote meanwhile, store both together as one more version. The three are kept."""
    base = read(store, record, after) if after else Annotation()
    mine, made_from = annotation, after
    conflicts: list[str] = []
    while True:
        try:
            return Saved(save(store, record, mine, made_from), mine, conflicts)
        except ConflictError as error:
            mine, found = merge(base, mine, read(store, record, error.other))
            made_from, conflicts = error.stored, conflicts + found


def edit(store: Store, record: dict[str, Any], change: Callable[[Annotation], Annotation]) -> Saved:
    """Store what `change` makes of the newest version, or of nothing; see `save_merged`."""
    number, found = newest(store, record) or (0, Annotation())
    return save_merged(store, record, change(found), number)


def merge(base: Annotation, mine: Annotation, theirs: Annotation) -> Merged:
    """Both changes of `base` together: a class, group or point that one of them added, changed or removed is as that
    one has it. What both changed differently is as `mine` has it, and reported. A class that either still uses stays.
    """
    conflicts: list[str] = []

    def three(title: str, base: Mapping[Key, Value], mine: Mapping[Key, Value], theirs: Mapping[Key, Value]) -> Any:
        found = {}
        for key in (*mine, *(key for key in theirs if key not in mine)):
            before, ours, other = base.get(key), mine.get(key), theirs.get(key)
            if other not in (before, ours) and ours != before:
                conflicts.append(f"{title} {key}: {_said(ours)}, not {_said(other)}")
            value = ours if ours != before else other
            if value is not None:
                found[key] = value
        return found

    classes = [{one.name: one.color or "" for one in each.classes} for each in (base, mine, theirs)]
    colors = three("colour of", *classes)
    groups = three("node", base.groups, mine.groups, theirs.groups)
    points = three("point", *({one.key: one.class_ for one in each.points} for each in (base, mine, theirs)))
    for name in (*groups.values(), *points.values()):  # one removed a class that the other used
        colors.setdefault(name, next(found[name] for found in classes if name in found))
    order = [name for each in classes[1:] for name in each] + list(colors)
    made = Annotation(clusters=mine.clusters)
    for name in dict.fromkeys(name for name in order if name in colors):
        made = made.with_class(name, colors[name] or None)
    found = tuple(Point(split=s, image=i, y=y, x=x, class_=name) for (s, i, y, x), name in points.items())
    return Merged(made.model_copy(update={"groups": groups, "points": found}), conflicts)


def _said(value: Any) -> str:
    return "nothing" if value is None else repr(value) if value else "the palette's"
