"""The annotation: its text, what is wrong with one and on which line, its versions in a store, two writers at once."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.annotations import merge, newest, read, save, save_merged, versions
from pipeline.artifacts.annotation import Annotation, ClassName, Point, check, clean_name, dump, named_by, parse
from pipeline.artifacts.clusters import read_clusters
from pipeline.artifacts.images import Images
from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError, ConflictError, DamageError, NotFoundError
from pipeline.core.gc import collect
from pipeline.core.runs import forget
from pipeline.core.store import Store
from pipeline.core.verify import verify_records
from pipeline.numerics.tree import cut
from pipeline.results import Run

TEXT = """
classes: [{name: gland, color: "#D55E00"}, {name: stroma}]
groups: {"3": gland, 1: stroma}
points: [{split: train, image: 00.png, y: 12, x: 33, class: gland}]
"""


@pytest.fixture
def kept(finished: Run, tmp_path: Path) -> Run:
    """The finished run in a store of its own, alone: other tests may have added runs to the one that is copied."""
    shutil.copytree(str(finished.store.folder), tmp_path / "store")
    for record in (tmp_path / "store/runs").glob("*.json"):
        if record.stem != finished.id:
            record.unlink()
    shutil.rmtree(tmp_path / "store/names", ignore_errors=True)
    return Run(Store(tmp_path / "store"), finished.record)


# Text -----------------------------------------------------------------------------------------------------------------


def test_an_annotation_is_read_as_it_is_written():
    found = parse(TEXT, "f.yaml")
    assert found.classes == (ClassName(name="gland", color="#d55e00"), ClassName(name="stroma"))
    assert found.groups == {1: "stroma", 3: "gland"}
    assert found.points == (Point(split="train", image="00.png", y=12, x=33, class_="gland"),)
    assert dump(found).splitlines() == [
        "classes:",
        "- {name: gland, color: '#d55e00'}",
        "- {name: stroma}",
        "groups:",
        '  "1": stroma',
        '  "3": gland',
        "points:",
        "- {split: train, image: 00.png, y: 12, x: 33, class: gland}",
    ]


def test_nothing_is_an_annotation():
    assert parse("classes: [a, b]", "f") == parse("classes: [{name: a}, {name: b}]", "f")
    assert parse("", "f") == Annotation() == parse(dump(Annotation()), "f") == parse("classes:\ngroups:\n", "f")


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    lambda text: text.strip() == text and clean_name(text) == text
)


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_comes_back(names: list[str], image: str):
    made = Annotation()
    for node, name in enumerate([*names, "null", "1", "no", "~", "'", "a: b", "<script>", "#"]):
        made = made.with_group(node, name).with_point("val", image, node, 0, name)
    assert parse(dump(made), "f") == made


def test_the_palette_gives_each_class_a_colour_of_its_own():
    made = Annotation().with_class("a").with_class("b").with_class("c", "#e69f00")
    assert made.colors[2] == "#e69f00"
    assert len(set(made.colors)) == 3


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("classes:\n- {name: a}\n- {name: a}", 3, "two classes 'a'"),
        ("classes:\n- {name: a}\n- {name: ''}", 3, "1 to 200 characters"),
        ('classes:\n- {name: a}\n- {name: "\\x07"}', 3, "control characters"),
        (f"classes:\n- name: {'a' * 201}", 2, "1 to 200 characters"),
        ("classes:\n- {name: a, color: red}", 2, "a colour is #rrggbb, unlike 'red'"),
        ("classes:\n- {colour: red}", 2, "not 'colour'"),
        ("classes:\n- {color: '#d55e00'}", 2, "lacks name"),
        ("classes: [{name: a}]\ngroups:\n  '1': a\n  '2': b", 4, "no class 'b'; classes are 'a'"),
        ("classes: [{name: a}]\ngroups:\n  '1': a\n  '-2': a", 4, "a node is a whole number"),
        ("classes: [{name: a}]\ngroups:\n  '1': a\n  '01': a", 4, "node 1 stands here twice"),
        ("classes: [{name: a}]\npoints:\n- {split: a, image: b, y: 1, x: 2}", 3, "lacks class"),
        ("classes: [{name: a}]\npoints:\n- {split: a, image: b, y: 1.5, x: 2, class: a}", 3, "y is a whole number"),
        ("classes: [{name: a}]\npoints:\n- {split: a, image: b, y: 1, x: 2, class: b}", 3, "no class 'b'"),
        ("classes: [{name: a}]\npoints: 3", 2, "points is a list"),
        ("classes: []\nclasses: []", 2, "twice"),
        ("classes: []\nlabels: []", 2, "not 'labels'"),
        ("classes: [\n- a", 2, "not plain YAML"),
        ("- a", 1, "a mapping"),
        ("[" * 200_000, 1, "nested too deep"),
        ("&a\nclasses: [{name: *a}]", 1, "a text"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, line: int, what: str):
    with pytest.raises(ConfigError) as caught:
        parse(text, "my.yaml")
    assert caught.value.message.startswith(f"my.yaml, line {line}: ")
    assert what in caught.value.message


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("groups:\n  '9999': a", "node 9999"),
        ("points:\n- {split: test, image: 00.png, y: 1, x: 1, class: a}", "no split 'test'"),
        ("points:\n- {split: val, image: 99.png, y: 1, x: 1, class: a}", "no image '99.png' in val"),
        ("points:\n- {split: train, image: 00.png, y: 72, x: 1, class: a}", "outside 00.png (72 × 96 pixels)"),
        ("points:\n- {split: train, image: 00.png, y: 1, x: 96, class: a}", "outside 00.png"),
        ("clusters: feedbeef\ngroups: {0: a}", "of clusters feedbeef"),
    ],
)
def test_what_a_run_does_not_have_is_named_with_its_line(finished: Run, line: str, what: str):
    text = f"classes: [{{name: a}}]\n{line}"
    clusters = finished.artifact("clusters")
    with pytest.raises(ConfigError) as caught:
        check(
            parse(text, "my.yaml"), read_clusters(clusters).tree, Images(finished.artifact("dataset")),
            clusters.fingerprint,
        )  # fmt: skip
    assert caught.value.message.startswith(f"my.yaml, line {2 if 'clusters' in line else 3}: ")
    assert what in caught.value.message


def test_the_last_pixel_of_an_image_is_inside(finished: Run):
    made = Annotation().with_point("train", "00.png", 71, 95, "a").with_point("train", "00.png", 0, 0, "b")
    check(made, read_clusters(finished.artifact("clusters")).tree, Images(finished.artifact("dataset")))


# Meaning --------------------------------------------------------------------------------------------------------------


def test_the_nearest_named_ancestor_counts(finished: Run):
    tree = read_clusters(finished.artifact("clusters")).tree
    root, (left, right) = 2 * len(tree.sizes) - 2, tree.merges[-1].tolist()
    assert set(named_by(tree, {})) == {None}
    assert set(named_by(tree, {root: "all"})) == {"all"}
    found = named_by(tree, {root: "all", left: "some"})
    assert (found[root], found[left], found[right]) == ("all", "some", "all")
    inside = cut(tree, 2)
    for leaf in range(len(tree.sizes)):
        assert found[leaf] == ("some" if inside.nodes[inside.group[leaf]] == left else "all")


def test_edits():
    made = Annotation().with_group(3, "a").with_point("s", "i", 1, 2, "b").with_point("s", "i", 1, 2, "a")
    assert (made.names, made.groups, [one.class_ for one in made.points]) == (["a", "b"], {3: "a"}, ["a"])
    assert made.renamed("a", "c").plain["groups"] == {"3": "c"}
    assert made.renamed("a", "b").names == ["b"]
    assert made.without_class("a").plain == {"classes": [{"name": "b"}], "groups": {}, "points": []}
    assert made.with_group(3, None).with_point("s", "i", 1, 2, None).plain["points"] == []
    assert made.with_class("b", "#AABBCC").classes[1].color == "#aabbcc"
    with pytest.raises(ConfigError, match="no class 'x'"):
        made.renamed("x", "y")


def test_the_digest_is_of_what_is_said():
    one, two = ("s", "i", 1, 2, "a"), ("s", "i", 3, 2, "a")
    made = Annotation().with_point(*one).with_point(*two)
    assert made.digest == Annotation(clusters="1f").with_point(*two).with_point(*one).digest
    assert made.digest != made.with_class("a", "#d55e00").digest


# Merging --------------------------------------------------------------------------------------------------------------


def test_both_changes_are_taken():
    base = Annotation().with_group(1, "a").with_group(2, "b").with_point("s", "i", 0, 0, "a")
    mine = base.with_group(3, "c").with_point("s", "i", 0, 0, None)
    theirs = base.with_group(1, None).with_point("s", "i", 5, 5, "d").with_class("b", "#000000")
    found = merge(base, mine, theirs)
    assert found.conflicts == []
    assert found.annotation.names == ["a", "b", "c", "d"]
    assert found.annotation.classes[1].color == "#000000"
    assert found.annotation.groups == {2: "b", 3: "c"}
    assert [one.key for one in found.annotation.points] == [("s", "i", 5, 5)]


def test_mine_is_taken_where_both_changed_and_that_is_said():
    base = Annotation().with_group(1, "a")
    found = merge(base, base.with_group(1, "b"), base.with_group(1, "c"))
    assert found.annotation.groups == {1: "b"}
    assert found.conflicts == ["node 1: 'b', not 'c'"]


def test_a_class_that_one_removed_and_the_other_used_stays():
    base = Annotation().with_group(1, "a")
    found = merge(base, base.without_class("a"), base.with_group(2, "a")).annotation
    assert (found.names, found.groups) == (["a"], {2: "a"})


# Versions -------------------------------------------------------------------------------------------------------------


def test_versions_are_numbered_and_stay(kept: Run):
    assert newest(kept.store, kept.record) is None
    first, second = Annotation().with_group(1, "a"), Annotation().with_group(1, "b")
    assert save(kept.store, kept.record, first) == 1
    assert save(kept.store, kept.record, first) == 1  # it says the same
    assert save(kept.store, kept.record, second, after=1) == 2
    assert save(kept.store, kept.record, first, after=2) == 3
    number, found = newest(kept.store, kept.record)  # type: ignore[misc]
    assert (number, found.plain) == (3, first.plain)
    assert found.clusters == kept.record["stages"]["clusters"]
    assert read(kept.store, kept.record, 2).plain == second.plain
    with pytest.raises(NotFoundError, match="no version 9"):
        read(kept.store, kept.record, 9)


def test_what_does_not_fit_is_not_stored(kept: Run):
    with pytest.raises(ConfigError, match="node 777"):
        save(kept.store, kept.record, Annotation().with_group(777, "a"))
    assert versions(kept.store, kept.record) == []


def test_of_two_writers_both_are_kept_and_the_second_is_told(kept: Run):
    base = Annotation().with_group(0, "a")
    save(kept.store, kept.record, base, after=0)
    save(kept.store, kept.record, base.with_group(1, "b"), after=1)
    with pytest.raises(ConflictError) as caught:
        save(kept.store, kept.record, base.with_group(2, "c"), after=1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.stored, again.other, again.message) == (3, 2, caught.value.message)
    assert read(kept.store, kept.record, 2).groups == {0: "a", 1: "b"}
    assert read(kept.store, kept.record, 3).groups == {0: "a", 2: "c"}


def test_two_writers_at_once_are_taken_together(kept: Run):
    base = Annotation().with_group(0, "a")
    save(kept.store, kept.record, base)
    save(kept.store, kept.record, base.with_group(1, "b"), after=1)
    number, found, conflicts = save_merged(kept.store, kept.record, base.with_group(2, "c"), after=1)
    assert (number, found.groups, conflicts) == (4, {0: "a", 1: "b", 2: "c"}, [])
    assert newest(kept.store, kept.record)[1].groups == found.groups  # type: ignore[index]


def test_versions_outlive_gc_and_forgotten_runs(kept: Run):
    save(kept.store, kept.record, Annotation().with_group(1, "a"))
    forget(kept.store, kept.id)
    collect(kept.store, 0.0, delete=True)
    clusters = Artifact(kept.store, "clusters", kept.record["stages"]["clusters"])
    assert not clusters.exists
    assert [entry.path for entry in kept.store.entries("annotations")] == [f"annotations/{clusters.fingerprint}/1.json"]


def test_a_damaged_version_is_noticed(kept: Run):
    save(kept.store, kept.record, Annotation().with_group(1, "a"))
    (path,) = (entry.path for entry in kept.store.entries("annotations"))
    kept.store.put(path, kept.store.get(path).replace(b'"a"', b'"b"'))
    with pytest.raises(DamageError, match="damaged"):
        newest(kept.store, kept.record)
    assert [problem.file for problem in verify_records(kept.store)] == [path]


WRITER = """
import sys
from pipeline.annotations import newest, save
from pipeline.artifacts.annotation import Annotation
from pipeline.core.runs import read_run
from pipeline.core.store import Store
store = Store(sys.argv[1]); record = read_run(store, sys.argv[2])
number, found = newest(store, record) or (0, Annotation())
while True:
    found = found.with_point("train", "00.png", number % 72, number // 72, "a")
    number = save(store, record, found, after=number)
    print(number, flush=True)
"""


def test_the_last_acknowledged_version_is_there_after_a_kill(kept: Run):
    for pause in (3, 17, 40):
        command = [sys.executable, "-c", WRITER, kept.store.url, kept.id]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            said = [int(child.stdout.readline()) for _ in range(pause)]
            os.kill(child.pid, signal.SIGKILL)
            said += [int(line) for line in child.stdout.read().splitlines()]
        number, found = newest(kept.store, kept.record)  # type: ignore[misc]
        assert number in (said[-1], said[-1] + 1)
        assert len(found.points) == number
    assert list(verify_records(kept.store)) == []
