"""classes: what a run with an annotation makes, and of what."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from corpora import CLASSES

from pipeline.annotations import save
from pipeline.api import run
from pipeline.artifacts.annotation import Annotation, dump
from pipeline.artifacts.descriptors import Descriptors
from pipeline.artifacts.images import Images
from pipeline.config import PipelineConfig, apply, validate
from pipeline.core.errors import ConfigError, StageError
from pipeline.core.store import Store
from pipeline.cuts import cut_maps
from pipeline.planning import plan
from pipeline.results import Run
from pipeline.score_maps import score_maps


@pytest.fixture
def kept(finished: Run, tmp_path: Path) -> Run:
    """The finished run in a store of its own."""
    shutil.copytree(str(finished.store.folder), tmp_path / "store")
    return Run(Store(tmp_path / "store"), finished.record)


def with_annotation(kept: Run, annotation: str, **sections) -> PipelineConfig:
    data = {**kept.config.model_dump(mode="json", exclude_unset=True), "store": kept.store.url}
    apply(data, f"classes.annotation={annotation}")
    for name, fields in sections.items():
        data[name] = {**data.get(name, {}), **fields}
    return validate(data)


def everything_named(kept: Run) -> Annotation:
    """The groups of the run's own cut, named in turn."""
    made = Annotation()
    for number, node in enumerate(kept.clusters.cut().nodes.tolist()):
        made = made.with_group(node, f"class {number}")
    return made


def test_without_an_annotation_there_is_no_such_stage(kept: Run):
    assert "classes" not in kept.record["stages"]
    again = plan(with_annotation(kept, "none"))
    assert {row.action for row in again} == {"reuse"}
    assert "classes" not in {row.stage for row in again}


def test_nothing_before_it_runs(kept: Run):
    save(kept.store, kept.record, everything_named(kept))
    rows = {row.stage: row.action for row in plan(with_annotation(kept, "newest"))}
    running = [stage for stage, action in rows.items() if action == "run"]
    assert running == [stage for stage in ("classes", "masks", "scores", "report") if stage in rows]
    made = run(with_annotation(kept, "newest"))
    assert {row.stage: row.status for row in made.stages if row.status == "ran"} == dict.fromkeys(running, "ran")


def test_the_content_of_an_annotation_counts_and_not_where_it_lies(kept: Run, tmp_path: Path):
    annotation = everything_named(kept)
    number = save(kept.store, kept.record, annotation)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(dump(annotation))
    (tmp_path / "c.yaml").write_text(dump(annotation.with_class("class 0", "#123456")))
    found = [
        next(row.fingerprint for row in plan(with_annotation(kept, str(ref))) if row.stage == "classes")
        for ref in ("newest", number, tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml")
    ]
    assert len(set(found[:4])) == 1
    assert found[4] != found[0]


def test_a_cut_of_a_run_with_classes_is_of_groups(kept: Run):
    """Its label maps, and how sure they are, know nothing of the classes."""
    save(kept.store, kept.record, Annotation().with_group(int(kept.clusters.cut().nodes[0]), "one"))
    made = run(with_annotation(kept, "newest"))
    for key in list(kept.masks)[:2]:
        row = kept.masks.row(key)
        sure = np.stack(list(score_maps(made.store, made.record, 4)(row)))
        assert len(sure) == 4
        found = cut_maps(made.store, made.record, 4).read(row)
        best = np.take_along_axis(sure, found[None].astype(np.int64), 0)[0]
        assert (best == sure.max(0)).mean() > 0.99, "the map is where the surest group is"


def test_names_alone_are_the_named_cut(kept: Run):
    save(kept.store, kept.record, everything_named(kept))
    made = run(with_annotation(kept, "newest"))
    assert set(made.masks) == set(kept.masks)
    for name, mask in kept.masks.items():
        assert np.array_equal(made.masks[name], mask)


def test_what_has_no_name_has_no_class(kept: Run):
    groups, masks = kept.clusters.cut().nodes.tolist(), {"crf": False, "upsampling": "bilinear"}
    save(kept.store, kept.record, Annotation().with_class("idle").with_group(groups[1], "one"))
    made = run(with_annotation(kept, "newest", masks=masks))
    for name, mask in run(with_annotation(kept, "none", masks=masks)).masks.items():
        assert np.array_equal(made.masks[name], np.where(mask == 1, 1, 255))
    rows = made.artifact("classes").manifest["classes"]
    assert [(row["name"], row["evidence"]) for row in rows] == [("idle", False), ("one", True)]


def test_what_has_no_name_may_be_of_the_nearest_class(kept: Run):
    groups = kept.clusters.cut().nodes.tolist()
    save(kept.store, kept.record, Annotation().with_group(groups[1], "one").with_group(groups[2], "two"))
    made = run(with_annotation(kept, "newest", classes={"annotation": "newest", "unnamed": "nearest"}))
    assert {int(value) for mask in made.masks.values() for value in np.unique(mask)} == {0, 1}
    other = next(row for row in plan(with_annotation(kept, "newest")) if row.stage == "classes")
    assert (other.action, other.changes) == ("run", ["classes.unnamed nearest → nothing"])


def test_points_alone_decide_everywhere(kept: Run):
    label, image = kept.labels, Annotation()
    for name in list(label)[:2]:
        for number in range(3):
            places = np.argwhere(label[name] == number)
            for y, x in places[:: max(1, len(places) // 8)].tolist():
                image = image.with_point("val", name, y, x, CLASSES[number].upper())
    save(kept.store, kept.record, image)
    made = run(with_annotation(kept, "newest"))
    for mask in made.masks.values():
        assert mask.max() < 3
    scores = made.scores
    assert scores is not None
    assert scores.annotation is not None
    assert scores.annotation.points == len(image.points)
    assert (scores.annotation.held_out, scores.annotation.by_name, scores.images) == (2, 3, len(label) - 2)
    assert scores.result is scores.annotated_crf
    assert scores.annotated.matching == tuple(CLASSES.index(name.lower()) for name in image.names)
    assert scores.cluster is not None
    assert scores.baseline is not None


def test_an_annotation_that_does_not_fit_is_named_with_its_line(kept: Run, tmp_path: Path):
    path = tmp_path / "my.yaml"
    path.write_text("classes: [{name: a}]\ngroups: {'0': a}\npoints:\n- {split: val, image: x, y: 0, x: 0, class: a}\n")
    with pytest.raises(ConfigError, match=r"my.yaml, line 4: there is no image 'x' in val"):
        run(with_annotation(kept, str(path)))
    path.write_text("classes: [{name: a}]\n")
    with pytest.raises(StageError, match="names no group and holds no point"):
        run(with_annotation(kept, str(path)))
    with pytest.raises(ConfigError, match="no annotation is stored"):
        plan(with_annotation(kept, "newest"))
    with pytest.raises(ConfigError, match="no version 7"):
        plan(with_annotation(kept, "7"))
    with pytest.raises(ConfigError, match="No such file"):
        plan(with_annotation(kept, str(tmp_path / "none.yaml")))


def test_a_point_has_the_descriptor_of_the_patch_that_holds_it(finished: Run):
    found = Descriptors(*(finished.artifact(stage) for stage in ("features", "head", "clusters")), device="cpu")
    images = Images(finished.artifact("dataset"))
    row = images.splits["train"][1]
    plane, (height, width) = found.plane(row), images.size(row)
    assert plane is not None
    assert np.allclose(np.linalg.norm(plane, axis=-1), 1, atol=1e-5)
    other = images.splits["val"][0]
    places = [(row, 0, 0), (other, 3, 3), (row, height - 1, width - 1), (row, height // 2, 0)]
    vectors = found.at_points(places, [images.size(at) for at, _, _ in places])
    assert np.array_equal(vectors[0], plane[0, 0])
    assert np.array_equal(vectors[2], plane[-1, -1])
    assert np.array_equal(vectors[3], plane[len(plane) // 2, 0])
    assert not np.array_equal(vectors[1], plane[0, 0])
    assert found.at_points([], []).shape == (0, plane.shape[-1])
