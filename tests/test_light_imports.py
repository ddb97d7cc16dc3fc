"""Commands that compute nothing start fast: no heavy package is imported for them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from corpora import small

HEAVY = {
    "dask", "distributed", "faiss", "huggingface_hub", "imagecodecs", "jinja2", "loky", "matplotlib", "onnx", "prefect",
    "pydensecrf", "safetensors", "scipy", "skimage", "sklearn", "tifffile", "timm", "torch", "torchvision", "zarr",
}  # fmt: skip
LOOKING = """
import json, sys
import pipeline.cli.main, pipeline.cataloguing, pipeline.planning, pipeline.results
imported = list(sys.modules)
from pipeline.config import load
from pipeline.core.store import Store
rows = pipeline.planning.plan(load(sys.argv[1]))
found = pipeline.cataloguing.status(Store(sys.argv[2]))
print(json.dumps([imported, list(sys.modules), [row.action for row in rows], len(found["runs"])]))
"""


@pytest.fixture
def config(finished, corpus: Path, vit: Path, tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump(small(corpus, finished.config.store, vit)))
    return path


def run(code: str, *args: str) -> str:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_looking_at_a_finished_store_imports_nothing_heavy(config: Path, finished):
    imported, used, actions, runs = json.loads(run(LOOKING, str(config), finished.config.store))
    assert HEAVY & set(imported) == set(), "by importing alone"
    assert HEAVY & set(used) == set(), "by a plan or the status of a store"
    assert set(actions) == {"reuse"}
    assert runs >= 1, "other tests add runs"


def test_importing_needs_nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    used = json.loads(run("import json, sys, pipeline.planning; print(json.dumps(list(sys.modules)))"))
    assert HEAVY & set(used) == set()


def test_a_config_error_imports_nothing_heavy(config: Path):
    code = """
import json, sys
from pipeline.config import load
from pipeline.core.errors import ConfigError
try:
    load(sys.argv[1], ["head.steps=many"])
except ConfigError:
    print(json.dumps(list(sys.modules)))
"""
    assert HEAVY & set(json.loads(run(code, str(config)))) == set()
