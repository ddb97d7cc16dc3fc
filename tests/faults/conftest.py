"""The places and the tally of the fault suite. `make faults` runs all of it, `make test` a fast part."""

import json
import os
import platform
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import STEGO, small
from fault_harness import Zygote
from fault_places import SEED, Place, Reference, Tally
from PIL import Image
from s3_server import S3Server

from pipeline.config import validate
from pipeline.core.store import Store


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    counted = Tally()
    yield counted
    path = request.config.getoption("--faults")
    if path:
        facts = {
            **counted.counts,
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
            "seed": SEED,
            "seconds": round(time.monotonic() - counted.started),
            "table": counted.rows,
        }
        Path(path).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


@pytest.fixture(scope="session")
def everything(request: pytest.FixtureRequest) -> bool:
    """Whether the whole suite is asked for, not its fast part."""
    return bool(request.config.getoption("--faults"))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(SEED)


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    started = Zygote(tmp_path_factory.mktemp("children"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training and 20 validation images of 48 × 64 px with labels: three parts of features and of masks, two of
    scores."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(5)
    for number in range(60):
        split = "train" if number < 40 else "val"
        label = np.zeros((48, 64), np.uint8)
        top, left = rng.integers(0, 24, 2)
        label[top : top + 24, left : left + 32] = 1 + number % 2
        colour = rng.integers(0, 255, (3, 3))
        pixels = (colour[label] + rng.normal(0, 10, (48, 64, 3))).clip(0, 255).astype(np.uint8)
        for kind, values in (("images", pixels), ("labels", label)):
            path = root / kind / split / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    (root / "dataset.yaml").write_text("classes: [ground, one, two]\n")
    return root


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, images: Path, vit: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    def make(store: str, **sections: dict[str, Any]) -> dict[str, Any]:
        base = {
            "features": {"views": {"size": [32, 48]}},
            "head": {"method": "stego", **STEGO, "steps": 30, "batch": 8},
            "masks": {"crf_params": {"iterations": 1}},
            "scores": {"sample": 200, "stability_tokens": 2000},
        }
        data = small(images, store, vit)
        for extra in (base, sections):
            for section, content in extra.items():
                data[section] = {**data.get(section, {}), **content}
        validate(data)
        return data

    if request.param == "local":
        return Place("local", str(tmp_path), {}, make)
    server: S3Server = request.getfixturevalue("s3")
    for key, value in server.env.items():
        monkeypatch.setenv(key, value)
    bucket = f"bucket-{time.monotonic_ns()}"
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/{bucket}", method="PUT"))
    return Place("s3", f"s3://{bucket}", server.env, make)


@pytest.fixture(scope="session")
def references() -> dict[str, Reference]:
    """The undisturbed runs of this session, one for each kind of place."""
    return {}


@pytest.fixture
def alone(place: Place, zygote: Zygote, references: dict[str, Reference], tmp_path_factory) -> Reference:
    if place.kind not in references:
        base = str(tmp_path_factory.mktemp("alone")) if place.kind == "local" else place.base
        config = place.make(f"{base}/alone")
        start = time.monotonic()
        result = zygote.start("run", config=config, env=place.env).finish()
        assert "error" not in result, result
        seconds = time.monotonic() - start
        references[place.kind] = Reference(Store(config["store"]), result["run"], result, seconds)
    return references[place.kind]
