"""What is large is in memory once. tracemalloc counts numpy's arrays."""

import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.artifacts import sampling
from pipeline.numerics.codes import Codes
from pipeline.numerics.kmeans import normalise
from pipeline.numerics.tree import Cut
from pipeline.stages.masks import MasksParams, label_maps


def peak(work: Callable[[], object]) -> int:
    """Bytes that were in memory at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class Lake:
    """Stands for the tokens of 1 000 views."""

    shape = (1000, 8, 8, 32)

    def __init__(self, features: object) -> None:
        pass

    def read(self, views: np.ndarray) -> np.ndarray:
        return np.ones((len(views), *self.shape[1:]), np.float16) * views[:, None, None, None].astype(np.float16)


def drawn(monkeypatch: pytest.MonkeyPatch, limit: int) -> Codes:
    monkeypatch.setattr(sampling, "Tokens", Lake)
    monkeypatch.setattr(sampling, "training_views", lambda features: np.arange(1000))
    work = SimpleNamespace(tick=lambda *progress: None)
    features = SimpleNamespace()
    both = lambda tokens: Codes(tokens.astype(np.float32), tokens[..., :3].astype(np.float32))  # noqa: E731
    return sampling.sample(features, limit, 0, work, both)  # type: ignore[arg-type]


def test_codes_are_gathered_without_a_second_copy(monkeypatch: pytest.MonkeyPatch):
    whole = 1000 * 64 * (32 + 3) * 4
    assert peak(lambda: drawn(monkeypatch, 64_000)) < 1.15 * whole


def test_every_view_gives_as_many_codes(monkeypatch: pytest.MonkeyPatch):
    found = drawn(monkeypatch, 5_500)
    assert (found.compared.shape, found.detail.shape) == ((1000, 5, 32), (1000, 5, 3))
    assert found.compared.dtype == np.float32
    np.testing.assert_array_equal(found.compared[:, 2, 7], np.arange(1000))


def test_masks_keep_one_map_per_group():
    """Of a megapixel and 27 groups of 200 prototypes: no second set of maps for the argmax, and where masks are guided
    not even one."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1000, 1000, 3), np.uint8)
    plane, vectors = rng.normal(size=(8, 8, 16)).astype(np.float32), normalise(rng.normal(size=(200, 16)))
    cut = Cut(np.arange(27), np.arange(200) % 27)
    maps = 27 * 1000 * 1000 * 4
    for upsampling, most in (("guided", 0.7), ("bilinear", 1.7)):
        params = MasksParams(crf=False, upsampling=upsampling)
        assert peak(lambda params=params: label_maps(image, plane, vectors, cut, params)) < most * maps
