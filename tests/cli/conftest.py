"""Fixtures of the command line's tests."""

import pytest
import yaml
from corpora import small


@pytest.fixture
def store(finished) -> str:
    return finished.config.store


@pytest.fixture
def config(finished, corpus, vit, tmp_path) -> str:
    """The YAML file of the finished run."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(small(corpus, finished.config.store, vit)))
    return str(path)
