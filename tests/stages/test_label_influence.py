"""No label reaches what is trained, clustered or drawn: only the probe, the scores and the report read them.

Which stages may read labels is listed in tests/core/test_fingerprint.py; here the bytes are compared.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.api import run
from pipeline.artifacts.head import open_head
from pipeline.artifacts.masks import read_masks
from pipeline.config import PipelineConfig
from pipeline.results import Run

Make = Callable[..., PipelineConfig]
MEASURING = {"labels", "probe", "scores", "report"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, so that two trainings of the same head agree in every bit."""
    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(threads[0])
    faiss.omp_set_num_threads(threads[1])


def names(done: Run) -> dict[str, str]:
    return {row.stage: row.fingerprint for row in done.stages}


def output(done: Run) -> dict[str, Any]:
    """Neighbours, weights, prototypes and masks, byte for byte."""
    tensors = {
        f"{stage} {name}": value.tobytes()
        for stage, file in (("head", "head"), ("clusters", "clusters"), ("baseline", "clusters"))
        for name, value in done.artifact(stage).read_tensors(f"{file}.safetensors").items()
    }
    near = done.artifact("neighbours").read_table("neighbours.parquet").to_pydict()
    return {**tensors, "neighbours": near, "masks": list(read_masks(done.artifact("masks")))}


def files(config: PipelineConfig) -> dict[str, str]:
    """Digest of every file of the artifacts that must not depend on labels."""
    paths = [path for path in Path(config.store, "artifacts").rglob("*") if path.is_file()]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if not MEASURING & set(path.parts)
    }


def test_labels_change_no_byte_of_the_output(make_config: Make, corpus: Path, tmp_path: Path):
    """A folder without labels, the same with them, and with every label wrong, each run from nothing."""
    bare, wrong = tmp_path / "bare", tmp_path / "wrong"
    shutil.copytree(corpus / "images", bare / "images")
    shutil.copytree(corpus, wrong)
    for path in (wrong / "labels").rglob("*.png"):
        with Image.open(path) as image:
            label = np.asarray(image)
        Image.fromarray(((label[::-1] + 1) % 3).astype(np.uint8)).save(path)
    configs = [make_config(root=root, store=tmp_path / f"{root.name} store") for root in (corpus, wrong, bare)]
    results = [run(config) for config in configs]
    for name in set(names(results[2])) - MEASURING:
        assert len({names(result)[name] for result in results}) == 1, name
    right, *others = map(output, results)
    for other in others:
        assert set(right) == set(other)
        for what, value in right.items():
            assert value == other[what], what
    one, other = (done.artifact("probe").read_tensors("probe.safetensors") for done in results[:2])
    assert np.abs(one["codes.weight"] - other["codes.weight"]).max() > 0.01, "the probe must have seen other labels"
    assert results[0].scores != results[1].scores


def test_the_probe_leaves_the_head_as_it_was(make_config: Make, corpus: Path, tmp_path: Path):
    """Labels added to a finished run: the probe is trained, and no file of head, clusters or masks changes."""
    root = tmp_path / "corpus"
    shutil.copytree(corpus / "images", root / "images")
    config = make_config(root=root)
    artifact = run(config).artifact("head")
    in_memory, before = open_head(artifact, "cpu"), files(config)
    weights = {name: value.numpy().tobytes() for name, value in in_memory.method.state_dict().items()}
    assert any(Path(artifact.root).name in name for name in before)

    shutil.copytree(corpus / "labels", root / "labels")
    result = run(config)
    assert {row.stage for row in result.stages if row.status == "ran"} == MEASURING
    assert files(config) == before
    assert result.artifact("probe").manifest["items"] > 0
    assert open_head(artifact, "cpu") is in_memory, "the probe's codes are this very head's"
    assert {name: value.numpy().tobytes() for name, value in in_memory.method.state_dict().items()} == weights
