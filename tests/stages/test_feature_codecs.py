"""Features under each codec: what is read, what is found when something is lost, what a grown corpus copies."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.api import open_features, run
from pipeline.artifacts.features import Rows, Tokens, arrays, read_center
from pipeline.config import PipelineConfig
from pipeline.core.artifact import Artifact
from pipeline.core.errors import DamageError, render
from pipeline.core.verify import verify_artifact
from pipeline.stages import features

Make = Callable[..., PipelineConfig]
CODECS = ["int8"]


def made(config: PipelineConfig) -> Artifact:
    """The features of a config, made from what its store has."""
    run(config, stage="dataset")
    return run(config, stage="features").artifact("features")


def read(artifact: Artifact) -> np.ndarray:
    tokens = Tokens(artifact)
    return tokens.read(np.arange(tokens.shape[0]))


def means(artifact: Artifact) -> np.ndarray:
    mean = Rows(artifact, "mean")
    return mean.read(np.arange(mean.shape[0]))


def read_everything(artifact: Artifact) -> None:
    read(artifact)
    means(artifact)
    read_center(artifact, "dataset")


@pytest.fixture(scope="module", params=CODECS)
def codec(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def coded(codec: str, make_config: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """`make_config` with the codec."""

    def make(**sections: dict[str, Any]) -> PipelineConfig:
        return make_config(**{**sections, "features": {"codec": codec, **sections.get("features", {})}})

    return make


def similar(mine: np.ndarray, theirs: np.ndarray, center: np.ndarray) -> float:
    """Mean cosine of centred tokens."""
    a, b = (values.astype(np.float64) - center for values in (mine, theirs))
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).mean())


def test_tokens_are_read_as_before(coded: Make, finished):
    """… by stages and by notebooks; what is computed of unrounded tokens stays as it was."""
    artifact = made(coded())
    plain = finished.artifact("features")
    values, wanted = read(artifact), read(plain)
    assert (values.dtype, values.shape) == (np.float16, wanted.shape)
    assert 0.99 < similar(values, wanted, read_center(plain, "dataset")) < 0.9999
    np.testing.assert_allclose(means(artifact), means(plain), atol=1e-5)
    np.testing.assert_allclose(read_center(artifact, "dataset"), read_center(plain, "dataset"), atol=1e-5)
    scattered = np.array([9, 3, 3, 13, 0])
    np.testing.assert_array_equal(Tokens(artifact).read(scattered), values[scattered])
    opened = open_features(artifact.store.url, artifact.fingerprint)
    for key in (2, -1, slice(2, 9, 3), [4, 1], (3, 1, 2), (slice(1, 4), 0), (Ellipsis, 5), np.arange(14) > 9):
        np.testing.assert_array_equal(opened.tokens[key], values[key])
    assert (opened.tokens.shape, opened.tokens.dtype) == (values.shape, values.dtype)
    assert opened.similarity(view=0, row=1, column=1)[1, 1] == pytest.approx(1, abs=1e-3)


def test_bytes_are_those_of_the_group(coded: Make):
    artifact = made(coded())
    group = Path(artifact.store.path_of(artifact.data("features.zarr")))
    assert artifact.manifest["bytes"] == sum(path.stat().st_size for path in group.rglob("*") if path.is_file())


def test_a_whole_run(coded: Make):
    result = run(coded())
    assert result.scores.linear_tokens.accuracy > 50


def test_an_undecodable_image_is_nan(coded: Make, corpus: Path, tmp_path: Path):
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    path = root / "images/train/02.png"
    path.write_bytes(path.read_bytes()[:200])
    artifact = made(coded(root=root, features={"max_failed_fraction": 0.3}))
    (marker,) = artifact.each_marker()
    assert (marker["missing"], artifact.manifest["failed_images"]) == ([2], 1)
    assert list(np.flatnonzero(np.isnan(read(artifact)).any(axis=(1, 2, 3)))) == [2]
    assert np.isnan(read(artifact)[2]).all()


def test_a_lost_or_damaged_shard_of_any_array_is_found(coded: Make, codec: str):
    """By `verify` and by whoever reads it, who names it."""
    artifact = made(coded())
    group = Path(artifact.store.path_of(artifact.data("features.zarr")))
    for name in arrays(codec):
        (shard,) = (path for path in (group / name / "c").rglob("*") if path.is_file())
        before = shard.read_bytes()
        for after in (None, before[:20] + bytes([before[20] ^ 1]) + before[21:]):
            if after is None:
                shard.unlink()
            else:
                shard.write_bytes(after)
            (problem,) = verify_artifact(artifact)
            assert artifact.store.path_of(problem.file) == str(shard)
            with pytest.raises(DamageError, match=name) as caught:
                read_everything(artifact)
            assert "stegoflow retract" in render(caught.value.next)
            shard.write_bytes(before)
    assert list(verify_artifact(artifact)) == []


def test_changed_metadata_are_found(coded: Make, codec: str):
    artifact = made(coded())
    for name in Tokens(artifact).rows:
        path = Path(artifact.store.path_of(artifact.data(f"features.zarr/{name}/zarr.json")))
        before = path.read_bytes()
        path.write_bytes(before.replace(b"token", b"tokem"))
        with pytest.raises(DamageError, match=f"{name}/zarr.json"):
            read(artifact)
        path.write_bytes(before)


def grown(corpus: Path, root: Path) -> Path:
    """The corpus with one more training image, sorted first."""
    shutil.copytree(corpus, root)
    with Image.open(root / "images/train/00.png") as image:
        image.rotate(180).save(root / "images/train/-0.png")
    return root


def test_a_grown_corpus_copies_rows_as_they_are_stored(
    coded: Make, codec: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Bit by bit, so that nothing is rounded twice however often a corpus grows."""
    first = made(coded())
    encode, encoded = features._encode, []
    monkeypatch.setattr(
        features,
        "_encode",
        lambda job, rows, out: encoded.extend(r["id"] for r in rows.values()) or encode(job, rows, out),
    )
    second = made(coded(root=grown(corpus, tmp_path / "grown")))
    assert encoded == ["-0.png"]
    assert second.manifest["copied"] == 14
    assert np.isfinite(read(second)).all()
    for name in arrays(codec):
        if name != "center":
            mine, theirs = (
                Rows(*pair).read(np.arange(14) + start) for start, pair in ((1, (second, name)), (0, (first, name)))
            )
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


def test_parts_without_a_marker_are_computed_again(coded: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.artifacts.features.MOST_VIEWS", 4)
    config = coded()
    artifact = made(config)
    before = read(artifact)
    folder = Path(artifact.store.path_of(artifact.root))
    (folder / "manifest.json").unlink()
    (folder / "parts/00000004-00000008.json").unlink()
    done: list[str] = []
    encode = features.encode_part
    monkeypatch.setattr(features, "encode_part", lambda job, part: done.append(part.name) or encode(job, part))
    np.testing.assert_array_equal(read(made(config)), before)
    assert done == ["00000004-00000008"]


def test_worker_processes_give_the_same_values(coded: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.artifacts.features.MOST_VIEWS", 4)
    alone = made(coded())
    other = made(coded(store=tmp_path / "other", execution={"executor": "processes", "workers": 2}))
    assert alone.fingerprint == other.fingerprint
    assert similar(read(alone), read(other), read_center(alone, "dataset")) > 0.9999
