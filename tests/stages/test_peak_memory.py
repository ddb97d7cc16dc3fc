"""What is large is in memory once. tracemalloc counts numpy's arrays."""

import tracemalloc
from collections.abc import Callable

import numpy as np

from pipeline.artifacts.sampling import stack
from pipeline.numerics.kmeans import normalise
from pipeline.stages.masks import MasksParams, label_maps


def peak(work: Callable[[], object]) -> int:
    """Bytes that were in memory at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def blocks(count: int):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(64, 32)).astype(np.float32) for _ in range(count))


def test_tokens_are_gathered_without_a_second_copy():
    whole = 500 * 64 * 32 * 4
    assert peak(lambda: stack(map(normalise, blocks(500)), 500 * 64)) < 1.1 * whole


def test_what_is_gathered_is_what_was_given():
    found = stack(blocks(5), 1000)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.concatenate(list(blocks(5))))
    assert stack([], 1000).shape[0] == 0


def test_masks_keep_one_map_per_cluster():
    """Of a megapixel and 27 clusters: no second set of K maps for the argmax, nor where no CRF wants one."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1000, 1000, 3), np.uint8)
    plane, centroids = rng.normal(size=(8, 8, 16)).astype(np.float32), normalise(rng.normal(size=(27, 16)))
    maps = 27 * 1000 * 1000 * 4
    for upsampling in ("guided", "bilinear"):
        params = MasksParams(crf=False, upsampling=upsampling)
        assert peak(lambda params=params: label_maps(image, plane, centroids, params)) < 1.7 * maps
