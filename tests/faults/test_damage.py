"""A flipped byte in each kind of file of each artifact, a deleted shard: found, never read in silence, and repaired."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fault_harness import Zygote, differences, strays
from fault_places import Place, Reference, Tally

from pipeline.api import run
from pipeline.artifacts import masks
from pipeline.config import validate
from pipeline.core import artifact as artifact_module
from pipeline.core import pieces
from pipeline.core.artifact import Artifact
from pipeline.core.catalog import downstream, every_artifact, find_artifact
from pipeline.core.errors import DamageError, render
from pipeline.core.gc import remove, retract
from pipeline.core.store import Store
from pipeline.core.verify import verify

KINDS = re.compile(r"[0-9a-f]{16,64}|\d{8,}-\d{8,}|/c/\d+")
"""What differs between files of one kind."""


@pytest.fixture
def damaged(place: Place, zygote: Zygote, alone: Reference) -> Store:
    """A store, called `damaged`, that is equal to the undisturbed run's."""
    if place.kind == "local":
        shutil.copytree(alone.store.folder, f"{place.base}/damaged")  # type: ignore[arg-type,type-var]
    else:
        result = zygote.start("run", config=place.config("damaged"), env=place.env).finish()
        assert "error" not in result, result
    return place.store("damaged")


def kinds(store: Store) -> dict[str, list[str]]:
    """Paths of every object of a store, by kind of file and stage."""
    found: dict[str, list[str]] = {}
    for artifact in every_artifact(store):
        for entry in sorted(store.entries(artifact.root)):
            found.setdefault(KINDS.sub("*", entry.path), []).append(entry.path)
    for entry in store.entries("runs"):
        found.setdefault("runs/*", []).append(entry.path)
    return found


def flip(store: Store, path: str, random: np.random.Generator) -> bytes:
    """Change one byte of an object; what it was before."""
    before = store.get(path)
    data = bytearray(before)
    data[random.integers(len(data))] ^= int(random.integers(1, 256))
    store.put(path, bytes(data))
    return before


def test_every_flip_is_found(place: Place, damaged: Store, random: np.random.Generator, tally: Tally, everything: bool):
    """`verify` names the file, the only one, for every kind of file and several bytes of each."""
    store = damaged
    artifacts = list(every_artifact(store))
    assert verify(store, artifacts) == []
    flips, found = 0, 0
    times = ({"local": 12, "s3": 2} if everything else {"local": 2, "s3": 1})[place.kind]
    for kind, paths in kinds(store).items():
        for _ in range(times):
            path = str(random.choice(paths))
            before = flip(store, path, random)
            mine = [artifact for artifact in artifacts if path.startswith(artifact.root)]
            problems = {problem.file for problem in verify(store, mine)}
            store.put(path, before)
            flips += 1
            found += path in problems
            assert problems == {path}, f"{kind}: {path} was changed, {problems} was found"
    assert verify(store, artifacts) == []
    tally.add(bytes_flipped=flips, flips_detected=found)
    tally.say(f"flipped bytes ({place.kind})", f"{found} of {flips} found by `verify`, which names the file")


def gone(store: Store, path: str) -> bytes:
    before = store.get(path)
    store.delete(path)
    return before


def test_a_lost_file_is_found(place: Place, damaged: Store, tally: Tally):
    """A shard, a data file, a piece of metadata that is gone; markers that are gone mean parts that are not done."""
    store = damaged
    lost = 0
    for kind, paths in kinds(store).items():
        if "/parts/" in kind or kind == "runs/*" or kind.endswith("manifest.json"):
            continue  # without them there is nothing that anyone would read
        before = gone(store, paths[-1])
        mine = [artifact for artifact in every_artifact(store) if paths[-1].startswith(artifact.root)]
        assert paths[-1] in {problem.file for problem in verify(store, mine)}, kind
        store.put(paths[-1], before)
        lost += 1
    tally.say(f"lost files ({place.kind})", f"{lost} of {lost} found by `verify`, a deleted shard among them")


def test_no_stage_reads_damage_in_silence(
    place: Place, damaged: Store, alone: Reference, random: np.random.Generator, tally: Tally, everything: bool
):
    """Every kind of file changed or deleted in turn, everything downstream of it removed and run anew: the run names
    the file, or ends with the values of the undisturbed one because nothing needs that file. Then `retract` and a
    re-run repair it."""
    if place.kind == "s3" and not everything:
        pytest.skip("part of make faults")
    store = damaged
    config = validate(place.config("damaged"))
    refused = unread = 0
    cases = [(kind, paths, harm) for kind, paths in kinds(store).items() for harm in (flip, gone)]
    if not everything:
        cases = [case for case in cases if "features" in case[0] or "masks" in case[0]][::3]
    if place.kind == "s3":
        cases = cases[::4]
    for kind, _, harm in cases:
        record = "/parts/" in kind or kind.endswith(("manifest.json", "spec.json"))
        if kind.startswith("runs/") or (record and harm is gone):
            continue
        path = str(random.choice(kinds(store)[kind]))
        stage, name = path.split("/")[1:3]
        artifact = Artifact(store, stage, name)
        downstream_only(store, artifact)
        before = flip(store, path, random) if harm is flip else gone(store, path)
        forget_what_was_read()
        error = None
        try:
            run(config)
        except DamageError as raised:
            error = raised
        if error is not None:
            refused += 1
            assert path.rsplit("/", 1)[-1] in error.message or path.rsplit("/c/", 1)[0] in error.message, (kind, error)
            assert f"stegoflow retract {name[:12]} --downstream" in render(error.next), error
        else:
            unread += 1
            assert {problem.file for problem in verify(store, [artifact])} == {path}
            store.put(path, before)  # what was made beside it is as it should be
            tally.wrong(differences(store, alone.store, of=alone.run))
        retract(store, name, with_downstream=True)
        run(config)
        tally.wrong(differences(store, alone.store, of=alone.run))
    assert strays(store) == []
    assert refused > unread
    tally.say(
        f"damage under a run ({place.kind})",
        f"{refused} refused with the file's name, {unread} in files that no stage reads; all repaired by retract",
    )


def forget_what_was_read() -> None:
    """As in a process of its own: files that this one has read and checked before are read again."""
    for kept in (artifact_module._held, pieces._piece, masks._part):
        kept.cache_clear()


def downstream_only(store: Store, artifact: Artifact) -> None:
    """Remove what was made from an artifact, and not the artifact."""
    remove(downstream(store, [artifact])[:-1])


def test_retract_asks_before_it_takes_what_depends(finished, tmp_path: Path):
    from pipeline.core.errors import ConfigError

    store = Store(tmp_path / "store")
    shutil.copytree(finished.config.store, store.folder, dirs_exist_ok=True)
    names = {row.stage: row.fingerprint for row in finished.stages}
    with pytest.raises(ConfigError, match="was read by: ") as caught:
        retract(store, names["clusters"][:10], with_downstream=False)
    assert "--downstream" in render(caught.value.next)
    assert find_artifact(store, names["clusters"]).exists
    taken = retract(store, names["clusters"][:10], with_downstream=True)
    assert {artifact.stage for artifact in taken} == {"clusters", "masks", "scores", "report"}
    assert not any(artifact.exists for artifact in taken)
    assert Artifact(store, "head", names["head"]).exists
