"""Where the fault suite makes its stores, and what it counts."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.store import Store

SEED = 20261123
KEYS = (
    "kills", "recovered", "parts_repeated", "concurrent_runs", "bytes_flipped", "flips_detected", "lost", "wrong",
)  # fmt: skip


@dataclass
class Tally:
    """What was counted, in all and row by row of the table."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))
    rows: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def add(self, **counts: int) -> None:
        for key, value in counts.items():
            self.counts[key] += value

    def say(self, fault: str, found: str) -> None:
        """A line of the table in docs/faults.md."""
        self.rows[fault] = found

    def wrong(self, differences: list[str]) -> None:
        """Count differences from an undisturbed run, and fail with them."""
        self.counts["wrong"] += len(differences)
        assert not differences


@dataclass
class Place:
    """Where stores are made in a test: below a local folder or in a bucket."""

    kind: str
    base: str
    env: dict[str, str]
    make: Callable[..., dict[str, Any]]

    def config(self, name: str, **sections: dict[str, Any]) -> dict[str, Any]:
        """Config data of a small run with the store of that name."""
        return self.make(f"{self.base}/{name}", **sections)

    def store(self, name: str) -> Store:
        return Store(f"{self.base}/{name}")


@dataclass
class Reference:
    """An undisturbed run, and the store that holds it. Read only."""

    store: Store
    run: str
    result: dict[str, Any]
    seconds: float
