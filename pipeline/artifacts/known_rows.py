"""Rows of features that earlier artifacts already hold: a grown or shuffled corpus pays for its new images only."""

import logging
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.artifacts.features import Rows
from pipeline.core.artifact import Artifact, shown
from pipeline.core.catalog import finished
from pipeline.core.engine import Job, Part
from pipeline.core.errors import DamageError
from pipeline.images.formats import split_plane

log = logging.getLogger("stegoflow")


def known_rows(out: Artifact, table: pa.Table) -> pa.Table:
    """Rows that earlier artifacts of the same recipe already hold: (view, fingerprint, row), wherever they stand now.

    A row is known by its image's content (and which of the images in a file it is), its window and its mirroring: a
    grown corpus pays for its new images only.
    """
    keys = ("path", "sha256", "y0", "x0", "height", "width", "mirrored")

    def known_by(row: dict[str, Any]) -> tuple[Any, ...]:
        return (*(row[key] for key in keys[1:]), *sorted(split_plane(row["path"])[1].items()))

    wanted = {known_by(row): row["view"] for row in table.select(["view", *keys]).to_pylist()}
    found: dict[int, tuple[str, int]] = {}
    for other in finished(out.store, out.stage):
        if other.manifest["recipe"] != out.spec["recipe"] or len(found) == len(wanted):
            continue
        missing_rows = set(other.manifest["missing_rows"])
        try:
            rows = other.read_table("views.parquet", ["view", *keys]).to_pylist()
        except DamageError as error:
            log.warning("features %s are not copied from: %s", shown(other.fingerprint), error.message)
            continue
        for row in rows:
            view = wanted.get(known_by(row))
            if view is not None and row["view"] not in missing_rows:
                found[view] = (other.fingerprint, row["view"])
    known = [{"view": view, "fingerprint": name, "row": row} for view, (name, row) in sorted(found.items())]
    schema = pa.schema([("view", pa.int64()), ("fingerprint", pa.string()), ("row", pa.int64())])
    return pa.Table.from_pylist(known, schema=schema)


def copy_known(job: Job, part: Part, stored: dict[str, np.ndarray]) -> set[int]:
    """Fill the rows of a part that an earlier artifact holds, in every array of `stored` (view, …), as they are stored
    there; returns which, counted from the part's start. What is damaged there is not copied, and a warning names it.
    """
    known = job.out.held("known.parquet", Artifact.read_table)
    first, stop = np.searchsorted(np.asarray(known["view"]), part).tolist()  # the table is sorted by it
    sources: dict[str, list[tuple[int, int]]] = {}
    for row in known.slice(first, stop - first).to_pylist():
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
