"""Names of artifacts: what is hashed, what is not, and that the defaults' names have not drifted."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import PipelineConfig, load, validate
from pipeline.core.engine import Node, Root
from pipeline.core.errors import ConfigError
from pipeline.core.fingerprint import canonical, digest, fingerprint
from pipeline.core.params import Params, hashed, resolve, role, source_of
from pipeline.heads.settings import METHODS, SETTINGS, StegoflowParams, StegoParams
from pipeline.planning import STAGES
from pipeline.stages import features

GOLDEN = Path(__file__).parents[1] / "golden/fingerprints.json"
MEND = "If the change is meant (and `version` is bumped where values change): make acknowledge."

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here looks for weights."""
    monkeypatch.setattr(features, "weights_digest", lambda backbone, weights: "0" * 64)


LATER = {"reading?", "pixel_sizes?"}
"""What features came to read where a config asks for it: without it they keep the names that they had."""


def default_fingerprints() -> dict[str, str]:
    """The name of each stage's artifact with default params, every input, root and weights named by 64 zeros."""
    config = PipelineConfig.model_validate({"dataset": {"root": "/nowhere"}})
    names = {}
    for stage in STAGES:
        inputs = {role.rstrip("?"): "0" * 64 for role in stage.inputs if role not in LATER}
        roots = {role.rstrip("?"): Root("/nowhere", "0" * 64) for role in stage.roots if role not in LATER}
        names[stage.name] = Node(stage, resolve(getattr(config, stage.name), config), inputs, roots).fingerprint
    return names


def acknowledge() -> None:
    """Record the names as they are now."""
    features.weights_digest = lambda backbone, weights: "0" * 64  # type: ignore[assignment]
    GOLDEN.write_text(json.dumps(default_fingerprints(), indent=1) + "\n")


def test_default_params_have_their_recorded_names():
    names, golden = default_fingerprints(), json.loads(GOLDEN.read_text())
    assert list(names) == list(golden), "a stage came or went: make acknowledge"
    drifted = sorted(name for name in names if golden[name] != names[name])
    assert not drifted, f"artifacts of {', '.join(drifted)} get new names: every user's cache is lost for them. {MEND}"


# Canonical JSON -------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), JSON, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_count(value, random):
    keys = list(value)
    random.shuffle(keys)
    assert canonical({key: value[key] for key in keys}) == canonical(value)
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_is_refused(value: float):
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"a": [value]})


def test_the_bytes_are_fixed():
    assert canonical({"b": [1, 2.5, None], "a": "é\n"}) == b'{"a":"\xc3\xa9\\n","b":[1,2.5,null]}'
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # sha256sum of "{}"


def test_every_part_of_the_name_counts():
    base = {"stage": "a", "version": 1, "encoding": 1, "params": {"k": 1}, "inputs": {"x": "f"}, "roots": {"r": "f"}}
    others = {
        "stage": "b", "version": 2, "encoding": 2, "params": {"k": 2}, "inputs": {"y": "f"}, "roots": {"r": "g"}
    }  # fmt: skip
    names = {fingerprint(**base)} | {fingerprint(**{**base, key: value}) for key, value in others.items()}
    assert len(names) == 7
    assert all(len(name) == 64 for name in names)


# Fields ---------------------------------------------------------------------------------------------------------------

SECTIONS = {stage.name: stage.params for stage in STAGES}
FIELDS = [(section, field) for section, model in SECTIONS.items() for field in model.model_fields]
BORROWED = [
    (section, field, source_of(SECTIONS[section], field))
    for section, field in FIELDS
    if role(SECTIONS[section], field) == "borrowed"
]
OPTIONAL = [(stage, field) for stage in ("reading", "features") for field in ("channels", "values")]
"""They came later, and are hashed where they are set: artifacts keep the names that they had."""


def resolved(section: str, **changes) -> Params:
    config = PipelineConfig.model_validate({"dataset": {"root": "/nowhere"}, **changes})
    return resolve(getattr(config, section), config)


@pytest.mark.parametrize(("section", "field"), FIELDS)
def test_only_what_is_marked_so_is_not_hashed(section: str, field: str):
    missing = role(SECTIONS[section], field) == "unhashed" or (section, field) in OPTIONAL
    assert (field in hashed(resolved(section))) != missing


def test_some_fields_are_not_hashed():
    """Another one must be argued for: what a place holds has to be hashed by content, and a limit changes no value."""
    assert [pair for pair in FIELDS if role(SECTIONS[pair[0]], pair[1]) == "unhashed"] == [
        ("dataset", "root"),
        ("dataset", "channels"),  # they change no table of images, and are hashed by features
        ("dataset", "values"),
        ("dataset", "pixel_size"),  # it changes no mask
        ("features", "weights"),
        ("features", "max_failed_fraction"),
        ("classes", "annotation"),
    ]


@pytest.mark.parametrize(("section", "field", "path"), BORROWED)
def test_a_borrowed_field_is_hashed_where_it_is_used(section: str, field: str, path: str):
    owner, name = path.split(".")
    known = {"center": "none", "splits": ["elsewhere"], "layout": "potsdam3", "channels": [1], "values": "asinh"}
    value, root = known.get(name, 3), {"root": "/nowhere"} if owner == "dataset" else {}
    if (section, field) not in OPTIONAL:
        assert hashed(resolved(section))[field] == hashed(resolved(owner))[name]
    assert hashed(resolved(section, **{owner: {**root, name: value}}))[field] == value


@pytest.mark.parametrize(("section", "field", "path"), BORROWED)
def test_a_borrowed_field_is_refused_in_the_wrong_section(section: str, field: str, path: str):
    with pytest.raises(ConfigError, match=rf"{section}\.{field} cannot be set here: it is {path}; set that"):
        validate({"dataset": {"root": "x"}, section: {field: 1}})


def test_a_borrowed_field_of_a_method_is_refused():
    with pytest.raises(ConfigError, match=r"head\.k cannot be set here: it is clusters\.k; set that"):
        validate({"dataset": {"root": "x"}, "head": {"method": "smooseg", "k": 1}})


def test_a_computed_field_cannot_be_set():
    with pytest.raises(ConfigError, match=r"features\.weights_sha256 cannot be set here: it is computed"):
        validate({"dataset": {"root": "x"}, "features": {"weights_sha256": "0" * 64}})


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(ConfigError, match=r"features\.views\.siz: unknown field; did you mean size\?"):
        validate({"dataset": {"root": "x"}, "features": {"views": {"siz": 3}}})


WITH_CODE = [name for name, model in zip(METHODS, SETTINGS, strict=True) if "code" in model.model_fields]


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (
            {"shift_random": 1},
            r"head\.shift_random: not a setting of method stegoflow; it is one of stego: --set head\.met",
        ),
        (
            {"code": 3, "method": "none"},
            rf"it is one of {', '.join(WITH_CODE)}: --set head\.method=stego or ",
        ),
        ({"step": 3}, r"head\.step: unknown field; did you mean steps\?"),
        ({"sed": 3}, r"head\.sed: unknown field; did you mean seed\?"),
        (
            {"zzz": 3, "method": "pca"},
            r"head\.zzz: unknown field; the fields are method, center, memory_gib, seed, code",
        ),
        (
            {"method": "dino"},
            rf"head\.method: must be one of {', '.join(map(repr, METHODS))}",
        ),
        ({"method": None}, r"head\.method: must be one of 'stego'"),
        ({"steps": "many"}, r"head\.steps: Input should be a valid integer"),
        ({"steps": True}, r"head\.steps: expected a number, not true or false"),
        (3, r"head: Input should be a valid dictionary"),
    ],
)
def test_a_head_that_cannot_be(head: dict, error: str):
    with pytest.raises(ConfigError, match=error):
        validate({"dataset": {"root": "x"}, "head": head})


def test_a_head_without_a_method_has_the_default_one():
    assert validate({"dataset": {"root": "x"}, "head": {"steps": 3}}).head == StegoflowParams(steps=3)


def test_another_method_by_a_change(tmp_path: Path):
    path = tmp_path / "my.yaml"
    path.write_text("dataset: {root: x}\nhead: {seed: 5}")
    assert load(path, ["head.method=stego"]).head == StegoParams(seed=5)
    for written in ("context: 0.2", "method: stegoflow, context: 0.2", "method: cause, codewords: 9"):
        path.write_text(f"dataset: {{root: x}}\nhead: {{seed: 5, {written}}}")
        changes = ["head.steps=7", "head.method=stego"]
        assert load(path, changes).head == StegoParams(seed=5, steps=7), "the rest is of the method before it"
    path.write_text("dataset: {root: x}\nhead: {method: stego, code: 9}")
    assert load(path, ["head.method=stego"]).head == StegoParams(code=9)
    with pytest.raises(ConfigError, match=r"head\.context: not a setting of method stego; it is one of stegoflow"):
        load(path, ["head.context=0.2"])


def test_params_cannot_be_changed_after_they_were_hashed():
    for section in SECTIONS:
        params = resolved(section)
        for field in type(params).model_fields:
            with pytest.raises(ValueError, match="frozen"):
                setattr(params, field, 1)


def test_equal_numbers_written_differently_have_one_name():
    one, other = (resolved("head", head={"learning_rate": rate}) for rate in (5e-4, "0.0005"))
    assert digest(hashed(one)) == digest(hashed(other)) == digest(hashed(resolved("head")))
    assert digest(hashed(resolved("masks", masks={"splits": ["b", "a", "a"]}))) == digest(
        hashed(resolved("masks", masks={"splits": ["a", "b"]}))
    )


def test_a_stage_reads_only_stages_before_it():
    seen: set[str] = set()
    for stage in STAGES:
        assert {written.rstrip("?") for written in stage.inputs} <= seen
        seen.add(stage.name)


def test_labels_reach_nothing_but_the_measuring():
    """No label may influence the output: everything downstream of `labels` is listed here."""
    after = {"labels"}
    for stage in STAGES:
        if after & {written.rstrip("?") for written in stage.inputs}:
            after.add(stage.name)
    assert after == {"labels", "probe", "scores", "report"}
