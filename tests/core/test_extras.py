"""Optional packages: a run that asks for one that is not installed ends at once, with the extra that brings it."""

import importlib.metadata
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from image_files import size
from PIL import Image

from pipeline.api import run
from pipeline.cli.doctor import PURPOSES
from pipeline.core import extras
from pipeline.core.errors import ConfigError
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.core.store import Store
from pipeline.images.formats import decode
from pipeline.planning import plan

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def without(monkeypatch):
    """Make packages look as if they were not installed."""

    def hide(*names: str) -> None:
        found = extras.find_spec
        monkeypatch.setattr(extras, "find_spec", lambda name: None if name in names else found(name))

    return hide


def test_every_optional_package_is_in_the_extra_that_the_error_names():
    listed = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    brought_by = importlib.metadata.packages_distributions()
    for package, extra in extras.EXTRAS.items():
        names = {re.split(r"[\[<>=! ]", line)[0].lower() for line in listed[extra]}
        assert names & {name.lower() for name in brought_by[package]}, package


@pytest.mark.parametrize(
    ("package", "changes"),
    [("pydensecrf", {"masks": {"crf": True}}), ("faiss", {}), ("distributed", {"execution": {"executor": "dask"}})],
)
def test_a_missing_package_stops_a_run_before_its_first_stage(package, changes, without, make_config, tmp_path):
    without(package)
    with pytest.raises(ConfigError, match=package) as caught:
        run(make_config(store=tmp_path / "store", **changes))
    assert f"stegoflow[{extras.EXTRAS[package]}]" in str(caught.value)
    assert list(Store(tmp_path / "store").folders("artifacts")) == []


def test_without_the_package_of_the_report_there_is_none(without, make_config, tmp_path, caplog):
    config = make_config(store=tmp_path / "store")
    without("jinja2")
    assert "report" not in [row.stage for row in plan(config)]
    assert "stegoflow[report]" in caplog.text


def test_what_exists_needs_no_package(without, finished):
    without("faiss", "pydensecrf", "onnx", "skimage")
    assert {row.status for row in run(finished.config).stages} == {"reused"}


def test_dask_is_missed_when_the_executor_is_opened(without):
    without("distributed")
    with pytest.raises(ConfigError, match=re.escape("stegoflow[dask]")), open_executor(Execution(executor="dask")):
        pass


def encoded(kind: str) -> bytes:
    sink = io.BytesIO()
    if kind == "16-bit png":
        from imagecodecs import png_encode

        return bytes(png_encode(np.zeros((4, 4, 3), np.uint16)))
    if kind == "png":
        Image.new("RGB", (4, 4)).save(sink, "PNG")
    else:
        tifffile.imwrite(sink, np.zeros((4, 4, 3), np.uint8), compression=kind, photometric="rgb")
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["16-bit png", "lzw", "zstd"])
def test_a_file_that_needs_imagecodecs_says_so_when_it_is_listed(kind, without):
    data = encoded(kind)
    assert size(data, "a") == (4, 4)
    without("imagecodecs")
    for read in (size, decode):
        with pytest.raises(ConfigError, match=re.escape("stegoflow[tiff]")):
            read(data, "a")


@pytest.mark.parametrize("kind", ["png", "none", "zlib", "packbits"])
def test_others_do_not(kind, without):
    data = encoded(kind)
    without("imagecodecs")
    assert decode(data, "a").shape == (4, 4, 3)


def test_doctor_says_what_every_extra_is_for():
    assert set(PURPOSES) == set(extras.EXTRAS.values())
