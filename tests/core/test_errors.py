"""Errors: one tree, exit statuses, the next step in a shell and in Python, and the way back from a worker process."""

import pickle

import pytest

from pipeline.core.errors import (
    Command,
    ConfigError,
    DamageError,
    NotFoundError,
    Set,
    StageError,
    StegoflowError,
    StoreError,
    render,
)

KINDS = {ConfigError: 2, NotFoundError: 2, StageError: 1, DamageError: 1, StoreError: 1}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_back_from_a_worker(kind: type[StegoflowError]):
    error = kind("what happened", next=("either ", Set("clusters.k", 5)))
    error.stage = "clusters"
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.message, back.next, back.stage) == (error.message, error.next, "clusters")
    assert str(back) == str(error)
    assert back.exit_status == KINDS[kind]


def test_damage_is_no_mistake_of_the_config():
    assert not issubclass(DamageError, ConfigError)
    assert not issubclass(DamageError, StageError)
    assert issubclass(StoreError, OSError)


def test_the_next_step_in_a_shell_and_in_python():
    error = ConfigError("no such split", next=("see README.md, or ", Set("masks.splits", ["val"])))
    assert render(error.next) == """see README.md, or --set 'masks.splits=["val"]'"""
    assert str(error) == """no such split\n  next: see README.md, or load(…, set=['masks.splits=["val"]'])"""
    assert render(Set("features.weights", "FILE")) == "--set features.weights=FILE"
    assert render(Set("masks.crf", False), python=True) == "load(…, set=['masks.crf=false'])"


def test_a_command_can_be_pasted_into_a_shell():
    command = Command("retract", "1f3a", downstream=True, store="/data/my store")
    assert render(command) == "stegoflow retract 1f3a --downstream --store '/data/my store'"
