"""The page's own functions on trees and annotations, held against those of the package."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.annotation import named_by
from pipeline.numerics.tree import cut, members, parents, shares, ward

IMPORTS = """const base = new URL('static/', document.baseURI);
const { Tree } = await import(new URL('tree.js', base));
const said = await import(new URL('annotation.js', base));"""


@pytest.fixture(scope="module")
def tree():
    rng = np.random.default_rng(5)
    return ward(rng.normal(size=(20, 4)), rng.integers(1, 9, 20))


@pytest.fixture
def ask(open_page, tree):
    """ask(script, value): what a script of the page returns; `tree` and `value` are there."""
    page = open_page()
    facts = [tree.merges.tolist(), tree.sizes.tolist(), tree.heights.tolist()]

    def asked(script: str, value: object = None):
        made = f"async ([facts, value]) => {{ {IMPORTS} const tree = new Tree(...facts); {script} }}"
        return page.evaluate(made, [facts, value])

    return asked


def test_the_tree_is_the_packages(ask, tree):
    for n in (1, 3, 12, 20):
        assert sorted(ask("return tree.cut(value)", n)) == sorted(cut(tree, n).nodes.tolist())
    assert ask("return [...tree.parent]") == parents(tree).tolist()
    assert ask("return tree.members(value)", 36) == members(tree, 36).tolist()


def test_groups_have_the_numbers_that_tables_and_masks_have(ask, tree):
    """Whatever the index counts later: the numbers are of the sample that the tree was made from."""
    script = "tree.weigh([...Array(20).keys()]); return value[1].map(node => tree.label(value[0], node))"
    for n in (1, 4, 20):
        assert ask(script, [n, cut(tree, n).nodes.tolist()]) == [str(number) for number in range(n)]
    group = max(cut(tree, 4).nodes.tolist())
    larger, smaller = sorted(tree.merges[group - 20].tolist(), key=lambda part: (-shares(tree)[part], part))
    number = cut(tree, 4).nodes.tolist().index(group)
    assert ask(script, [4, [larger, smaller]]) == [f"{number}a", f"{number}b"]
    assert ask(script, [4, [38]])[0].count(" + ") == 3


def test_what_is_shown_covers_every_prototype_once(ask, tree):
    shown = ask("return tree.shown(4, [37, 30], [3, 25])")
    below = [leaf for node in shown for leaf in members(tree, node).tolist()]
    assert sorted(below) == list(range(20))
    assert {3, 25} <= set(shown)


def test_the_nearest_named_node_counts(ask, tree):
    groups = {"36": "a", "25": "b", "3": "c"}
    found = ask(
        "return [...Array(tree.count).keys()].map(n => said.namedBy({groups: value}, tree, n)?.name ?? null)", groups
    )
    assert found == named_by(tree, {int(node): name for node, name in groups.items()})


def test_a_name_is_taken_back_from_one_part_alone(ask, tree):
    node = 36
    leaf = members(tree, node)[0]
    script = "return said.withGroups({classes: [], groups: {36: 'a'}, points: []}, tree, [value], null).groups"
    groups = {int(at): name for at, name in ask(script, int(leaf)).items()}
    named = named_by(tree, groups)
    assert [named[at] for at in members(tree, node)] == [None if at == leaf else "a" for at in members(tree, node)]


def test_renaming_to_a_known_name_makes_one_class(ask):
    before = {
        "classes": [{"name": "a", "color": "#000000"}, {"name": "b", "color": "#ffffff"}],
        "groups": {"1": "a", "2": "b"},
        "points": [{"split": "s", "image": "i", "y": 1, "x": 2, "class": "a"}],
    }
    after = ask("return said.renamed(value, 'a', 'b')", before)
    assert [one["name"] for one in after["classes"]] == ["b"]
    assert after["groups"] == {"1": "b", "2": "b"}
    assert after["points"][0]["class"] == "b"


def test_names_are_cleaned_as_the_package_does(ask):
    for name in ("  a b ", "e\u0301", "a\u0007b", "x" * 300):
        assert ask("return said.cleaned(value)", name) == ask("return said.cleaned(said.cleaned(value))", name)
    assert ask("return said.cleaned('e\\u0301')") == "\u00e9"
    assert len(ask("return said.cleaned(value)", "x" * 300)) == 200


def test_the_benchmark_of_the_page_calls_what_there_is(open_page):
    text = (Path(__file__).parents[2] / "benchmarks/explorer.py").read_text()
    called = sorted(set(re.findall(r"\b((?:state|images|source)\.\w+)\(", text)))
    script = """async called => { const module = name => import(new URL(`static/${name}.js`, document.baseURI));
        const [{ state }, { images }, { source }] = await Promise.all(['state', 'images', 'source'].map(module));
        const all = { state, images, source };
        return called.filter(one => typeof one.split('.').reduce((at, name) => at[name], all) !== 'function'); }"""
    assert called
    assert open_page().evaluate(script, called) == []
