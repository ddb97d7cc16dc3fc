"""The size of views where the config leaves it to the images."""

import numpy as np
import pytest

from pipeline.artifacts.views import Shapes, ViewParams, view_size


def images(*sizes: tuple[int, int]) -> Shapes:
    """The shapes of images that come in two pieces."""
    found = Shapes()
    for some in (sizes[:1], sizes[1:]):
        if some:
            found.add(*np.asarray(some).T)
    return found


def test_the_median_is_that_of_all_images():
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 8):
        sizes = rng.integers(1, 9, (count, 2))
        found = images(*map(tuple, sizes.tolist()))
        assert [found.median(0), found.median(1)] == np.median(sizes, axis=0).tolist()


@pytest.mark.parametrize(
    ("sizes", "kind", "wanted"),
    [
        ([(360, 480)], "whole", (364, 476)),  # its own size, in patches of 14
        ([(256, 256)], "whole", (322, 322)),  # small images are enlarged
        ([(100, 150)], "whole", (322, 476)),
        ([(565, 565)], "whole", (560, 560)),
        ([(3000, 4000)], "whole", (896, 1190)),  # large ones are reduced to 64 patches
        ([(3000, 4000)], "crops", (896, 1190)),
        ([(900, 1200)], "crops", (448, 602)),
        ([(500, 5000)], "whole", (504, 994)),
        ([(500, 700)] * 19 + [(700, 500)], "whole", (504, 700)),  # one of twenty lies across
        ([(500, 700)] * 9 + [(700, 500)], "whole", (588, 588)),
        ([(3000, 4000)], "sliding", (322, 322)),
        ([(0, 0), (360, 480)], "whole", (364, 476)),  # one that cannot be decoded has no say
        ([(0, 0)], "whole", (322, 322)),
    ],
)
def test_views_follow_the_median_image(sizes: list[tuple[int, int]], kind, wanted: tuple[int, int]):
    assert view_size(images(*sizes), ViewParams(kind=kind), 14) == wanted


def test_a_size_that_is_given_is_taken():
    assert view_size(images((3000, 4000)), ViewParams(size=(224, 448)), 14) == (224, 448)
