"""Stores of each released layout, as archives: this version reads them, and makes nothing of them again."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import PipelineConfig, open_features, open_run, plan
from pipeline.cli.main import app
from pipeline.core.catalog import every_artifact
from pipeline.core.params import hashed
from pipeline.core.store import ENCODING_VERSION, Store
from pipeline.core.verify import verify
from pipeline.planning import nodes

ARCHIVES = sorted((Path(__file__).parent / "archive").glob("layout-*.tar.gz"))
LABELS = {"red", "green", "blue"}


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(request.param) as packed:
        packed.extractall(folder, filter="data")
    return folder


def test_there_is_one_of_this_layout():
    assert f"layout-{ENCODING_VERSION}.tar.gz" in {path.name for path in ARCHIVES}


def test_its_results_are_read(archive: Path):
    found = open_run(archive / "store")
    features = open_features(archive / "store")
    tokens = features.tokens[:]
    assert tokens.shape == (16, 2, 2, 384)  # twelve images, four of them mirrored too
    assert np.isfinite(tokens).all()
    np.testing.assert_allclose(tokens.astype(np.float32).mean((1, 2)), features.mean, atol=0.01)
    assert sorted(set(features.views["id"].to_pylist())) == [f"{number:02d}.png" for number in range(12)]
    assert sorted(found.masks) == ["00.png", "01.png", "02.png", "03.png"]
    assert {found.masks[name].shape for name in found.masks} == {(32, 48)}
    assert {value for name in found.masks for value in np.unique(found.masks[name]).tolist()} == {0, 1, 2}
    assert found.clusters.k == 3
    assert found.scores is not None
    assert set(found.scores.classes) == LABELS
    assert found.scores.result is not None
    assert found.scores.result.confusion.sum() == 4 * 32 * 48
    assert "<html" in Path(found.report).read_text()


def test_every_byte_of_it_is_what_was_written(archive: Path):
    store = Store(archive / "store", create=False)
    artifacts = list(every_artifact(store))
    assert len(artifacts) == 11
    assert verify(store, artifacts) == []


def test_a_plan_reuses_what_is_computed_as_it_was(archive: Path):
    """... its version, its settings and its inputs: names are still made in the same way, and images listed so."""
    settings = json.loads((archive / "settings.json").read_text())
    where = {"store": str(archive / "store"), "dataset": {"root": str(archive / "data")}}
    config = PipelineConfig.model_validate({**where, **settings})
    store = Store(archive / "store", create=False)
    made = {artifact.stage: artifact.manifest for artifact in every_artifact(store)}
    other = set[str]()
    for node in nodes(config, store):
        facts = made[node.stage.name]
        same = (facts["version"], facts["encoding"], facts["params"]) == (
            node.stage.version,
            node.stage.encoding,
            hashed(node.params),
        )
        other |= set() if same and not set(node.inputs) & other else {node.stage.name}
    assert {row.stage for row in plan(config) if row.action == "run"} == other
    assert not other & {"dataset", "labels"}


def test_there_is_nothing_to_migrate(archive: Path, capsys: pytest.CaptureFixture[str]):
    assert app(["migrate", "--store", str(archive / "store")], result_action="return_value") == 0
    assert "has layout 4, this program's: nothing to migrate" in capsys.readouterr().out


def test_a_newer_layout_is_refused(tmp_path: Path):
    (tmp_path / "stegoflow.json").write_text('{"encoding-type": "stegoflow-store", "encoding-version": 99}')
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "migrate", "--store", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "has layout 99; this program reads layout 4" in done.stderr
    assert "the program's version that wrote it" in done.stderr
