"""Disks that are full, stores that are away, workers that die, images that vanish, clocks that jump, and collectors."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_harness import Zygote, differences, strays
from fault_places import Place, Reference, Tally
from s3_server import Overwriting, S3Server

from pipeline.api import run
from pipeline.config import validate
from pipeline.core import gc
from pipeline.core import runs as records
from pipeline.core.artifact import Artifact
from pipeline.core.errors import ConfigError, StageError, render
from pipeline.core.store import Store
from pipeline.session import session


def check(place: Place, name: str, alone: Reference, tally: Tally) -> None:
    tally.wrong(differences(place.store(name), alone.store, of=alone.run))
    assert strays(place.store(name)) == []


def copied(place: Place, alone: Reference) -> Store:
    """A copy of the undisturbed run's store, called `copy`."""
    store = place.store("copy")
    shutil.copytree(alone.store.folder, store.folder, dirs_exist_ok=True)  # type: ignore[arg-type,type-var]
    return store


# Disks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_write_that_is_too_large(place: Place, zygote: Zygote, alone: Reference, tally: Tally):
    """RLIMIT_FSIZE: the error names store, stage and bytes; without the limit the run goes on."""
    config = place.config("limited")
    answer = zygote.start("run", config=config, largest_file=10_000).finish()
    assert (answer["error"], answer["stage"]) == ("StageError", "features"), answer
    assert str(place.store("limited").folder) in answer["message"], answer
    assert "bytes needed" in answer["message"], answer
    result = zygote.start("run", config=config).finish()
    assert [row["status"] for row in result["stages"]][:2] == ["reused", "reused"]
    check(place, "limited", alone, tally)
    tally.say("largest file limited", "error names store, stage and bytes; the run then continues")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_full_disk(place: Place, zygote: Zygote, alone: Reference, small_disk: Path, tally: Tally):
    """A disk of 160 kB: the error names store, stage and bytes; with more room the run goes on."""
    place.base = str(small_disk)
    config = place.config("store")
    answer = zygote.start("run", config=config).finish()
    assert answer["error"] in ("StageError", "ConfigError"), answer
    assert str(small_disk) in answer["message"]
    assert "bytes needed" in answer["message"], answer
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    result = zygote.start("run", config=config).finish()
    assert "error" not in result, result
    assert "reused" in {row["status"] for row in result["stages"]}
    tally.wrong(differences(place.store("store"), alone.store, of=alone.run))
    assert strays(place.store("store")) == []
    tally.say("disk full", "error names store, stage and bytes; the run then continues")


# Stores that are away -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("first", [12, 30, 45])
def test_writes_fail_for_a_while(place: Place, zygote: Zygote, alone: Reference, first: int, tally: Tally):
    """In a part the run waits and goes on; elsewhere it ends with a sentence, and the next run goes on."""
    config = place.config("away")
    answer = zygote.start("run", config=config, away=[first, 0.4]).finish()
    if "error" in answer:
        assert answer["error"] in ("StageError", "ConfigError"), answer
        assert "connection refused" in answer["message"]
        answer = zygote.start("run", config=config).finish()
    assert "error" not in answer, answer
    check(place, "away", alone, tally)
    tally.say("writes fail for a while", "parts wait and go on; elsewhere a clear error, and the next run continues")


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_the_server_hangs_for_a_while(
    place: Place, zygote: Zygote, alone: Reference, s3: S3Server, tally: Tally, everything: bool
):
    if not everything:
        pytest.skip("part of make faults")
    child = zygote.start("run", config=place.config("hanging"), env=place.env)
    time.sleep(1.0)
    s3.pause()
    time.sleep(6.0)
    s3.resume()
    assert "error" not in child.finish()
    check(place, "hanging", alone, tally)
    tally.say("the S3 server hangs for 6 s", "the run waits and goes on")


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_store_that_overwrites_is_refused(place: Place, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tally: Tally):
    """A proxy that drops If-None-Match, as old S3 servers do: no run may start there."""
    place.store("good").mark()
    with Overwriting(s3.url) as proxy:
        for key, value in proxy.env.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(ConfigError, match="overwrites where it was asked to create") as caught:
            place.store("bad").mark()
    assert caught.value.next
    tally.say("a store without create-only puts", "refused at start")


# Workers, images, clocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["local"], indirect=True)
@pytest.mark.parametrize("executor", ["processes", "dask"])
def test_a_worker_dies(place: Place, zygote: Zygote, alone: Reference, executor: str, tally: Tally, everything):
    """The first worker process that shows up is killed; the run ends as others do."""
    if not everything:
        pytest.skip("part of make faults")
    config = validate(place.config("workers", execution={"executor": executor, "workers": 2, "retries": 3}))
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        before = len(list(Path(config.store).glob("artifacts/features/*/parts/*.json")))
        while time.monotonic() < deadline and not killed:
            time.sleep(0.02)
            if len(list(Path(config.store).glob("artifacts/features/*/parts/*.json"))) > before:
                workers = [pid for pid in descendants(os.getpid()) if is_worker(pid, executor)]
                for pid in workers[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=kill_one)
    thread.start()
    result = run(config)
    thread.join()
    assert killed, "no worker was seen"
    assert {row.status for row in result.stages} == {"ran"}
    check(place, "workers", alone, tally)
    tally.say(f"a worker dies ({executor})", "the run goes on; artifacts as undisturbed")


def descendants(pid: int) -> list[int]:
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += [int(child) for child in task.read_text().split()]
    return [each for child in children for each in (child, *descendants(child))]


def is_worker(pid: int, executor: str) -> bool:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
    mark = "loky.backend.popen_loky_posix" if executor == "processes" else "multiprocessing.spawn"
    return mark in line


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_an_image_vanishes(place: Place, alone: Reference, tmp_path: Path, images: Path, tally: Tally):
    """Listed, then gone: an error that names it, never an empty row. Put back, the run goes on."""
    root = tmp_path / "copy"
    shutil.copytree(images, root)
    config = validate(place.config("vanishing", dataset={"root": str(root)}))
    victim = root / "images/train/33.png"
    with session(config) as opened:
        for node in opened.nodes[:2]:
            opened.ensure(node)
        data = victim.read_bytes()
        victim.unlink()
        with pytest.raises(StageError, match=r"33\.png"):
            opened.ensure(opened.nodes[2])
        victim.write_bytes(data)
    run(config)
    check(place, "vanishing", alone, tally)
    tally.say("an image vanishes", "an error names it; put back, the run goes on")


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_the_clock_jumps_back(place: Place, alone: Reference, monkeypatch: pytest.MonkeyPatch, tally: Tally):
    """Run ids still sort by start, and the collector takes what seems to come from the future for young."""
    store = copied(place, alone)
    gmtime, now = time.gmtime, time.time
    monkeypatch.setattr(
        records.time, "gmtime", lambda seconds=None: gmtime(now() - 86400 if seconds is None else seconds)
    )
    result = run(validate(place.config("copy", report={"patches": 1})))
    assert result.id > alone.run
    for each in records.runs(store):
        records.forget(store, each)
    monkeypatch.setattr(gc.time, "time", lambda: now() - 86400)
    assert gc.collect(store, 60.0, delete=True) == []
    monkeypatch.undo()
    assert {removal.why for removal in gc.collect(store, 0.0, delete=True)} == {"planned by no run"}
    tally.say("the clock jumps back a day", "`latest` is still the latest; nothing is collected too early")


# Collection -----------------------------------------------------------------------------------------------------------


def test_collection_beside_runs(
    place: Place, zygote: Zygote, alone: Reference, tmp_path: Path, tally: Tally, everything
):
    """A collector without any grace, two processes that run and forget configs which share artifacts, and one run that
    is watched: nothing that a run planned is lost."""
    if place.kind == "s3" and not everything:
        pytest.skip("part of make faults")
    until = tmp_path / "until"
    configs = [place.config("busy"), place.config("busy", clusters={"k": 3}), place.config("busy", head={"seed": 1})]
    children = [
        zygote.start("collect", store=configs[0]["store"], until=str(until), env=place.env),
        *(
            zygote.start("run_and_forget", configs=configs[i:] + configs[:i], until=str(until), env=place.env)
            for i in (0, 1)
        ),
    ]
    Store(configs[0]["store"]).mark()
    rounds = 6 if everything else 1
    for _ in range(rounds):
        watched = zygote.start("run", config=configs[0], env=place.env).finish()
        assert "error" not in watched, watched
        tally.wrong(differences(place.store("busy"), alone.store, run=watched["run"], of=alone.run))
        records.forget(place.store("busy"), watched["run"])
    until.touch()
    collector, *busy = (child.finish() for child in children)
    assert "error" not in collector, collector
    assert not [answer for answer in busy if "error" in answer], busy
    runs = sum(answer["runs"] for answer in busy) + rounds
    tally.add(concurrent_runs=runs)
    tally.say(
        f"collection beside runs ({place.kind})",
        f"{collector['rounds']} collections took {collector['removed']} things under {runs} runs; none lost anything",
    )


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_removal_that_was_cut_short(place: Place, alone: Reference, monkeypatch: pytest.MonkeyPatch):
    """A retract killed at any of its deletions: a run says what to type, and typing it repairs the store."""
    store, config = copied(place, alone), validate(place.config("copy"))
    name = alone.result["stages"][5]["fingerprint"]
    monkeypatch.setattr(gc, "PATIENCE", 0.1)
    delete, left = Store.delete, [0]

    def failing(self: Store, *paths: str) -> None:
        for path in paths:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            delete(self, path)

    for number in (0, 1, 4, 9, 16, 25):
        left[0] = number
        with monkeypatch.context() as patch:
            patch.setattr(Store, "delete", failing)
            try:
                gc.retract(store, name, with_downstream=True)
            except KeyboardInterrupt:
                cut = True
            else:
                cut = False
        if cut:
            with pytest.raises(StageError, match="is being removed, or that was cut short") as caught:
                run(config)
            way = render(caught.value.next)
            while "retract" in way:
                gc.retract(store, way.split()[2], with_downstream=True)
                try:
                    run(config)
                    break
                except StageError as error:
                    way = render(error.next)
        run(config)
        assert not differences(store, alone.store, of=alone.run)
        assert list(store.entries("removing")) == []


def test_gc_needs_forget(finished, tmp_path: Path):
    """What a run planned stays; a named run cannot be forgotten; forgotten, it goes, and a dry run takes nothing."""
    store = Store(tmp_path / "store")
    shutil.copytree(finished.config.store, store.folder, dirs_exist_ok=True)
    for each in records.runs(store):
        if each != finished.id:
            records.forget(store, each)
    gc.collect(store, 0.0, delete=True)
    names = finished.record["stages"]
    assert all(Artifact(store, *pair).exists for pair in names.items())
    records.name_run(store, "latest", "best")
    assert records.find_run(store, "best")["run"] == finished.id
    with pytest.raises(ConfigError, match="is named best"):
        records.forget(store, finished.id)
    records.forget(store, "best")
    records.forget(store, finished.id)
    assert gc.collect(store, 3600.0, delete=True) == [], "younger than the grace"
    listed = gc.collect(store, 0.0, delete=False)
    assert all(Artifact(store, *pair).exists for pair in names.items()), "a dry run"
    assert {removal.path for removal in listed} == {Artifact(store, *pair).root for pair in names.items()}
    assert gc.collect(store, 0.0, delete=True) == listed
    assert list(gc.every_artifact(store)) == []
    assert not list((store.folder / "artifacts").glob("*/*"))  # type: ignore[operator]
