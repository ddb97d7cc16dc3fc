"""SIGKILL at random moments and inside every publish step; two and four processes on one store."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_harness import Zygote, differences, parts_of, strays, together
from fault_places import Place, Reference, Tally

HOW = ("before", "after", "inside")


def killed_run(
    place: Place, zygote: Zygote, name: str, random: np.random.Generator, counted: Path, wall: float, writes: int
) -> int:
    """Run one config again and again, killed each time after a few writes or at a random moment, until it comes to its
    end; the number of kills. With `writes` 0 the moments are random."""
    kills = 0
    while True:
        command: dict[str, Any] = {"config": place.config(name), "env": place.env, "counted": str(counted)}
        if writes:
            how = str(random.choice(HOW))
            child = zygote.start("run", kill_at=int(random.integers(1, writes + 1)), how=how, **command)
        else:
            child = zygote.start("run", **command)
            deadline = time.monotonic() + float(random.uniform(0.05, 1.0)) * wall
            while time.monotonic() < deadline and not child.ended():
                time.sleep(0.005)
            if not child.ended():
                child.kill()
        answer = child.finish()
        if "killed" not in answer:
            assert "error" not in answer, answer
            return kills
        kills += 1
        assert kills < 400, "no progress"


def test_killed_runs_end_as_others_do(
    place: Place,
    zygote: Zygote,
    alone: Reference,
    random: np.random.Generator,
    tmp_path: Path,
    tally: Tally,
    everything: bool,
):
    """The artifacts equal those of an undisturbed run, no part is done more often than there were kills, and nothing
    stray is left."""
    wanted = ({"local": 90, "s3": 25} if everything else {"local": 6, "s3": 1})[place.kind]
    parts = parts_of(alone.store, alone.run)
    kills, repeated, victims = 0, 0, 0
    while kills < wanted:
        name, counted = f"killed-{victims}", tmp_path / f"counted-{victims}"
        writes = 0 if victims % 3 == 2 else 12
        here = killed_run(place, zygote, name, random, counted, alone.seconds, writes)
        store = place.store(name)
        done = counted.read_text().splitlines()
        lost = max(0, len(done) - parts - here)
        tally.add(kills=here, recovered=here, parts_repeated=len(done) - len(set(done)), lost=lost)
        assert lost == 0, f"{len(done)} parts done, {parts} and {here} kills allow {parts + here}"
        assert len(set(done)) == parts
        tally.wrong(differences(store, alone.store, of=alone.run))
        assert strays(store) == []
        kills, victims, repeated = kills + here, victims + 1, repeated + len(done) - len(set(done))
    tally.say(
        f"SIGKILL ({place.kind})",
        f"{kills} kills of {victims} runs; {repeated} parts done twice; all artifacts as undisturbed",
    )


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_every_write_survives_a_kill(
    place: Place, zygote: Zygote, alone: Reference, tmp_path: Path, tally: Tally, everything: bool
):
    """A run killed at its first write, another at its second, and so on to the last: run again, each ends as others
    do. Every spec, data file, shard, marker and manifest is among these writes."""
    kills, at = 0, 1
    while True:
        name = f"write-{at}"
        command = {"config": place.config(name), "env": place.env}
        if "killed" not in zygote.start("run", kill_at=at, how=HOW[kills % 3], **command).finish():
            break
        answer = zygote.start("run", **command).finish()
        assert "error" not in answer, answer
        tally.wrong(differences(place.store(name), alone.store, of=alone.run))
        assert strays(place.store(name)) == []
        kills, at = kills + 1, at + (1 if everything else 13)
    assert kills > (50 if everything else 3)
    tally.add(kills=kills, recovered=kills)
    tally.say("SIGKILL at every single write", f"{kills} kills of {kills} runs; all artifacts as undisturbed")


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_on_one_store(
    processes: int,
    place: Place,
    zygote: Zygote,
    alone: Reference,
    tmp_path: Path,
    tally: Tally,
    everything: bool,
):
    """Several runs of one config, and of two configs that share what stands upstream, at the same moment."""
    if (processes == 4 or place.kind == "s3") and not everything:
        pytest.skip("part of make faults")
    repeated = 0
    for rounds in range(3 if everything else 1):
        name = f"shared-{rounds}"
        configs = [place.config(name), place.config(name, clusters={"k": 3})]
        commands = [{"config": configs[i % 2 if rounds == 2 else 0], "env": place.env} for i in range(processes)]
        answers = together(zygote, tmp_path, commands)
        assert not [answer for answer in answers if "error" in answer], answers
        store = place.store(name)
        repeated += sum(row["parts_repeated"] for answer in answers for row in answer["stages"])
        ran = sum(row["parts_run"] - row["parts_repeated"] for answer in answers for row in answer["stages"])
        same = [answer for i, answer in enumerate(answers) if rounds != 2 or i % 2 == 0]
        if rounds != 2:
            assert ran == parts_of(store), "each part counts for one run, and is reported as repeated by the others"
        for answer in same:
            tally.wrong(differences(store, alone.store, run=answer["run"], of=alone.run))
        assert strays(store) == []
        tally.add(concurrent_runs=processes)
    tally.add(parts_repeated=repeated)
    tally.say(
        f"{processes} processes at once ({place.kind})", f"results as alone; {repeated} parts reported as repeated"
    )
