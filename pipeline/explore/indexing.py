"""The search index of a run: read from the store, or made there in the background while the page is used."""

import logging
import threading
from collections import OrderedDict
from math import prod
from typing import Any

import numpy as np

from pipeline.artifacts.clusters import read_clusters
from pipeline.artifacts.search import Index, read_part
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Node, ensure
from pipeline.core.errors import StegoflowError
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.core.store import Store
from pipeline.explore.packing import HELD, thinned
from pipeline.numerics.views import PlanePart
from pipeline.stages import search

log = logging.getLogger("stegoflow")
EXECUTION = Execution(executor="serial", device="auto")


class Indexing:
    """An index that grows. `start` returns at once; every method works meanwhile, on what there is."""

    def __init__(self, store: Store, record: dict[str, Any], *, keep: bool) -> None:
        self.store, self.keep = store, keep
        inputs = {role: record["stages"][role] for role in search.STAGE.inputs}
        self.node = Node(search.STAGE, search.SearchParams(), inputs)
        self.inputs = {role: Artifact(store, role, name) for role, name in inputs.items()}
        self.artifact = self.node.artifact(store)
        self.total: int = self.inputs["dataset"].manifest["items"]
        self.error: str | None = None
        self._index: Index | None = None
        self._indexer: search.Indexer | None = None
        self._added: set[str] = set()
        self._computed: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()
        self._ready, self._stop = threading.Event(), threading.Event()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read what is in the store, and make the rest in a thread of its own."""
        self._thread = threading.Thread(target=self._make, name="search index", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop making it; what is finished in the store is kept."""
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=30)

    def wait(self) -> None:
        """Return when it is complete. StegoflowError where it cannot be made."""
        if self._thread:
            self._thread.join()
        if self.error:
            raise StegoflowError(self.error, next="mend the cause and open the page again")

    @property
    def done(self) -> int:
        """Images that it holds."""
        return len(self._index.images) if self._index else 0

    @property
    def index(self) -> Index:
        """The index as far as it has come; waits for its beginning."""
        if self._index is None:
            self._ready.wait()
        if self._index is None:
            raise StegoflowError(self.error or "there is no index", next="mend the cause and open the page again")
        return self._index

    def image(self, row: int) -> dict[str, np.ndarray]:
        """What it holds of an image; computed where it has not come that far."""
        index = self.index
        if row not in index.images and prod(self.shape(row)) > HELD:  # the thread below makes it
            while self._thread and self._thread.is_alive() and row not in index.images and not self._stop.wait(0.2):
                pass
        if row in index.images:
            return index.images[row]
        with self._lock:
            if row not in self._computed:
                self._computed[row] = self.indexer(row)
                while len(self._computed) > 256:
                    self._computed.popitem(last=False)
            return self._computed[row]

    def planes(self, row: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The centred tokens and the codes of an image, each (rows, columns, ·)."""
        with self._lock:
            return self.indexer.planes(row)

    def shape(self, row: int) -> tuple[int, int]:
        """(rows, columns) of the plane of an image; (0, 0) of one that could not be decoded."""
        with self._lock:
            return self.indexer.shape(row)

    def part(self, row: int, part: tuple[slice, slice]) -> PlanePart | None:
        """The codes of some rows and columns of an image."""
        with self._lock:
            indexer, of = self.indexer, self.indexer.shape(row)
            planes = indexer.planes(row, part) if min(of) else None
            return planes and PlanePart(planes[1], (part[0].start, part[1].start), of)

    def codes(self, row: int, most: int) -> np.ndarray | None:
        """(rows, columns, D) float32: the codes of an image, `thinned` to so many; None where it could not be decoded.
        They are read in bands of so many."""
        rows, columns = self.shape(row)
        if not rows * columns:
            return None
        step, some = thinned(rows, columns, most)
        if step == 1:
            planes = self.planes(row)
            return planes and planes[1]
        y, x = some[:, 0] // columns, some[0] % columns
        height = max(1, most // columns)
        bands = []
        for top in range(0, rows, height):
            wanted = y[(y >= top) & (y < top + height)] - top
            if len(wanted):
                part = self.part(row, (slice(top, min(top + height, rows)), slice(0, columns)))
                bands.append(part.values[np.ix_(wanted, x)])  # type: ignore[union-attr]
        return np.concatenate(bands)

    @property
    def indexer(self) -> search.Indexer:
        """What makes tokens and codes of an image."""
        with self._lock:
            if self._indexer is None:
                index = self.index
                tensors = {"basis": index.basis, "center": index.center}
                self._indexer = search.Indexer(self.inputs, tensors, EXECUTION.device)
            return self._indexer

    def _make(self) -> None:
        try:
            self.begin()
            if self.keep:
                with open_executor(EXECUTION) as executor:
                    ensure(self.node, self.store, execution=EXECUTION, executor=executor, progress=self._progress)
            self._take_parts()
            for start in range(0, self.total, search.PART):
                self._fill(range(start, min(start + search.PART, self.total)))
        except _Stopped:
            pass
        except Exception as error:  # the page shows it
            self.error = str(error) or type(error).__name__
            log.exception("the search index could not be made")
        finally:
            self._ready.set()

    def begin(self) -> None:
        """Find the basis, and take in what is in the store."""
        finished = self.artifact.exists
        tensors = (
            self.artifact.read_tensors("basis.safetensors")
            if finished
            else search.find_basis(self.inputs["features"], self.node.params.components)  # type: ignore[attr-defined]
        )
        count = len(read_clusters(self.inputs["clusters"]).vectors)
        self._index = Index(tensors["basis"], tensors["center"], count)
        self._take_parts()
        self._ready.set()

    def _progress(self, stage: str, done: int, total: int, unit: str) -> None:
        if self._stop.is_set():
            raise _Stopped
        if total:
            self._take_parts()

    def _take_parts(self) -> None:
        """Add the parts that are finished in the store."""
        for part in sorted(self.artifact.markers() - self._added):
            self.index.add(int(part.split("-")[0]), read_part(self.artifact, part))
            self._added.add(part)

    def _fill(self, rows: range) -> None:
        """Add images that the store does not hold: nothing is to be written there."""
        if self._stop.is_set():
            raise _Stopped
        if rows.start not in self.index.images:
            self.index.add(rows.start, self.indexer.images(rows))


class _Stopped(Exception):
    """The page was closed."""
