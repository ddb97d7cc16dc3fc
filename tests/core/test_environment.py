"""What a run records of where it was made."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline.core import environment as recorded
from pipeline.core.environment import commit, environment

ROOT = Path(recorded.__file__).parents[2]


def test_a_run_and_its_artifacts_say_where_they_were_made(finished):
    for facts in (finished.record["environment"], finished.artifact("masks").manifest["environment"]):
        assert facts["host"] == platform.node()
        for package in ("stegoflow", "torch", "pyarrow", "obstore"):
            assert facts[package] == version(package)
        assert any(name.startswith("faiss-") for name in facts)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_of_a_checkout(tmp_path: Path):
    """... is named, and that files of it were changed; in a copy that is no checkout there is none to name."""
    copy, git = tmp_path / "copy", ["git", "-C", str(tmp_path / "copy")]
    (copy / "pipeline/core").mkdir(parents=True)
    for name in ("pipeline/__init__.py", "pipeline/core/__init__.py"):
        (copy / name).touch()
    shutil.copy(ROOT / "pipeline/core/environment.py", copy / "pipeline/core")
    code = "from pipeline.core.environment import commit; print(commit())"
    env = {name: value for name, value in os.environ.items() if name != "STEGOFLOW_COMMIT"} | {"PYTHONPATH": str(copy)}

    def named(**more: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=env | more, cwd=tmp_path, text=True, capture_output=True).stdout.strip()

    assert named() == ""
    assert named(STEGOFLOW_COMMIT="abc") == "abc", "an image says so"
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, text=True, capture_output=True).stdout.strip()
    assert named() == head
    changed = "COMMIT = 1\n" + (ROOT / "pipeline/core/environment.py").read_text()
    (copy / "pipeline/core/environment.py").write_text(changed)
    assert named() == f"{head}-dirty"


def test_gpus_are_named_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert "cores" in environment()
    monkeypatch.setattr(recorded, "DRIVER", tmp_path)
    for number in "01":
        (tmp_path / number).mkdir()
        (tmp_path / number / "information").write_text("Model: \t\t NVIDIA H100\nIRQ: 5\n")
    assert environment()["gpu"] == "NVIDIA H100, NVIDIA H100"
    assert commit() == commit()
