"""Values and channels that the corpus decides: the same for every image, also for those that come later."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import picture, small
from raster_files import geotiff

from pipeline.api import run
from pipeline.config import PipelineConfig, validate
from pipeline.core.errors import ConfigError
from pipeline.core.store import Store
from pipeline.images.reading import Mixed, mix, principal, stretched
from pipeline.planning import nodes
from pipeline.segmenting import segment


def bands(number: int, count: int = 5) -> np.ndarray:
    """(64, 64, count) uint16, brighter from image to image."""
    image = picture(number, (64, 64))[0].astype(np.float64)
    mixture = np.random.default_rng(5).uniform(-1, 1, (3, count))
    return (2000 + 300 * number + image @ mixture * 3).astype(np.uint16)


def scenes(root: Path, count: int = 5) -> Path:
    for number in range(3):
        geotiff(root / f"{number}.tif", bands(number, count))
    return root


def config(root: Path, store: Path, vit: Path, **dataset: Any) -> PipelineConfig:
    return validate(small(root, store, vit, dataset={"root": str(root), **dataset}, masks={"crf": False}))


def test_limits_of_the_corpus_are_the_same_for_all_images(tmp_path, vit):
    made = run(config(scenes(tmp_path / "data"), tmp_path / "store", vit, values="corpus", channels=[3, 1, 2]))
    every = np.concatenate([bands(number)[..., [2, 0, 1]].reshape(-1, 3) for number in range(3)])
    low, high = np.percentile(every, (2, 98), axis=0)
    for number in range(3):
        wanted = np.rint(255 * ((bands(number)[..., [2, 0, 1]] - low) / (high - low)).clip(0, 1))
        assert np.abs(made.image(f"{number}.tif").astype(int) - wanted).max() <= 1
    assert made.artifact("reading").read_json("reading.json")["channels"] == ["3", "1", "2"]
    assert made.artifact("features").manifest["inputs"].keys() == {"dataset", "reading"}
    assert (next(iter(made.masks.values())) < 4).all()


def test_principal_components_of_the_corpus(tmp_path, vit):
    made = run(config(scenes(tmp_path / "data"), tmp_path / "store", vit, channels="pca"))
    every = np.concatenate([bands(number).reshape(-1, 5) for number in range(3)]).astype(float)
    values = (every - every.mean(0)) / every.std(0)
    _, _, components = np.linalg.svd(values, full_matrices=False)
    for number in range(3):
        seen = made.image(f"{number}.tif").reshape(-1, 3).astype(float)
        own = values[number * 4096 : (number + 1) * 4096] @ components[:3].T
        for channel in range(3):
            inner = (seen[:, channel] > 0) & (seen[:, channel] < 255)
            line = np.polyfit(own[inner, channel], seen[inner, channel], 1)
            assert np.abs(np.polyval(line, own[inner, channel]) - seen[inner, channel]).max() <= 1
    weights = np.asarray(made.artifact("reading").read_json("reading.json")["weights"])
    assert (weights.shape, made.artifact("reading").manifest["pixels"]) == ((3, 5), 3 * 4096)


def test_new_images_are_read_as_those_of_the_run(tmp_path, vit):
    made = run(config(scenes(tmp_path / "data"), tmp_path / "store", vit, values="corpus"))
    geotiff(tmp_path / "new/bright.tif", bands(9))
    segment(made.store, "latest", tmp_path / "new", tmp_path / "out")
    found = {Path(path).parent.name for path in (tmp_path / "store/artifacts/reading").glob("*/manifest.json")}
    assert found == {made.record["stages"]["reading"]}


def test_the_stage_is_there_where_it_is_asked_for(tmp_path, vit):
    root, store = scenes(tmp_path / "data"), tmp_path / "store"

    def names(**dataset: Any) -> dict[str, str]:
        return {
            node.stage.name: node.fingerprint for node in nodes(config(root, store, vit, **dataset), Store(str(store)))
        }

    plain, corpus, pca = names(), names(values="corpus"), names(channels="pca")
    assert "reading" not in plain
    assert plain["dataset"] == corpus["dataset"]
    assert len({plain["features"], corpus["features"], pca["features"]}) == 3
    assert corpus["reading"] != pca["reading"]


@pytest.mark.parametrize(
    ("counts", "dataset", "why"),
    [
        ((2, 2), {"channels": "pca"}, "has 2 channels"),
        ((5, 4), {"channels": "pca"}, "1.tif has 4 channels, but the corpus is read by 5"),
        ((3, 3), {"channels": "pca", "values": "zscale"}, "leave values out"),
        ((3, 3), {"channels": "pcb"}, r"dataset\.channels"),
    ],
)
def test_what_cannot_be_found(counts, dataset, why, tmp_path, vit):
    for number, count in enumerate(counts):
        geotiff(tmp_path / f"data/{number}.tif", bands(number, count))
    with pytest.raises(ConfigError, match=why):
        run(config(tmp_path / "data", tmp_path / "store", vit, **dataset))


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_a_channel_that_is_constant_is_black():
    sample = np.dstack([np.linspace(0, 50, 200), np.full(200, 7.0), np.linspace(9, -3, 200)])[0]
    weights, offset = stretched(sample, (2, 98))
    seen = mix(sample[None], Mixed(tuple(map(tuple, weights)), tuple(offset)))[0]
    assert (seen[:, 1] == 0).all()
    assert (seen[:, 0].min(), seen[:, 0].max()) == (0, 255)
    weights, offset = principal(sample)
    assert np.isfinite(weights).all()
    assert np.isfinite(offset).all()
    assert (weights[:, 1] == 0).all()


def test_nan_is_black():
    assert mix(np.full((1, 1, 2), np.nan), Mixed(((1.0, 1.0),), (0.5,))).tolist() == [[[0]]]
