"""One case per field: changing it renames the artifacts that it decides and no other, and `plan` says so."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import safetensors.torch
from benchmark_trees import write_benchmark

from pipeline.config import PipelineConfig
from pipeline.core.engine import Stage
from pipeline.core.execution import Execution
from pipeline.core.params import Params, borrowed_from, members, nested, role, settable, settings
from pipeline.core.store import Store
from pipeline.heads.settings import MethodParams, StegoParams
from pipeline.planning import STAGES, nodes, plan

CHANGED: dict[str, Any] = {
    "dataset.layout": "potsdam3",
    "features.backbone": "test_vit2",
    "features.block": 3,
    "features.facet": "key",
    "features.norm": "never",
    "features.views.kind": "crops",
    "features.views.size": [64, 80],
    "features.views.overlap": 0.5,
    "features.mirror": "all",
    "features.codec": "int8",
    "neighbours.k": 3,
    "neighbours.exact_below": 5,
    "head.method": "pca",
    "head.center": "none",
    "head.memory_gib": 1.0,
    "head.seed": 1,
    "head.steps": 21,
    "head.batch": 3,
    "head.code": 9,
    "head.samples": 2,
    "head.negatives": 1,
    "head.learning_rate": 1e-3,
    "head.schedule": "constant",
    "head.dropout": 0.2,
    "head.weight_self": 1.0,
    "head.weight_neighbours": 1.0,
    "head.weight_random": 1.0,
    "head.shift_self": 0.0,
    "head.shift_neighbours": 0.0,
    "head.shift_random": 0.0,
    "head.zero_clamp": False,
    "clusters.k": 3,
    "clusters.method": "kmeans",
    "clusters.prototypes": 64,
    "clusters.restarts": 1,
    "clusters.iterations": 9,
    "clusters.tokens": 1000,
    "clusters.seed": 1,
    "probe.tokens": 1000,
    "probe.epochs": 1,
    "probe.batch": 100,
    "probe.learning_rate": 1e-2,
    "probe.seed": 1,
    "masks.splits": ["train", "val"],
    "masks.upsampling": "bilinear",
    "masks.crf": False,
    "masks.crf_params.iterations": 1,
    "masks.crf_params.gaussian_sxy": 2.0,
    "masks.crf_params.gaussian_compat": 2.0,
    "masks.crf_params.bilateral_sxy": 60.0,
    "masks.crf_params.bilateral_srgb": 4.0,
    "masks.crf_params.bilateral_compat": 5.0,
    "masks.sharpness": 3.0,
    "scores.protocol": "stego",
    "scores.sample": 100,
    "scores.stability_tokens": 1000,
    "scores.seed": 1,
    "report.images": 3,
    "report.patches": 3,
    "report.gallery_images": 3,
}
"""Another value for every plain field."""
SUGGESTION: dict[str, Any] = {
    "suggestion.views": 9,
    "suggestion.highest": 9,
    "suggestion.draws": 1,
    "suggestion.seed": 1,
}
"""… and for those of the stage that runs only where K is not given."""
ANNOTATION = {"classes.unnamed"}
"""… and of the one that runs only where there is an annotation: tests/stages/test_classes.py."""


def another(model: type[Params], name: str) -> Any:
    """Another value for a field that holds a number, yes or no, or one of a few words."""
    value = model.model_fields[name].default
    if isinstance(value, str):
        return next(word for word in get_args(model.model_fields[name].annotation) if word != value)
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value / 2 or 0.5


OTHER_METHODS = {
    method: {name: another(model, name) for name in settable(model) if name not in MethodParams.model_fields}
    for method, model in members(PipelineConfig, "head").items()
    if model is not StegoParams
}
"""… and for those of methods that the configs here do not choose, but what all methods have."""
SCALE = {"features.views.mpp", "features.views.gsd"}
"""… and what gives sliding views a scale: tests/datasets/test_scale.py."""
DERIVED = {"features.weights_sha256"}
PLACES = {"dataset.root", "features.weights"}
ROOTS = {"classes.annotation"}
"""What names a root: tests/stages/test_classes.py."""
READ: dict[str, Any] = {"dataset.channels": ["B", "G", "R"], "dataset.values": "percentiles"}
"""Fields that decide nothing where they are written, and are hashed where they are borrowed."""
LIMITS: dict[str, Any] = {"dataset.pixel_size": {"x": 1, "y": 1, "unit": "m"}, "features.max_failed_fraction": 0.9}
EXECUTION: dict[str, Any] = {
    "device": "meta",
    "precision": "bf16",
    "batch_size": 3,
    "executor": "processes",
    "workers": 3,
    "wait_for_workers": 7,
    "dask_address": "tcp://nowhere:8786",
    "dask_cluster": "dask_jobqueue.SLURMCluster",
    "dask_options": {"cores": 4},
    "retries": 7,
}
BY_NAME = {stage.name: stage for stage in STAGES if stage.name not in ("reading", "suggestion", "classes")}
"""The stages of the configs here, which give K, choose the head `stego` and have no annotation."""


def fields(kind: str, section: str, model: type[Params]) -> Iterator[str]:
    """The fields of one role, those of a section within a section too."""
    for name in model.model_fields:
        inner = nested(model, name)
        if inner is not None:
            yield from fields(kind, f"{section}.{name}", inner)
        elif role(model, name) == kind:
            yield f"{section}.{name}"


def model_of(stage: Stage) -> type[Params]:
    """What the params of a stage are in the configs here."""
    return StegoParams if stage.name == "head" else stage.params


def borrowers(field: str) -> set[str]:
    """Stages whose params take this field over."""

    def borrows(model: type[Params]) -> bool:
        sections = (nested(model, name) for name in model.model_fields)
        return bool(borrowed_from(model, field)) or any(borrows(section) for section in sections if section is not None)

    return {stage.name for stage in BY_NAME.values() if borrows(model_of(stage))}


def downstream(changed: set[str]) -> set[str]:
    """The stages named and all that read them, by the declared inputs."""
    found = set(changed)
    for stage in BY_NAME.values():  # in an order that runs inputs first
        if found & {written.rstrip("?") for written in stage.inputs}:
            found.add(stage.name)
    return found


def fingerprints(config: PipelineConfig) -> dict[str, str]:
    return {node.stage.name: node.fingerprint for node in nodes(config, Store(config.store))}


def changed_config(
    field: str, value: Any, finished, make_config: Callable[..., PipelineConfig], folder: Path
) -> PipelineConfig:
    section, *inner = field.split(".")
    content = {inner[-1]: value}
    if field == "dataset.layout":
        return make_config(root=write_benchmark(folder, value), store=finished.config.store, dataset=content)
    if len(inner) == 2:
        before = settings(getattr(getattr(finished.config, section), inner[0]))
        content = {inner[0]: {**before, **content}}
    return make_config(store=finished.config.store, **{section: content})


def test_every_field_has_a_case():
    """A new field: add it to CHANGED (or to EXECUTION, if it changes no value)."""
    cases_of = {
        "plain": {*CHANGED, *SUGGESTION, *ANNOTATION, *SCALE},
        "derived": DERIVED,
        "unhashed": {*PLACES, *READ, *LIMITS, *ROOTS},
    }
    for kind, cases in cases_of.items():
        assert {field for stage in STAGES for field in fields(kind, stage.name, model_of(stage))} == cases
    assert set(Execution.model_fields) == set(EXECUTION)


@pytest.mark.parametrize("field", {**CHANGED, **READ})
def test_a_field_renames_what_it_decides(field: str, finished, make_config, tmp_path: Path):
    section = field.split(".")[0]
    owners = borrowers(field) | ({section} if field in CHANGED else set())
    wanted = downstream(owners)
    config = changed_config(field, {**CHANGED, **READ}[field], finished, make_config, tmp_path)
    weights_differ = field == "features.backbone"
    if weights_differ:  # a model of another shape: the tiny weights do not fit, which planning does not look at
        assert config.features.weights == finished.config.features.weights
    before, after = fingerprints(finished.config), fingerprints(config)
    assert {name for name in before if before[name] != after[name]} == wanted

    rows = {row.stage: row for row in plan(config)}
    assert {name for name, row in rows.items() if row.action == "run"} == wanted
    for owner in owners:  # a borrowed field is named where the config sets it
        assert rows[owner].why.startswith(f"{field} ") or rows[owner].why.endswith(" runs"), rows[owner].why
    first = min(wanted, key=list(rows).index)
    assert not rows[first].why.endswith(" runs"), "the first stage to run has a reason of its own"
    for name in wanted - owners:
        assert rows[name].why.endswith(" runs"), rows[name].why
        assert rows[name].items is not None, f"{name} lacks a row in forecast.ITEMS"


@pytest.mark.parametrize(
    ("method", "field"), [(method, field) for method, values in OTHER_METHODS.items() for field in values]
)
def test_a_field_of_another_method_counts(method: str, field: str, finished, make_config):
    chosen = make_config(store=finished.config.store, head={"method": method})
    content = {"method": method, field: OTHER_METHODS[method][field]}
    changed = make_config(store=finished.config.store, head=content)
    before, after = fingerprints(chosen), fingerprints(changed)
    assert {name for name in before if before[name] != after[name]} == downstream({"head"})


@pytest.mark.parametrize("field", SUGGESTION)
def test_a_field_of_the_suggestion_counts_where_k_is_not_given(field: str, finished, make_config):
    name, content = field.split(".")[1], SUGGESTION[field]
    given = make_config(store=finished.config.store, suggestion={name: content})
    assert fingerprints(given) == fingerprints(finished.config)
    before, after = (
        fingerprints(make_config(store=finished.config.store, clusters={"k": None}, suggestion=section))
        for section in ({}, {name: content})
    )
    renamed = {name for name in before if before[name] != after[name]}
    assert renamed == {"suggestion"} | downstream({"clusters", "baseline"})


def test_another_method_is_one_change(finished, make_config):
    """… and not one for every field that only one of the two has."""
    (row,) = (
        row for row in plan(make_config(store=finished.config.store, head={"method": "none"})) if row.stage == "head"
    )
    assert row.changes == ["head.method stego → none"]


@pytest.mark.parametrize("field", EXECUTION)
def test_execution_renames_nothing(field: str, finished, make_config):
    value = EXECUTION[field]
    assert getattr(finished.config.execution, field) != value
    config = make_config(store=finished.config.store, execution={field: value})
    assert getattr(config.execution, field) == value
    assert fingerprints(config) == fingerprints(finished.config)


@pytest.mark.parametrize("field", LIMITS)
def test_a_limit_renames_nothing(field: str, finished, make_config):
    section, name = field.split(".")
    config = make_config(store=finished.config.store, **{section: {name: LIMITS[field]}})
    assert getattr(config, section) != getattr(finished.config, section)
    assert fingerprints(config) == fingerprints(finished.config)


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_place_renames_nothing(place: str, finished, make_config, corpus: Path, vit: Path, tmp_path: Path):
    if place == "dataset.root":
        config = make_config(root=shutil.copytree(corpus, tmp_path / "corpus"), store=finished.config.store)
    else:
        copy = shutil.copy(vit, tmp_path / "copy.safetensors")
        config = make_config(store=finished.config.store, features={"weights": str(copy)})
    section, field = place.split(".")
    assert getattr(getattr(config, section), field) != getattr(getattr(finished.config, section), field)
    assert fingerprints(config) == fingerprints(finished.config)
    assert {row.action for row in plan(config)} == {"reuse"}


def test_the_store_renames_nothing(finished, make_config):
    config = make_config()
    assert config.store != finished.config.store
    assert fingerprints(config) == fingerprints(finished.config)


def test_weights_count_by_content(finished, make_config, vit: Path, tmp_path: Path):
    """`features.weights_sha256`, the one derived field."""
    other = tmp_path / "other.safetensors"
    tensors = safetensors.torch.load_file(vit)
    tensors["norm.bias"] += 1
    safetensors.torch.save_file(tensors, other)
    config = make_config(store=finished.config.store, features={"weights": str(other)})
    before, after = fingerprints(finished.config), fingerprints(config)
    wanted = downstream({"features"})
    assert {name for name in before if before[name] != after[name]} == wanted
    rows = {row.stage: row for row in plan(config)}
    assert {name for name, row in rows.items() if row.action == "run"} == wanted
    assert rows["features"].why.startswith("features.weights_sha256 ")


def test_an_image_renames_the_dataset_and_what_follows(finished, make_config, corpus: Path, tmp_path: Path):
    shutil.copytree(corpus, tmp_path / "corpus")
    (tmp_path / "corpus/images/val/00.png").unlink()
    config = make_config(root=tmp_path / "corpus", store=finished.config.store)
    before, after = fingerprints(finished.config), fingerprints(config)
    assert {name for name in before if before[name] != after[name]} == downstream({"dataset"})
    rows = {row.stage: row for row in plan(config)}
    assert rows["dataset"].why.startswith("root images ")
    assert rows["features"].why == "dataset runs"
    assert rows["labels"].action == "reuse"


def test_an_empty_store_says_so(make_config):
    rows = plan(make_config())
    assert [row.stage for row in rows] == list(BY_NAME)
    assert {row.action for row in rows} == {"run"}
    assert rows[0].why == "no dataset artifact in this store yet"


def test_a_plan_writes_nothing_but_the_scan_cache(make_config, tmp_path: Path):
    plan(make_config())
    written = {
        path.relative_to(tmp_path / "store").parts[0] for path in (tmp_path / "store").rglob("*") if path.is_file()
    }
    assert written <= {"stegoflow.json", "cache"}


@pytest.mark.parametrize("stage", BY_NAME.values(), ids=lambda stage: stage.name)
def test_a_new_version_renames_a_stage_and_what_follows(stage, finished, monkeypatch: pytest.MonkeyPatch):
    from dataclasses import replace

    from pipeline import planning

    before = fingerprints(finished.config)
    monkeypatch.setattr(planning, "STAGES", tuple(replace(s, version=99) if s is stage else s for s in STAGES))
    after = fingerprints(finished.config)
    assert {name for name in before if before[name] != after[name]} == downstream({stage.name})


@pytest.mark.parametrize(("method", "again"), [("stego", False), ("stegoflow", False), ("smooseg", True)])
def test_k_renames_the_heads_that_read_it(method: str, again: bool, make_config):
    few, many = (fingerprints(make_config(head={"method": method}, clusters={"k": k})) for k in (3, 5))
    assert (few["head"] != many["head"]) == again
    assert few["neighbours"] == many["neighbours"]
