"""Nested sections, sections that are one of several models, and fields that they borrow."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from pipeline.core.changes import why
from pipeline.core.engine import Job, Node, Stage, Work, ensure, silent
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.core.fingerprint import digest
from pipeline.core.params import (
    Params,
    borrowed,
    borrowed_from,
    discriminator,
    hashed,
    members,
    resolve,
    settable,
    settings,
    suggested,
    suggestions,
    unhashed,
    written_as,
)
from pipeline.core.store import Store


class Inner(Params):
    place: str = unhashed("here")
    size: int = 3
    k: int = borrowed("clusters.k")


class Side(Params):
    method: str
    seed: int = 0
    inner: Inner = Inner()


class Left(Side):
    method: Literal["left"] = "left"
    k: int = borrowed("clusters.k")
    rate: float = 0.5


class Right(Side):
    method: Literal["right"] = "right"
    rate: float = 0.7
    size: int = 3


class Plain(Params):
    size: int | None = None


class Clusters(Params):
    k: int | None = suggested("counting", ge=1)


class Config(Params):
    side: Annotated[Left | Right, Field(discriminator="method")] = Left()
    clusters: Clusters = Clusters(k=4)


def found(**sections: dict) -> dict:
    config = Config.model_validate(sections)
    return hashed(resolve(config.side, config))


def test_what_is_hashed():
    inner = {"size": 3, "k": 4}
    assert found() == {"method": "left", "seed": 0, "inner": inner, "k": 4, "rate": 0.5}
    right = found(side={"method": "right"})
    assert right == {"method": "right", "seed": 0, "inner": inner, "rate": 0.7, "size": 3}
    assert found(side={"method": "left", "inner": {"size": 4}}) != found()
    assert digest(found(side={"method": "left", "inner": {"place": "there"}})) == digest(found()), "a place"


def test_a_borrowed_field_is_written_in_one_place():
    assert found(clusters={"k": 7})["k"] == found(clusters={"k": 7})["inner"]["k"] == 7
    assert borrowed_from(Left, "clusters.k") == ["k"]
    assert borrowed_from(Right, "clusters.k") == []
    assert written_as("side", Left, "k") == written_as("side", Left, "inner.k") == "clusters.k"
    assert written_as("side", Left, "inner.size") == "side.inner.size"
    assert written_as("side", Left, "gone.since") == "side.gone.since"
    assert written_as("side", Left, "method.no") == "side.method.no"


def test_the_models_of_a_union():
    assert members(Config, "side") == {"left": Left, "right": Right}
    assert members(Config, "clusters") == members(Clusters, "k") == {}
    assert (discriminator(Left), discriminator(Side), discriminator(Clusters)) == ("method", None, None)


def test_who_lacks_a_value_that_a_stage_suggests():
    def lacking(**sections: dict) -> tuple[dict, dict]:
        config = Config.model_validate(sections)
        return tuple(suggestions(resolve(part, config), config) for part in (config.side, config.clusters))

    assert lacking(clusters={"k": 4}) == ({"counting": False}, {"counting": False})
    assert lacking(clusters={"k": None}) == ({"counting": True}, {"counting": True}), "borrowed, and in a section"
    assert suggestions(Plain(), Config()) == {}


def test_what_a_config_may_say():
    assert settable(Left) == ["method", "seed", "inner", "rate"]
    resolved = resolve(Left(), Config())
    assert settings(resolved) == {"method": "left", "seed": 0, "inner": {"place": "here", "size": 3}, "rate": 0.5}
    assert Left.model_validate(settings(resolved)) == Left()


def test_true_is_no_number():
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"side": {"method": "left", "seed": True, "inner": {"size": False}}})
    (error,) = caught.value.errors()
    assert error["loc"] == ("side", "left", "seed")
    assert error["msg"] == "expected a number, not true or false"


def test_a_change_is_named_where_a_config_writes_it(tmp_path):
    def nothing(job: Job, work: Work) -> dict:
        return {"items": 0}

    stage = Stage("side", 1, 1, (), Side, nothing)
    store, execution = Store(str(tmp_path)), Execution(executor="serial")

    def changes(**sections: dict) -> list[str]:
        config = Config.model_validate(sections)
        return why(Node(stage, resolve(config.side, config), {}), store)[0]

    node = Node(stage, resolve(Left(), Config()), {})
    with open_executor(execution) as executor:
        ensure(node, store, execution=execution, executor=executor, progress=silent)
    assert changes(clusters={"k": 5}) == ["clusters.k 4 → 5"]
    assert changes(side={"method": "left", "rate": 1.0}) == ["side.rate 0.5 → 1.0"]
    assert changes(side={"method": "right"}) == ["side.method left → right"], "their rates are not the same thing"
    assert changes(side={"method": "right", "seed": 1, "inner": {"size": 4}}) == [
        "side.method left → right",
        "side.seed 0 → 1",
        "side.inner.size 3 → 4",
    ]
