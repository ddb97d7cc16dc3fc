"""Several triples of channels: the backbone sees each, and their tokens are averaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import picture, small
from raster_files import geotiff

from pipeline.api import run
from pipeline.artifacts.features import Tokens
from pipeline.config import validate
from pipeline.core.errors import ConfigError
from pipeline.results import Run

BOTH = [["nir", "red", "green"], ["red", "green", "blue"]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(3):
        image = picture(number, (64, 96))[0]
        infrared = (255 - image[..., :1] // 2).astype(np.uint8)
        geotiff(tmp_path / f"data/{number}.tif", np.dstack([image, infrared]), ("red", "green", "blue", "nir"))
    return tmp_path / "data"


@pytest.fixture
def made(root: Path, vit: Path) -> Any:
    def make(until: str | None = "features", **dataset: Any) -> Run:
        data = small(root, root.parent / "store", vit, dataset={"root": str(root), **dataset}, masks={"crf": False})
        return run(validate(data), until=until)

    return make


def tokens(found: Run) -> np.ndarray:
    features = found.artifact("features")
    return Tokens(features).read(np.arange(features.manifest["items"])).astype(np.float32)


@pytest.mark.parametrize("values", [None, "corpus", [0, 200]])
def test_tokens_are_the_mean_of_those_of_each(made, values):
    apart = [tokens(made(channels=one, values=values)) for one in BOTH]
    found = tokens(made(channels=BOTH, values=values))
    assert len(found) == 6, "three views, and three mirrored ones"
    assert np.abs(apart[0] - apart[1]).max() > 0.1
    assert np.allclose(found, np.mean(apart, axis=0), rtol=2e-3, atol=2e-3)


def test_everything_behind_is_as_with_one(made):
    found = made(None, channels=BOTH, values="corpus")
    assert all((np.asarray(mask) < 4).all() for mask in found.masks.values())
    one = made(channels=BOTH[0], values="corpus")
    for name in ("0.tif", "2.tif"):
        assert np.array_equal(found.image(name), one.image(name)), "people see the first triple"
    assert Path(found.report).read_text().count("data:image") > 3


def test_another_triple_is_another_artifact(made):
    names = [
        made(channels=channels).artifact("features").fingerprint
        for channels in (BOTH, BOTH[::-1], BOTH[0], [*BOTH, ["blue", "nir", "red"]])
    ]
    assert len(set(names)) == 4


@pytest.mark.parametrize(
    "channels", [[["nir", "red"], ["red", "green"]], [["nir", "red", "green"]], [["red", "green", "blue"], "nir"], [[]]]
)
def test_lists_that_are_no_triples(made, channels):
    with pytest.raises(ConfigError, match=r"dataset\.channels"):
        made(channels=channels)


def test_a_channel_that_is_missing_in_the_second(made):
    with pytest.raises(ConfigError, match=r"no channel 'swir'; it has 1 red, 2 green, 3 blue, 4 nir"):
        made(channels=[BOTH[0], ["swir", "red", "green"]])
