"""Stores that earlier versions wrote are read: or refused with a sentence, where their layout is another."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import cataloguing, exporting, open_features
from pipeline.artifacts.head import TrainedHead
from pipeline.artifacts.labels import LabelMaps
from pipeline.artifacts.masks import decode_png, read_masks
from pipeline.core.catalog import every_artifact
from pipeline.core.runs import find_run
from pipeline.core.store import Store
from pipeline.core.verify import verify
from pipeline.planning import STAGES

ARCHIVES = sorted(Path(__file__).parent.glob("*.tar.gz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(request.param) as opened:
        for member in opened:  # files alone, see make.py; extractall's `filter` is not in every Python 3.11
            path = tmp_path / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(opened.extractfile(member).read())  # type: ignore[union-attr]
    return tmp_path


def test_there_is_one_for_the_layout_of_today():
    from pipeline.core.store import ENCODING_VERSION

    assert f"layout-{ENCODING_VERSION}.tar.gz" in [path.name for path in ARCHIVES], (
        "a new layout: python tests/archives/make.py layout-N, and decide what becomes of the old one"
    )


def test_an_archive_is_read(archive: Path):
    """Every record, every data file, and what users do with a store: inspect, look at features, export."""
    store = Store(archive / "store")
    store.check_layout()
    artifacts = {artifact.stage: artifact for artifact in every_artifact(store)}
    assert set(artifacts) == {stage.name for stage in STAGES} - {"suggestion"}  # its K was given
    assert verify(store, list(artifacts.values())) == []
    facts = cataloguing.status(store)
    assert {row["state"] for row in facts["artifacts"]} == {"finished"}
    assert [row["names"] for row in facts["runs"]] == [["kept"]]
    assert find_run(store, "kept")["run"] == find_run(store, "latest")["run"]
    for artifact in artifacts.values():
        assert cataloguing.show(store, artifact.fingerprint)["stage"] == artifact.stage

    features = open_features(store.url)
    assert features.tokens.shape == (7, 2, 2, 64)  # 3 + 2 views, 2 mirrored ones
    assert features.similarity(view=0, row=0, column=0)[0, 0] == pytest.approx(1, abs=1e-3)
    assert np.isnan(features.pooled).any(axis=1).sum() == 2, "the image that could not be decoded"

    near = artifacts["neighbours"].read_table("neighbours.parquet").to_pylist()
    assert len(near) == 3
    codes = TrainedHead(artifacts["head"])(np.zeros((1, 2, 2, 64), np.float16))
    assert codes.compared.shape == (1, 2, 2, 8)
    assert artifacts["head"].read_table("losses.parquet").num_rows > 0
    assert artifacts["clusters"].read_tensors("clusters.safetensors")["centroids"].shape == (3, 8)
    assert artifacts["baseline"].read_tensors("baseline.safetensors")["centroids"].shape == (3, 64)
    assert set(artifacts["probe"].read_tensors("probe.safetensors")) >= {"codes.weight", "tokens.weight", "center"}
    maps = LabelMaps(artifacts["labels"], str(archive / "corpus"))
    assert maps.read("val", "00.png") is not None
    masks = {row["id"]: row for row in read_masks(artifacts["masks"])}
    assert decode_png(masks["00.png"]["mask_crf"]).shape == maps.read("val", "00.png").shape  # type: ignore[union-attr]
    assert artifacts["scores"].read_json("scores.json")["protocol"] == "full"
    assert b"</html>" in artifacts["report"].read("report.html")
    assert exporting.export(store, "kept", archive / "out")["written"] == 1
