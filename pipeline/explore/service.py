"""What the explorer does, apart from HTTP: facts of a run, groups, search, the annotation, exports."""

import json
import os
import threading
from contextlib import suppress
from typing import Any

import numpy as np

from pipeline import annotations
from pipeline.artifacts.annotation import Annotation, parse
from pipeline.artifacts.mask_tiles import LARGE
from pipeline.artifacts.scores import read_scores
from pipeline.artifacts.search import Found
from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError, DamageError, StoreError
from pipeline.core.store import Store
from pipeline.explore.colours import node_colours
from pipeline.explore.corpus import Corpus
from pipeline.explore.exports import Exports
from pipeline.explore.teaching import Teaching
from pipeline.numerics.tree import members

MOST_NODES = 2048
"""Of a request for groups."""


class Service:
    """One run that is looked at."""

    def __init__(self, store: Store, record: dict[str, Any], *, read_only: bool = False) -> None:
        self.store, self.record = store, record
        self.read_only = read_only or not writable(store)
        self.corpus = Corpus(store, record, keep_index=not self.read_only)
        self.teaching = Teaching(self.corpus)
        self.exports = Exports(store, record, read_only=self.read_only)
        self.view: dict[str, Any] | None = self._kept_view()
        """How the page last showed the tree: {"n", "open"}."""

    def start(self) -> None:
        """Begin to make the search index, where the store has none."""
        self.corpus.indexing.start()
        threading.Thread(target=self._warm, name="warm", daemon=True).start()

    def _warm(self) -> None:
        """Import and compute once what the first click would wait for."""
        with suppress(Exception):  # who asks for it is told
            rows = range(min(self.corpus.count, 100))
            row = next(row for row in rows if np.prod(self.corpus.images.size(row)) <= LARGE)
            self.corpus.prototype_map(row)
            split, image = self.corpus.images.name(row)
            said = Annotation().with_point(split, image, 0, 0, "x").with_point(split, image, 1, 1, "y")
            self.teaching.pixels(self.teaching.classes(said), row)

    @property
    def _view_path(self) -> str:
        return f"cache/explore/{self.record['stages']['clusters']}.json"

    def _kept_view(self) -> dict[str, Any] | None:
        """The view that an earlier page left, None where there is none that fits."""
        try:
            found = json.loads(self.store.get(self._view_path))
            n, nodes = int(found["n"]), [int(node) for node in found["open"]]
        except (FileNotFoundError, StoreError, ValueError, TypeError, KeyError):
            return None
        count = 2 * len(self.corpus.clusters.vectors) - 1
        return {"n": n, "open": nodes} if 0 < n <= count and all(0 <= node < count for node in nodes) else None

    def keep_view(self, n: int, nodes: list[int]) -> None:
        """Remember how the page shows the tree, for the page that comes next and for the next server."""
        self.view = {"n": n, "open": nodes}
        if not self.read_only:
            self.store.put(self._view_path, json.dumps(self.view).encode())

    def close(self) -> None:
        """Stop what runs in the background."""
        self.exports.close()
        self.corpus.indexing.close()

    def facts(self) -> dict[str, Any]:
        """What the page needs before it can show anything."""
        corpus, tree = self.corpus, self.corpus.clusters.tree
        return {
            "run": self.record["run"],
            "date": self.record["written"],
            "data": os.path.basename(self.record["config"]["dataset"]["root"].rstrip("/")),
            "store": self.store.shown,
            "splits": {split: [rows.start, rows.stop] for split, rows in corpus.images.splits.items()},
            "count": corpus.count,
            "k": corpus.clusters.k,
            "clusters": self.record["stages"]["clusters"],
            "merges": tree.merges.tolist(),
            "sizes": tree.sizes.tolist(),
            "heights": np.round(tree.heights, 5).tolist(),
            "colours": node_colours(corpus.clusters),
            "scores": self._scores(),
            "read_only": self.read_only,
            "view": self.view,
            "formats": self.exports.formats(),
            **self.annotation(),
        }

    def _scores(self) -> dict[str, Any] | None:
        artifact = Artifact(self.store, "scores", self.record["stages"].get("scores", "none"))
        found = read_scores(artifact) if artifact.exists else None
        if not found or not found.result:
            return None
        linear = found.linear_tokens
        return {
            "images": found.images,
            "classes": list(found.classes),
            "accuracy": found.result.accuracy,
            "miou": found.result.miou,
            "baseline": found.baseline and found.baseline.miou,
            "linear": linear and linear.miou,
        }

    def progress(self) -> dict[str, Any]:
        """What runs in the background."""
        indexing = self.corpus.indexing
        return {
            "index": {"done": indexing.done, "total": indexing.total, "error": indexing.error},
            "export": self.exports.state(),
            "version": self.version(),
        }

    # Images ----------------------------------------------------------------------------------------------------------

    def listing(self, start: int, count: int, query: str) -> dict[str, Any]:
        """Some of the images whose split/id holds `query`, in the table's order, and how many these are."""
        rows = self._matching(query)
        images = self.corpus.images
        some = [int(row) for row in rows[max(0, start) : max(0, start) + max(0, min(count, 500))]]
        return {"total": len(rows), "images": [[row, *images.name(row), *images.size(row)] for row in some]}

    def _matching(self, query: str) -> Any:
        if not query:
            return range(self.corpus.count)
        import pyarrow.compute as pc

        found = [np.empty(0, np.int64)]
        for start, piece in self.corpus.images.pieces.each():
            name = pc.binary_join_element_wise(piece["split"], piece["id"], "/")
            found.append(start + np.flatnonzero(np.asarray(pc.match_substring(name, query, ignore_case=True))))
        return np.concatenate(found)

    # Patches and groups ----------------------------------------------------------------------------------------------

    def find(self, row: int, y: int, x: int, count: int) -> list[dict[str, Any]]:
        """The most similar patches of the corpus, at most one an image."""
        plane = self.corpus.plane(row)
        rows, columns = plane["shape"].tolist()
        if not (0 <= y < rows and 0 <= x < columns):
            raise ConfigError(f"image {row} has no patch {y}, {x}")
        index = self.corpus.indexing.index
        query = plane["numbers"][y * columns + x].astype(np.float32) * plane["scale"][y * columns + x]
        found = index.table.find(query / np.linalg.norm(query).clip(1e-12), max(1, min(count, 200)))
        return [{**self._place(one), **self._middle(one)} for one in found]

    def _middle(self, found: Found) -> dict[str, int]:
        """The pixel in the middle of a patch, `py` and `px`."""
        place = found.place
        (rows, columns), (height, width) = self.corpus.plane(place.image)["shape"], self.corpus.images.size(place.image)
        return {
            "py": int((2 * place.y + 1) * height // (2 * rows)),
            "px": int((2 * place.x + 1) * width // (2 * columns)),
        }

    def shares(self, text: str) -> dict[str, Any]:
        """How much of some images each class of an annotation, JSON, has: {"shares", "images"}."""
        return self.teaching.shares(parse(text, "edit"))

    def groups(self, nodes: list[int], count: int) -> dict[str, Any]:
        """Of some nodes of the tree: how many patches of the corpus they have, and typical ones."""
        table = self.corpus.indexing.index.table
        counts = table.counts()
        found = []
        for node in self._known(nodes):
            inside = members(self.corpus.clusters.tree, node)
            typical = [self._place(one) for one in table.typical(inside, min(count, 60))]
            found.append({"node": node, "patches": int(counts[inside].sum()), "typical": typical})
        complete = self.corpus.indexing.done == self.corpus.indexing.total
        return {"complete": complete, "counts": counts.tolist(), "groups": found}

    def group(self, nodes: list[int], count: int) -> dict[str, Any]:
        """One group, made of nodes, closer: borderline patches, where it most often appears, what lies beside it."""
        table, tree = self.corpus.indexing.index.table, self.corpus.clusters.tree
        inside = np.unique(np.concatenate([members(tree, node) for node in self._known(nodes)]))
        vectors, count = self.corpus.clusters.vectors, min(count, 60)
        here = table.members(inside)
        per_image = np.bincount(table.image[here], minlength=len(table.rows))
        share = per_image / np.diff(table.starts).clip(1)
        most = np.argsort(-share, kind="stable")[:count]
        return {
            "patches": len(here),
            "total": len(table.image),
            "images": int((per_image > 0).sum()),
            "typical": [self._place(one) for one in table.typical(inside, count)],
            "borderline": [self._place(one) for one in table.borderline(inside, count)],
            "most": [[int(table.rows[at]), round(float(share[at]), 4)] for at in most if share[at] > 0],
            "beside": table.beside(inside).tolist(),
            "alike": np.round((vectors @ vectors[inside].T).max(1), 4).tolist(),
        }

    def classify(
        self, text: str, rows: list[int], *, fine: bool, tile: tuple[int, int, int] | None = None
    ) -> list[np.ndarray]:
        """The class of every patch (`fine`: pixel) of some images, or of one piece of them (`Corpus.tile_map`), under
        an annotation, JSON: (rows, columns) uint16, a position in its classes or `NOTHING`."""
        classes = self.teaching.classes(parse(text, "edit"))
        if tile is not None:
            return [self.teaching.tile(classes, self.corpus.check(row), tile) for row in rows]
        look = self.teaching.pixels if fine else self.teaching.patches
        return [look(classes, self.corpus.check(row)) for row in rows]

    def propose(self, text: str) -> dict[str, Any] | None:
        """The patch whose class would teach most under an annotation, JSON; None where nothing is known yet."""
        found = self.teaching.propose(parse(text, "edit"))
        return found and self._place(found)

    def _known(self, nodes: list[int]) -> list[int]:
        last = 2 * len(self.corpus.clusters.vectors) - 1
        if not 0 < len(nodes) <= MOST_NODES or not all(0 <= node < last for node in nodes):
            raise ConfigError(f"nodes are 0 to {last - 1}, {MOST_NODES} at a time")
        return nodes

    def _place(self, found: Found) -> dict[str, Any]:
        split, id = self.corpus.images.name(found.place.image)
        return {
            "row": found.place.image,
            "split": split,
            "id": id,
            "y": found.place.y,
            "x": found.place.x,
            "score": round(found.score, 4),
        }

    # The annotation --------------------------------------------------------------------------------------------------

    def version(self) -> int:
        """The number of the newest version; 0 where there is none."""
        found = annotations.versions(self.store, self.record)
        return found[-1] if found else 0

    def annotation(self) -> dict[str, Any]:
        """The newest version, and its number."""
        found = annotations.newest(self.store, self.record)
        number, newest = found or (0, Annotation())
        return {"version": number, "annotation": shown(newest)}

    def export(self, format: str, splits: list[str], cut: int) -> dict[str, Any]:
        """Begin an export of what is said, or where nothing is said of the cut into so many groups."""
        version, said = annotations.newest(self.store, self.record) or (0, Annotation())
        empty = not said.groups and not said.points
        known = list(self.corpus.images.splits)
        return self.exports.start(format, splits or known, 0 if empty else version, cut)

    def save(self, text: str, after: int) -> dict[str, Any]:
        """Store an annotation, JSON, made from version `after`; taken together with what another page has stored since.

        Returns {"version", "annotation", "conflicts", "merged"}."""
        if self.read_only:
            raise ConfigError("this page is read-only", next="open it without --read-only")
        mine = parse(text, "edit")
        if after and after not in annotations.versions(self.store, self.record):
            raise ConfigError(f"there is no version {after}", next="reload the page")
        saved = annotations.save_merged(self.store, self.record, mine, after)
        merged = saved.annotation != mine
        return {
            "version": saved.number,
            "annotation": shown(saved.annotation),
            "conflicts": saved.conflicts,
            "merged": merged,
        }


def shown(annotation: Annotation) -> dict[str, Any]:
    """An annotation for the page: JSON, every class with a colour."""
    plain = annotation.plain
    classes = [
        {"name": one["name"], "color": color} for one, color in zip(plain["classes"], annotation.colors, strict=True)
    ]
    return {**plain, "classes": classes}


def writable(store: Store) -> bool:
    """Whether a store can be written to. A bucket is taken to be; it says no when something is stored."""
    try:
        return store.folder is None or os.access(store.folder, os.W_OK)
    except (OSError, DamageError, StoreError):
        return False
