"""Fixtures shared by the tests: a tiny ViT, a tiny labelled corpus, configs for them, and one finished run."""

import faulthandler
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from corpora import BACKBONE, small, write_corpus
from hypothesis import settings

from pipeline.api import run
from pipeline.backbones import vit as backbones
from pipeline.cli.main import main
from pipeline.config import PipelineConfig, validate
from pipeline.results import Run

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", metavar="FILE", help="run all of the fault suite, write what was counted to FILE")


@pytest.fixture(scope="session", autouse=True)
def users_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what is remembered per user, so that no test reads or changes what this user has."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a random ViT that takes milliseconds per image."""
    torch.manual_seed(0)
    model = backbones._make(BACKBONE)
    path = tmp_path_factory.mktemp("vit") / "tiny.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 training and 4 validation images with labels. Shared: a test that changes files makes its own."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def make_config(tmp_path: Path, corpus: Path, vit: Path) -> Callable[..., PipelineConfig]:
    """make_config(root=…, store=…, head={…}, …): a config, by default of the shared corpus in a new store."""

    def make(root: Path = corpus, store: Path | str = tmp_path / "store", **sections: dict[str, Any]) -> PipelineConfig:
        return validate(small(root, store, vit, **sections))

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path, vit: Path) -> Run:
    """A run of every stage on the shared corpus. Read only."""
    return run(validate(small(corpus, tmp_path_factory.mktemp("finished") / "store", vit)))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits as long as a run does for a store that is away."""
    monkeypatch.setattr("pipeline.core.retries.PAUSES", (0.05,))


@pytest.fixture(autouse=True)
def workers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of worker processes are about small items, which would be done in this process."""
    monkeypatch.setattr("pipeline.core.executors.START_SECONDS", 0.0)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run `stegoflow ARGS` in this process: (exit status, stdout, stderr)."""

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stegoflow", *args])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def pytest_unconfigure() -> None:
    """A thread or a child that keeps a finished session from ending is shown and ended: one run waited for an hour."""
    faulthandler.dump_traceback_later(120, exit=True)
