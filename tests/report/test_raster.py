"""Pictures as data URIs."""

import base64
import io

import numpy as np
from PIL import Image

from pipeline.report.raster import fitted, png


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA"))


def test_a_photograph_is_shrunk_to_its_longer_side_and_never_enlarged():
    assert fitted(100, 960, 480) == (50, 480)
    assert fitted(1, 5000, 480) == (1, 480)
    assert fitted(10, 20, 480) == (10, 20)


def test_a_map_has_its_colours_and_is_clear_where_there_is_none():
    colours = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    found = pixels(png(np.array([[0, 1], [-1, 255]]), colours))
    assert found.tolist() == [[[1, 2, 3, 255], [4, 5, 6, 255]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
