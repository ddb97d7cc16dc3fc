"""The memory benchmark: what it measures, without waiting for it."""

import json
import sys
from pathlib import Path

import pytest

from pipeline.config import validate
from pipeline.core.store import Store
from pipeline.planning import nodes

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import memory


def test_every_stage_is_measured_above_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "child", lambda config, stage: 700.0 if stage == "model" else 700.0 + len(stage))
    found = memory.measure(5, tmp_path)
    config = validate(json.loads((tmp_path / "config.json").read_text()))
    stages = [node.stage.name for node in nodes(config, Store(tmp_path / "store"))]
    assert found == {name: len(name) for name in [*stages, "large masks"]}
    assert len(list((tmp_path / "data/images").rglob("*.jpg"))) == 5


def test_a_child_gives_its_own_peak(tmp_path: Path, capsys):
    memory.write_images(tmp_path / "data", 2)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(memory.settings(tmp_path)))
    memory.only("dataset", config)
    assert 50 < float(capsys.readouterr().out.split()[-1]) < 4000, "MiB of this process"
    assert list((tmp_path / "store/artifacts/dataset").glob("*/manifest.json"))


@pytest.mark.parametrize(("most", "status"), [(100.0, 0), (memory.LIMIT + 1.0, 1)])
def test_more_than_the_limit_is_a_failure(most: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(memory, "measure", lambda images, folder: {"dataset": 1.0, "features": most})
    monkeypatch.setattr(sys, "argv", ["memory.py", "--images", "5", "--json"])
    with pytest.raises(SystemExit) as stop:
        memory.main()
    assert stop.value.code == status
    assert json.loads(capsys.readouterr().out)["above_model"] == {"dataset": 1.0, "features": most}
