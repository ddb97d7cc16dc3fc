"""Nested sections: variants that count where they are chosen, and fields that they borrow."""

from typing import Literal

from pipeline.core.engine import Node, Stage, why
from pipeline.core.fingerprint import digest
from pipeline.core.params import (
    Params,
    borrowed,
    hashed,
    resolve,
    role,
    settable,
    settings,
    suggested,
    suggestions,
    unhashed,
    variant,
    written_as,
)
from pipeline.core.store import Store


class Left(Params):
    k: int = borrowed("clusters.k")
    rate: float = 0.5


class Right(Params):
    place: str = unhashed("here")
    size: int = 3


class Chosen(Params):
    method: Literal["left", "right", "neither"] = "left"
    left: Left = variant("method", Left())
    right: Right = variant("method", Right())
    always: Right = Right()


class Clusters(Params):
    k: int | None = suggested("counting", ge=1)


class Config(Params):
    chosen: Chosen = Chosen()
    clusters: Clusters = Clusters(k=4)


def found(**sections: dict) -> dict:
    config = Config.model_validate(sections)
    return hashed(resolve(config.chosen, config))


def test_only_the_chosen_variant_is_hashed():
    assert found() == {"method": "left", "left": {"k": 4, "rate": 0.5}, "always": {"size": 3}}
    assert found(chosen={"method": "right"}) == {"method": "right", "right": {"size": 3}, "always": {"size": 3}}
    assert found(chosen={"method": "neither"}) == {"method": "neither", "always": {"size": 3}}
    assert found(chosen={"right": {"size": 4}}) == found()
    assert found(chosen={"always": {"size": 4}}) != found()
    assert digest(found(chosen={"always": {"place": "there"}})) == digest(found()), "a place, wherever it is nested"


def test_a_nested_field_may_be_borrowed():
    assert found(clusters={"k": 7})["left"] == {"k": 7, "rate": 0.5}
    assert written_as("chosen", Chosen, "left.k") == "clusters.k"
    assert written_as("chosen", Chosen, "left.rate") == "chosen.left.rate"
    assert written_as("chosen", Chosen, "gone.since") == "chosen.gone.since"
    assert written_as("chosen", Chosen, "method.no") == "chosen.method.no"


def test_who_lacks_a_value_that_a_stage_suggests():
    def lacking(**sections: dict) -> tuple[dict, dict]:
        config = Config.model_validate(sections)
        return tuple(suggestions(resolve(part, config), config) for part in (config.chosen, config.clusters))

    assert lacking(clusters={"k": 4}) == ({"counting": False}, {"counting": False})
    assert lacking(clusters={"k": None}) == ({"counting": True}, {"counting": True}), "borrowed, and in a section"
    assert lacking(clusters={"k": None}, chosen={"method": "right"}) == ({}, {"counting": True})


def test_what_a_config_may_say():
    assert settable(Chosen) == ["method", "left", "right", "always"]
    assert role(Chosen, "left") == "variant"
    assert settable(Left) == ["rate"]
    resolved = resolve(Chosen(), Config())
    assert settings(resolved) == {
        "method": "left",
        "left": {"rate": 0.5},
        "right": {"place": "here", "size": 3},
        "always": {"place": "here", "size": 3},
    }
    assert Chosen.model_validate(settings(resolved)) == Chosen()


def test_a_change_of_a_nested_borrowed_field_is_named_where_it_is_written(tmp_path):
    from pipeline.core.engine import Job, Work, ensure, silent
    from pipeline.core.execution import Execution
    from pipeline.core.executors import open_executor

    def nothing(job: Job, work: Work) -> dict:
        return {"items": 0}

    stage = Stage("chosen", 1, 1, (), Chosen, nothing)
    store, execution = Store(str(tmp_path)), Execution(executor="serial")

    def node(**sections: dict) -> Node:
        config = Config.model_validate(sections)
        return Node(stage, resolve(config.chosen, config), {})

    with open_executor(execution) as executor:
        ensure(node(), store, execution=execution, executor=executor, progress=silent)
    assert why(node(clusters={"k": 5}), store)[0] == ["clusters.k 4 → 5"]
    assert why(node(chosen={"left": {"rate": 1.0}}), store)[0] == ["chosen.left.rate 0.5 → 1.0"]
    assert why(node(chosen={"method": "right"}), store)[0] == ["chosen.method left → right"]
