"""What exists in a store: artifacts, their state, and what was made from what."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.core.artifact import Artifact
from pipeline.core.errors import Command, ConfigError, DamageError, NotFoundError
from pipeline.core.store import Store

log = logging.getLogger("stegoflow")


def every_artifact(store: Store) -> Iterator[Artifact]:
    """Every artifact that has a folder in the store, finished or not, or whose removal was announced."""
    found = {(stage, name) for stage in store.folders("artifacts") for name in store.folders(f"artifacts/{stage}")}
    for entry in store.entries("removing"):
        stage, _, name = entry.path.removeprefix("removing/").removesuffix(".json").partition("-")
        found.add((stage, name))
    for stage, name in sorted(found):
        yield Artifact(store, stage, name)


def finished(store: Store, stage: str) -> Iterator[Artifact]:
    """Every artifact of a stage that exists, but those whose manifest is damaged (`verify` names them)."""
    for name in store.folders(f"artifacts/{stage}"):
        artifact = Artifact(store, stage, name)
        try:
            _ = artifact.manifest
        except FileNotFoundError:
            continue
        except DamageError as error:
            log.warning("%s", error.message)
            continue
        yield artifact


def find_artifact(store: Store, ref: str) -> Artifact:
    """The artifact whose fingerprint begins with `ref` (four characters at least)."""
    found = [artifact for artifact in every_artifact(store) if len(ref) >= 4 and artifact.fingerprint.startswith(ref)]
    if len(found) == 1:
        return found[0]
    if not found:
        text = f"{ref} is no artifact of this store ({store.shown})"
        raise NotFoundError(text, next=Command("status", store=store.shown))
    listed = ", ".join(f"{artifact.stage} {artifact.fingerprint[:16]}" for artifact in found[:5])
    raise ConfigError(f"{ref} names several artifacts: {listed}", next="give more characters")


def downstream(store: Store, artifacts: Iterable[Artifact]) -> list[Artifact]:
    """The artifacts that were made from these, directly or not, what reads nothing else's output first. Rows that
    `features` copied count as an input."""
    made_from = {artifact: _sources(artifact) for artifact in every_artifact(store)}
    order = list(artifacts)
    for source in order:  # grows while it is walked
        order += [
            artifact for artifact, names in made_from.items() if source.fingerprint in names and artifact not in order
        ]
    return order[::-1]


def _sources(artifact: Artifact) -> set[str]:
    """Fingerprints that an artifact was made from. Nothing is known of a damaged record."""
    found: set[str] = set()
    for name in ("spec", "manifest"):
        try:
            facts = getattr(artifact, name)
        except (FileNotFoundError, DamageError):
            continue
        found |= {*facts["inputs"].values(), *facts.get("copied_from", ())}
    return found


def status_of(artifact: Artifact) -> dict[str, Any]:
    """{"state": finished | unfinished | damaged, "parts", "items", "written"} of an artifact."""
    try:
        facts = artifact.manifest
    except FileNotFoundError:
        state = "unfinished"
    except DamageError:
        state = "damaged"
    else:
        counts = {"parts": facts["parts"], "items": facts.get("items", 0)}
        return {"state": "finished", **counts, "written": facts["written"]}
    return {"state": state, "parts": sum(1 for _ in artifact.each_marker_name()), "items": 0, "written": None}
