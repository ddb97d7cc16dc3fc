"""What is remembered of backbones and weights: only what still holds, and nothing depends on it."""

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.backbones import facts
from pipeline.backbones.facts import Shape, describe, file_sha256, hub_file, remembered


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/stegoflow/facts.json"


def never() -> None:
    pytest.fail("it should have been remembered")


def test_a_shape_is_looked_up_once_for_each_version_of_timm(monkeypatch: pytest.MonkeyPatch):
    from pipeline.backbones import vit

    assert describe("test_vit") == Shape(16, 64, 6)
    with monkeypatch.context() as patch:
        patch.setattr(vit, "shape_of", lambda backbone: never())
        assert describe("test_vit") == Shape(16, 64, 6)
    monkeypatch.setattr(vit, "shape_of", lambda backbone: Shape(1, 2, 3))
    monkeypatch.setattr(facts, "version", lambda package: "another")
    assert describe("test_vit") == Shape(1, 2, 3)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b'{"[1]": "cut', b'{"[1]": {"of": "another kind"}}'])
def test_a_damaged_memory_is_ignored_and_mended(content: bytes, file: Path):
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert remembered([1], lambda: 7, lambda value: isinstance(value, int)) == 7
    assert remembered([1], never, lambda value: isinstance(value, int)) == 7


def test_a_memory_that_cannot_be_written_is_ignored(file: Path):
    file.parent.parent.write_text("a file where the folder would be")
    assert [remembered([1], lambda value=value: value, lambda value: isinstance(value, int)) for value in (7, 8)] == [
        7,
        8,
    ]


def test_the_memory_does_not_grow_for_ever(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(facts, "KEPT", 2)
    for number in (1, 2, 3):
        remembered([number], lambda number=number: number, lambda value: value is not None)
    assert remembered([3], never, lambda value: value == 3) == 3
    assert remembered([1], lambda: "found again", lambda value: value is not None) == "found again"
    assert [path.name for path in file.parent.iterdir()] == ["facts.json"]


def test_a_digest_follows_the_file(tmp_path: Path):
    path = tmp_path / "weights.pth"

    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    path.write_bytes(b"one")
    assert file_sha256(path, digest) == file_sha256(path, lambda path: never()) == digest(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 0))
    assert file_sha256(path, digest) == digest(path)


def test_a_file_of_the_hub_is_taken_while_it_is_that_of_the_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from pipeline.backbones import weights

    repo = tmp_path / "models--timm--test"
    (repo / "refs").mkdir(parents=True)
    files = []
    for commit in ("a" * 40, "b" * 40):
        files.append(repo / "snapshots" / commit / "model.safetensors")
        files[-1].parent.mkdir(parents=True)
        files[-1].write_bytes(b"weights")
    found = iter(files)
    monkeypatch.setattr(weights, "from_hub", lambda backbone, cfg: next(found))
    (repo / "refs/main").write_text("a" * 40)
    assert [hub_file("test_vit"), hub_file("test_vit")] == [files[0]] * 2
    (repo / "refs/main").write_text("b" * 40)  # another program downloaded a newer revision
    assert [hub_file("test_vit"), hub_file("test_vit")] == [files[1]] * 2
