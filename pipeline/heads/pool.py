"""The training tokens in memory, whole or as a pool of views that changes while the head is trained."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor


class Tokens(Protocol):
    """Where views are read from: `artifacts.features.Tokens`."""

    shape: tuple[int, ...]
    """(view, row, column, channel)."""

    def read(self, views: np.ndarray) -> np.ndarray: ...


class Pools:
    """The training tokens in memory: all of them, or a pool of views that is replaced while training goes on.

    A pool holds anchors and one neighbour of each; it serves as many steps as show each anchor once, while a thread
    reads the next. Which views are in pool p follows from (seed, p) alone.
    """

    def __init__(
        self,
        tokens: Tokens,
        center: np.ndarray,
        near: pa.Table,
        batch: int,
        memory_gib: float,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        context: Callable[[Tensor], Tensor],
    ) -> None:
        self.tokens, self.center, self.seed, self.device = tokens, torch.from_numpy(center), seed, device
        self.context = context
        self.dtype = torch.bfloat16 if dtype == torch.bfloat16 else torch.float16
        self.views = np.asarray(near["view"])
        lists = near["neighbours"].combine_chunks()
        order = np.argsort(self.views)
        self.near = order[np.searchsorted(self.views, np.asarray(lists.flatten()), sorter=order)]
        self.ends = np.asarray(lists.offsets) - lists.offsets[0].as_py()
        self.alone = not len(self.near)
        self.grid = (int(tokens.shape[1]), int(tokens.shape[2]))
        each = int(np.prod(tokens.shape[1:])) * 2
        fits = int(memory_gib * 2**30 // each)
        self.whole = len(self.views) <= fits
        # Two pools are in memory while one replaces the other; half of each pool are anchors.
        self.anchors = len(self.views) if self.whole else min(len(self.views), max(batch, fits // 4))
        self.size = len(self.views) if self.whole else 2 * self.anchors
        self.batch_size = min(batch, self.anchors)
        self.steps_each = max(1, self.anchors // self.batch_size)
        self.reader = ThreadPoolExecutor(1)
        self.current = -1
        self.next: tuple[int, Future[Tensor]] | None = None
        self.table: Tensor
        if self.whole:
            self.table = self._load(self.views)

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Anchors and a neighbour of each, as rows of `table`, for a step."""
        generator = np.random.default_rng([self.seed, step, 1])
        epoch, place = divmod(step, self.steps_each)
        order = np.random.default_rng([self.seed, epoch, 2]).permutation(len(self.views))[: self.anchors]
        span = slice(place * self.batch_size, (place + 1) * self.batch_size)
        if self.whole:
            anchors = order[span]
            others = None if self.alone else torch.from_numpy(self._neighbours(anchors, generator))
            return torch.from_numpy(anchors), others
        if epoch != self.current:
            self._switch(epoch)
        rows = np.arange(self.anchors)[span]
        return torch.from_numpy(rows), torch.from_numpy(rows + self.anchors)

    def _switch(self, epoch: int) -> None:
        if self.next is None or self.next[0] != epoch:
            self.next = epoch, self.reader.submit(self._load, self._members(epoch))
        self.table, self.current = self.next[1].result(), epoch
        self.next = epoch + 1, self.reader.submit(self._load, self._members(epoch + 1))

    def _members(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, epoch, 2])
        anchors = generator.permutation(len(self.views))[: self.anchors]
        return self.views[np.concatenate([anchors, self._neighbours(anchors, generator)])]

    def _neighbours(self, anchors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One neighbour of each anchor, drawn; itself where an approximate search found none."""
        lists = ((a, self.near[self.ends[a] : self.ends[a + 1]]) for a in anchors)
        return np.asarray([generator.choice(near) if len(near) else a for a, near in lists], np.int64)

    def _load(self, views: np.ndarray) -> Tensor:
        """(view × row × column, channel), centred and in their context, in two bytes a number."""
        table = torch.empty(len(views) * self.grid[0] * self.grid[1], self.tokens.shape[-1], dtype=self.dtype)
        for start in range(0, len(views), 32):
            block = torch.from_numpy(self.tokens.read(views[start : start + 32])).float() - self.center
            with torch.no_grad():
                block = self.context(block.to(self.device)).flatten(0, 2).to(self.dtype)
            row = start * self.grid[0] * self.grid[1]
            table[row : row + len(block)] = block.cpu()
        return table.to(self.device)

    def close(self) -> None:
        self.reader.shutdown(cancel_futures=True)
