"""The commands with which a person says what groups mean, and what comes of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.api import open_run, run
from pipeline.artifacts.annotation import Annotation, naming, parse
from pipeline.artifacts.features import view_pieces
from pipeline.config import validate
from pipeline.core.store import Store
from pipeline.results import Run


@pytest.fixture
def kept(finished: Run, tmp_path: Path) -> Run:
    """The finished run in a store of its own."""
    shutil.copytree(str(finished.store.folder), tmp_path / "store")
    return Run(Store(tmp_path / "store"), finished.record)


def test_groups_are_listed_with_patches_that_are_theirs(call, kept: Run):
    status, out, _ = call("groups", kept.id, "--cut", "4", "--store", kept.store.url, "--json")
    assert status == 0
    found = json.loads(out)
    cut, views = kept.clusters.cut(4), view_pieces(kept.artifact("features")).read().to_pylist()
    assert [row["id"] for row in found] == cut.nodes.tolist()
    assert set(found[0]) == {"id", "share", "parent", "examples"}
    assert sum(row["share"] for row in found) == pytest.approx(1)
    for number, row in enumerate(found):
        assert 0 < len(row["examples"]) <= 4
        assert len({place["image"] for place in row["examples"]}) == len(row["examples"]), "one of an image"
        for place in row["examples"]:
            assert place["split"] == "train"
            tokens, grid = kept.features.tokens, kept.features.tokens.shape[1:3]
            name = place["split"], place["image"]
            (view,) = (row for row in views if (row["split"], row["id"]) == name and row["training"])
            height, width = kept.images[f"train/{place['image']}"].shape[:2]
            y, x = place["y"] * grid[0] // height, place["x"] * grid[1] // width
            codes = kept.head(tokens[view["view"]][None]).unit().each(lambda part, y=y, x=x: part[0, y, x])
            assert kept.clusters.cosines(codes, 4).argmax() == number


def test_groups_for_people(call, kept: Run):
    kept.name(int(kept.clusters.cut().nodes[0]), "[red]a\x1b class".replace("\x1b", ""))
    status, out, _ = call("groups", kept.id, "--store", kept.store.url)
    assert status == 0
    assert "[red]a class" in out
    assert len([line for line in out.splitlines() if "%" in line]) == kept.clusters.k
    assert call("groups", kept.id, "--cut", "9999", "--store", kept.store.url)[0] == 2


def test_an_annotation_goes_in_and_comes_out(call, kept: Run, tmp_path: Path):
    path, where = tmp_path / "mine.yaml", ("--store", kept.store.url)
    assert call("annotation", kept.id, *where)[1].startswith("# nothing was stored yet\nclusters: ")
    node = int(kept.clusters.cut().nodes[0])
    text = f"classes: [{{name: gland, color: '#d55e00'}}]\ngroups: {{'{node}': gland}}\n"
    path.write_text(text)
    status, out, _ = call("annotate", kept.id, str(path), *where, "--json")
    assert (status, json.loads(out)["version"]) == (0, 1)
    printed = call("annotation", kept.id, *where)[1]
    assert parse(printed, "f").plain == parse(text, "f").plain
    path.write_text(printed)
    assert json.loads(call("annotate", kept.id, str(path), *where, "--json")[1])["version"] == 1, "the same"
    assert yaml.safe_load(printed)["clusters"] == kept.record["stages"]["clusters"]
    facts = json.loads(call("annotation", kept.id, "--version", "1", *where, "--json")[1])
    assert (facts["version"], facts["groups"]) == (1, {str(node): "gland"})
    assert call("annotation", kept.id, "--version", "9", *where)[0] == 2


def test_a_line_that_is_wrong_is_named(call, kept: Run, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("classes: [{name: a}]\ngroups:\n  '99999': a\n")
    status, _, err = call("annotate", kept.id, str(path), "--store", kept.store.url)
    assert status == 2
    assert f"{path}, line 3: node 99999" in err
    assert "next:" in err
    assert call("annotate", kept.id, str(tmp_path / "no"), "--store", kept.store.url)[0] == 2


def test_the_second_of_two_writers_is_told_and_merges(call, kept: Run, tmp_path: Path):
    path, where = tmp_path / "mine.yaml", ("--store", kept.store.url, "--json")

    def write(**groups: str) -> None:
        names = ", ".join(f"{{name: {name}}}" for name in sorted(set(groups.values())))
        body = ", ".join(f"'{node[1:]}': {name}" for node, name in groups.items())
        path.write_text(f"classes: [{names}]\ngroups: {{{body}}}\n")

    write(n0="a", n1="b")
    assert call("annotate", kept.id, str(path), "--after", "0", *where)[0] == 0
    write(n0="a", n1="b", n2="c")
    assert call("annotate", kept.id, str(path), "--after", "1", *where)[0] == 0
    write(n0="d", n1="b")
    status, out, _ = call("annotate", kept.id, str(path), "--after", "1", *where)
    assert status == 2
    assert "stored as version 3" in json.loads(out)["error"]["message"]
    assert call("annotate", kept.id, str(path), "--merge", *where)[0] == 2
    status, out, _ = call("annotate", kept.id, str(path), "--after", "1", "--merge", *where)
    assert status == 0
    assert kept.annotation.groups == {0: "d", 1: "b", 2: "c"}


def test_python_says_the_same(kept: Run):
    nodes = kept.clusters.cut().nodes.tolist()
    assert kept.annotation.plain == Annotation().plain
    assert kept.groups(2) == kept.groups(2)
    kept.name(nodes[0], "gland", "#d55e00")
    kept.merge(nodes[1:3], "stroma")
    kept.point("train/00.png", 10, 11, "gland")
    found = open_run(kept.store, kept.id).annotation
    assert found.groups == {nodes[0]: "gland", nodes[1]: "stroma", nodes[2]: "stroma"}
    assert [one.key for one in found.points] == [("train", "00.png", 10, 11)]
    assert kept.point(("train", "00.png"), 10, 11, None).points == ()
    assert kept.name(nodes[0], None).groups == {nodes[1]: "stroma", nodes[2]: "stroma"}


def test_exports_speak_of_classes(call, kept: Run, corpus: Path, tmp_path: Path):
    nodes = kept.clusters.cut().nodes.tolist()
    kept.merge(nodes[:2], "<b>low")
    kept.name(nodes[2], "high", "#123456")
    config = {**kept.config.model_dump(mode="json", exclude_unset=True), "store": kept.store.url}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    where = ("--store", kept.store.url)
    status, out, err = call("run", str(tmp_path / "my.yaml"), "--set", "classes.annotation=newest", *where, "--json")
    assert status == 0, err
    made = json.loads(out)
    assert made["annotation"] == {"groups": 3, "points": 0, "held_out": 0, "by_name": 1}
    assert "<b>low" not in (Path(made["report"])).read_text(encoding="utf-8")
    for command, extra in ((("export",), ()), (("segment",), (str(corpus / "images" / "val"),))):
        folder = tmp_path / command[0]
        assert call(*command, made["run"], *extra, "--out", str(folder), *where)[0] == 0
        legend = json.loads((folder / "classes.json").read_text())["classes"]
        assert [(row["name"], row["color"]) for row in legend] == [("<b>low", "#e69f00"), ("high", "#123456")]
        image = Image.open(folder / "00.png")
        assert image.getpalette()[3:6] == [0x12, 0x34, 0x56]
        assert set(np.unique(np.asarray(image))) <= {0, 1, 255}
    out = call("run", str(tmp_path / "my.yaml"), "--set", "classes.annotation=newest", *where)[1]
    assert "2 classes, by their share" in out
    assert "<b>low" in out
    assert "person   groups named: 3, points: 0" in out
    assert "3 + 0" in call("status", *where)[1]
    said = [row["said"] for row in json.loads(call("status", *where, "--json")[1])["runs"]]
    assert said[-3:] == 3 * [{"groups": 3, "points": 0}], "of the run, segment, and the run again"
    assert set(said[:-3]) == {None}, "runs that other tests left in this store"
    assert "3 groups and 0 points" in call("show", made["run"], *where)[1]
    assert call("export", made["run"], "--cut", "4", "--out", str(tmp_path / "cut"), *where)[0] == 0
    four = np.asarray(Image.open(tmp_path / "cut" / "00.png"))
    assert four.max() < 4


def test_names_are_carried_to_another_run_of_the_same_images(call, kept: Run):
    where = ("--store", kept.store.url)
    config = {**kept.config.model_dump(mode="json", exclude_unset=True), "store": kept.store.url}
    config["clusters"] = {**config["clusters"], "k": kept.clusters.k + 1, "seed": 7}
    other = run(validate(config), until="clusters")
    assert other.artifact("clusters").fingerprint != kept.artifact("clusters").fingerprint
    assert call("annotate", other.id, "--from", kept.id, *where)[0] == 2, "nothing was said yet"
    nodes = kept.clusters.cut().nodes.tolist()
    kept.name(nodes[0], "low", "#123456")
    kept.merge(nodes[:2], "low")
    kept.point("train/00.png", 10, 11, "spot")
    assert call("annotate", other.id, *where)[0] == 2
    status, out, err = call("annotate", other.id, "--from", kept.id, *where, "--json")
    assert status == 0, err
    said, made = other.annotation, json.loads(out)
    assert (said.names, said.colors[0]) == (["low", "spot"], "#123456")
    assert [one.key for one in said.points] == [("train", "00.png", 10, 11)]
    assert (made["lost"], list(made["kept"])) == (0, ["low"])
    before, now = (named_share(run, "low") for run in (kept, other))
    assert made["kept"]["low"] > 0.6
    assert now == pytest.approx(before, abs=0.2)
    assert "of its patches have it again" in call("annotate", other.id, "--from", kept.id, *where)[1]


def named_share(run: Run, name: str) -> float:
    """The share of training patches in groups of a name."""
    tree, groups = run.clusters.tree, run.annotation.groups
    named = np.array([groups.get(node) == name for node in naming(tree, groups)[: len(tree.sizes)].tolist()])
    return float(tree.sizes[named].sum() / tree.sizes.sum())
