"""Rows of features that earlier artifacts already hold: a grown or shuffled corpus pays for its new images only."""

import logging
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.features import Rows, view_pieces
from pipeline.core.artifact import Artifact, shown
from pipeline.core.catalog import finished
from pipeline.core.engine import Job, Part
from pipeline.core.errors import DamageError
from pipeline.core.pieces import Pieces, write_pieces
from pipeline.images.formats import split_plane

log = logging.getLogger("stegoflow")


TABLE = "known"
"""Of a features artifact: the rows that are copied (view, fingerprint, row), in pieces; the index names the first view
of each."""
SCHEMA = pa.schema([("view", pa.int64()), ("fingerprint", pa.string()), ("row", pa.int64())])
FIRST = pa.schema([("first", pa.int64())])
ROWS = 2**16
"""Rows of a piece."""
COLUMNS = ("path", "sha256", "y0", "x0", "height", "width", "mirrored")


def write_known(out: Artifact) -> list[str]:
    """Write which rows earlier artifacts of the same recipe already hold, wherever they stand now; returns the
    fingerprints of these artifacts.

    A row is known by its image's content (and which of the images in a file it is), its window and its mirroring: a
    grown corpus pays for its new images only. Where there is an earlier artifact, memory holds 50 bytes of a view.
    """
    sources = [other for other in finished(out.store, out.stage) if other.manifest["recipe"] == out.spec["recipe"]]
    view, source, row = _find(out, sources) if sources else [np.empty(0, np.int64)] * 3
    names = np.asarray([other.fingerprint for other in sources], object)

    def pieces() -> Iterator[tuple[pa.Table, dict[str, int]]]:
        for start in range(0, len(view), ROWS):
            some = slice(start, start + ROWS)
            columns = {"view": view[some], "fingerprint": names[source[some]], "row": row[some]}
            yield pa.table(columns, schema=SCHEMA), {"first": int(view[start])}

    write_pieces(out, TABLE, pieces(), FIRST)
    return sorted(names[np.unique(source)].tolist())


def _find(out: Artifact, sources: list[Artifact]) -> list[np.ndarray]:
    """The views that are known, ascending; which of the sources has each, and in which row."""
    first, second = np.concatenate([_keys(piece) for _, piece in view_pieces(out).each()]).T
    wanted, at, inverse = np.unique(first, return_index=True, return_inverse=True)
    whole = second[at]
    same = second == whole[inverse]
    del first, second
    source, row = np.full(len(wanted), -1, np.int32), np.zeros(len(wanted), np.int64)
    for number, other in enumerate(sources):
        try:
            missing = _missing(other)
            for start, piece in view_pieces(other).each():
                ours, rest = _keys(piece).T
                at = np.searchsorted(wanted, ours).clip(max=len(wanted) - 1)
                rows = np.arange(start, start + len(piece))
                hit = (wanted[at] == ours) & (whole[at] == rest) & ~np.isin(rows, missing)
                source[at[hit]], row[at[hit]] = number, rows[hit]
        except DamageError as error:
            log.warning("features %s are not copied from: %s", shown(other.fingerprint), error.message)
    view = np.flatnonzero((source[inverse] >= 0) & same)
    return [view, source[inverse[view]], row[inverse[view]]]


def _keys(views: pa.Table) -> np.ndarray:
    """(view, 2) uint64: what a row is known by."""
    found = np.empty((len(views), 2), np.uint64)
    for at, (path, *facts) in enumerate(zip(*(views[name].to_pylist() for name in COLUMNS), strict=True)):
        plane = sorted(split_plane(path)[1].items())
        found[at] = np.frombuffer(blake2b(repr((facts, plane)).encode(), digest_size=16).digest(), np.uint64)
    return found


def _missing(features: Artifact) -> np.ndarray:
    """Rows whose image could not be decoded."""
    if not features.manifest["failed"]:
        return np.empty(0, np.int64)
    return np.asarray([row for marker in features.each_marker() for row in marker["missing"]], np.int64)


def copy_known(job: Job, part: Part, stored: dict[str, np.ndarray]) -> set[int]:
    """Fill the rows of a part that an earlier artifact holds, in every array of `stored` (view, …), as they are stored
    there; returns which, counted from the part's start. What is damaged there is not copied, and a warning names it.
    """
    sources: dict[str, list[tuple[int, int]]] = {}
    for row in _known(job.out, part):
        sources.setdefault(row["fingerprint"], []).append((row["view"] - part.start, row["row"]))
    copied: set[int] = set()
    for name, pairs in sources.items():
        here = [mine for mine, _ in pairs]
        try:
            source, there = Artifact(job.out.store, job.out.stage, name), np.asarray([theirs for _, theirs in pairs])
            rows = {array: Rows(source, array).read(there) for array in stored}
        except (DamageError, FileNotFoundError) as error:
            log.warning("rows of features %s are computed anew: %s", shown(name), error)
        else:
            for array, values in rows.items():
                stored[array][here] = values
            copied |= set(here)
    return copied


def _known(out: Artifact, part: Part) -> Iterator[dict[str, Any]]:
    """The known rows of a part."""
    table = Pieces(out, TABLE)
    firsts = np.asarray(table.index["first"])
    for number in range(max(0, int(np.searchsorted(firsts, part.start, "right")) - 1), table.count):
        if firsts[number] >= part.stop:
            return
        piece = table.piece(number)
        first, stop = np.searchsorted(np.asarray(piece["view"]), part).tolist()
        yield from piece.slice(first, stop - first).to_pylist()
