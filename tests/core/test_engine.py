"""`ensure`: resume shown by counting work, the manifest last, two runs at once, why a stage runs."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import toys
from toys import SQUARES, SquaresParams, done, squares

from pipeline.core.artifact import Artifact, record
from pipeline.core.catalog import finished
from pipeline.core.changes import why
from pipeline.core.engine import Job, Node, Root, Stage, Work, ensure, silent
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.core.store import Store

PARTS = 10
TOTAL = sum(n * n for n in range(20))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def artifact(store: Path, **params: Any) -> Artifact:
    return Node(SQUARES, SquaresParams(**params), {}).artifact(Store(store))


def in_a_process(store: Path, log: Path, **places: Any) -> subprocess.Popen:
    command = [sys.executable, toys.__file__, str(store), str(log), json.dumps(places)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_work_is_done_once(store: Path, log: Path):
    first = squares(store, log)
    assert (first.status, first.parts_run, first.parts_total) == ("ran", PARTS, PARTS)
    assert len(done(log)) == PARTS
    second = squares(store, log)
    assert (second.status, second.parts_run, second.parts_total) == ("reused", 0, PARTS)
    assert len(done(log)) == PARTS
    manifest = artifact(store).manifest
    assert (manifest["items"], manifest["sum"], manifest["parts"]) == (20, TOTAL, PARTS)


@pytest.mark.parametrize("after", [0, 1, 7, PARTS - 1])
def test_after_an_error_the_rest_is_done(after: int, store: Path, log: Path):
    with pytest.raises(RuntimeError, match="died"):
        squares(store, log, die_after=after, how="exception")
    assert len(done(log)) == len(artifact(store).markers()) == after
    assert not artifact(store).exists
    again = squares(store, log)
    assert (again.status, again.parts_run, again.parts_total) == ("ran", PARTS - after, PARTS)
    assert sorted(done(log)) == sorted(artifact(store).markers()), "each part once, all in all"
    assert squares(store, log).parts_run == 0
    assert artifact(store).manifest["sum"] == TOTAL


def test_after_a_kill_the_rest_is_done(store: Path, log: Path):
    process = in_a_process(store, log, die_after=6, how="SIGKILL")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(artifact(store).markers()) == 6
    assert not artifact(store).exists
    assert squares(store, log).parts_run == PARTS - 6
    assert sorted(done(log)) == sorted(artifact(store).markers())
    assert squares(store, log).status == "reused"


def test_a_stage_that_fails_after_its_parts_has_no_manifest(store: Path, log: Path):
    with pytest.raises(RuntimeError, match="after the parts"):
        squares(store, log, fail_at_end=True)
    assert not artifact(store).exists
    with pytest.raises(FileNotFoundError):
        _ = artifact(store).manifest
    again = squares(store, log)
    assert (again.status, again.parts_run, again.parts_total) == ("ran", 0, PARTS)
    assert artifact(store).exists


def test_data_without_a_marker_proves_nothing(store: Path, log: Path):
    artifact(store).write_json("squares/00000000-00000002.json", ["another value"])
    squares(store, log)
    assert artifact(store).read_json("squares/00000000-00000002.json") == [0, 1]


def test_the_manifest_is_written_last(store: Path, log: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[str] = []
    create, put = Store.create, Store.put

    def note(self: Store, path: str, data: bytes, how: Any) -> Any:
        written.append(path.split("/", 3)[-1])
        return how(self, path, data)

    monkeypatch.setattr(Store, "create", lambda self, path, data: note(self, path, data, create))
    monkeypatch.setattr(Store, "put", lambda self, path, data: note(self, path, data, put))
    squares(store, log)
    assert (written[0], written[-1]) == ("spec.json", "manifest.json")
    assert written.count("manifest.json") == 1
    for part in artifact(store).markers():
        path = artifact(store).file(f"squares/{part}.json")["path"]
        assert written.index(f"data/{path}") < written.index(f"parts/{part}.json")


def test_two_runs_at_once(store: Path, log: Path, tmp_path: Path):
    """Both come to an end, each part is marked once, one manifest results."""
    processes = [in_a_process(store, log, wait=str(tmp_path), slow=0.02) for _ in range(2)]
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    outcomes = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert set(done(log)) == artifact(store).markers()
    assert len(artifact(store).markers()) == PARTS
    assert sum(ran for _, ran, _ in outcomes) == len(done(log)) < 2 * PARTS, "the work was shared"
    assert {total for _, _, total in outcomes} == {PARTS}
    assert artifact(store).manifest["sum"] == TOTAL
    pids = {artifact(store).marker(part)["pid"] for part in artifact(store).markers()}
    assert pids <= {process.pid for process in processes}


def test_the_loser_keeps_the_winners_manifest(store: Path, log: Path):
    def overtaken(job: Job, work: Work) -> dict[str, Any]:
        job.out.store.create(f"{job.out.root}/manifest.json", record("manifest", {"winner": "another", "parts": 3}))
        return {"items": 1}

    node = Node(Stage("squares", 1, 1, (), SquaresParams, overtaken), SquaresParams(), {})
    execution = Execution(executor="serial")
    with open_executor(execution) as executor:
        for status in ("ran", "reused"):
            outcome = ensure(node, Store(store), execution=execution, executor=executor, progress=silent)
            assert outcome.status == status
    assert artifact(store).manifest["winner"] == "another"


def test_a_marker_is_never_written_again(store: Path):
    assert artifact(store).finish_part("00000000-00000002", {"sum": 1})
    assert not artifact(store).finish_part("00000000-00000002", {"sum": 2})
    assert artifact(store).marker("00000000-00000002")["sum"] == 1


def test_parts_cover_the_items_in_a_random_order(store: Path, log: Path):
    orders = []
    for power in (1, 2, 3):
        squares(store, log, params={"items": 41, "power": power})
        times = sorted(log.iterdir(), key=lambda path: int(path.name.rsplit("-", 1)[1]))
        names = [path.name.split("@")[0] for path in times]
        assert sorted(names) == [f"{start:08d}-{min(start + 2, 41):08d}" for start in range(0, 41, 2)]
        orders.append(names)
        for path in times:
            path.unlink()
    assert orders[0] != orders[1] != orders[2], "two runs that share an artifact must not walk in step"


def test_progress_goes_up_and_ends(store: Path, log: Path):
    with pytest.raises(RuntimeError):
        squares(store, log, die_after=4, how="exception")
    calls: list[tuple[int, int]] = []
    squares(store, log, progress=lambda stage, at, total, unit: calls.append((at, total)))
    assert calls[0] == (0, 0), "the stage begins"
    assert calls[1:] == [(at, 20) for at in range(8, 21, 2)]


def test_records_say_what_they_are(store: Path, log: Path):
    squares(store, log)
    made = artifact(store)
    for kind, content in (("spec", made.spec), ("manifest", made.manifest), ("part", made.marker("00000000-00000002"))):
        assert content["encoding-type"] == f"stegoflow-{kind}"
        assert content["encoding-version"] == 3
    assert made.spec["params"] == made.manifest["params"] == {"items": 20, "size": 2, "power": 2}
    assert made.spec["recipe"] == made.manifest["recipe"]


def test_a_recipe_is_apart_from_the_inputs():
    stage = Stage("b", 1, 1, ("a",), SquaresParams, toys.compute)
    one, other = (Node(stage, SquaresParams(), {"a": name * 64}) for name in "01")
    assert one.recipe == other.recipe
    assert one.fingerprint != other.fingerprint
    assert Node(stage, SquaresParams(power=3), {"a": "0" * 64}).recipe != one.recipe


def test_why_names_what_differs_from_the_nearest(store: Path, log: Path):
    opened = Store(store)
    assert why(Node(SQUARES, SquaresParams(), {}), opened) == (["no squares artifact in this store yet"], None)
    for power in (2, 3):
        squares(store, log, params={"power": power, "items": power * 10})
    reason, nearest = why(Node(SQUARES, SquaresParams(power=3, items=31), {}), opened)
    assert reason == ["squares.items 30 → 31"]
    assert nearest is not None
    assert nearest.manifest["params"]["power"] == 3
    reason, _ = why(Node(SQUARES, SquaresParams(power=9, items=31), {}), opened)
    assert [line.split()[0] for line in reason] == ["squares.items", "squares.power"]
    assert why(Node(Stage("squares", 2, 1, (), SquaresParams, toys.compute), SquaresParams(), {}), opened)[0] == (
        ["squares.version 1 → 2"]
    )
    inputs = Node(Stage("squares", 1, 1, ("a",), SquaresParams, toys.compute), SquaresParams(), {"a": "f" * 64})
    assert why(inputs, opened)[0] == ["input a added"]
    rooted = Node(SQUARES, SquaresParams(), {}, {"stones": Root("/quarry", "f" * 64)})
    assert why(rooted, opened)[0] == ["root stones added"]


def test_where_a_root_lies_does_not_count_and_what_it_holds_does():
    first, moved, changed = (
        Node(SQUARES, SquaresParams(), {}, {"stones": Root(place, digest * 64)})
        for place, digest in (("/here", "0"), ("/there", "0"), ("/here", "1"))
    )
    assert first.fingerprint == moved.fingerprint != changed.fingerprint
    assert first.recipe == changed.recipe


def test_finished_skips_what_has_no_manifest(store: Path, log: Path):
    squares(store, log)
    with pytest.raises(RuntimeError):
        squares(store, log, params={"items": 40}, fail_at_end=True)
    assert [made.manifest["items"] for made in finished(Store(store), "squares")] == [20]


def test_a_stage_sees_its_inputs_and_roots(store: Path):
    seen: dict[str, Job] = {}

    def compute(job: Job, work: Work) -> dict[str, Any]:
        seen["job"] = job
        return {"items": 0}

    roots = {"stones": Root("/quarry", "e" * 64)}
    node = Node(Stage("b", 1, 1, ("a", "c?"), SquaresParams, compute), SquaresParams(), {"a": "f" * 64}, roots)
    execution = Execution(executor="serial")
    with open_executor(execution) as executor:
        ensure(node, Store(store), execution=execution, executor=executor, progress=silent)
    assert {role: (made.stage, made.fingerprint) for role, made in seen["job"].inputs.items()} == {"a": ("a", "f" * 64)}
    assert seen["job"].out.fingerprint == node.fingerprint
    assert seen["job"].roots == roots
    assert node.artifact(Store(store)).manifest["roots"] == {"stones": "e" * 64}


def read_and_count(artifact: Artifact, name: str) -> list[bytes]:
    READ.append(name)
    return [artifact.read(name)]


READ: list[str] = []


def test_what_is_held_is_read_once_and_again_where_it_changed(store: Path):
    artifact = Artifact(Store(store), "lines", "a" * 64)
    READ.clear()
    artifact.write("table.txt", b"old")
    first = artifact.held("table.txt", read_and_count)
    twin = Artifact(Store(store), "lines", "a" * 64, dict(artifact.files))
    assert first == [b"old"]
    assert twin.held("table.txt", read_and_count) is first
    artifact.write("table.txt", b"new")
    assert artifact.held("table.txt", read_and_count) == [b"new"]
    assert twin.held("table.txt", read_and_count) is first, "the other one still names the old content"
    assert len(READ) == 2
