"""Why a node has no artifact yet: what differs from the nearest artifact of its stage."""

from typing import Any

from pipeline.core.artifact import Artifact, shown
from pipeline.core.catalog import finished
from pipeline.core.engine import Node
from pipeline.core.params import discriminator, hashed, written_as
from pipeline.core.store import Store


def why(node: Node, store: Store) -> tuple[list[str], Artifact | None]:
    """Why a node must run, line by line, and the nearest artifact: the one with the fewest differing fields."""
    mine = _flat(node.facts())
    nearest: tuple[int, list[str], Artifact] | None = None
    for artifact in finished(store, node.stage.name):
        theirs = _flat(artifact.manifest)
        changed = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
        if discriminator(type(node.params)) in changed:  # of two models of a union, what they have in common counts
            apart = {**hashed(node.params), **artifact.manifest["params"]}.keys() - node.stage.params.model_fields
            changed = [key for key in changed if key.split(".")[0] not in apart]
        if nearest is None or len(changed) < nearest[0]:
            lines = [_change(node, key, theirs.get(key), mine.get(key)) for key in changed]
            nearest = len(changed), list(dict.fromkeys(lines)), artifact  # two fields may be borrowed from one place
    if nearest is None:
        return [f"no {node.stage.name} artifact in this store yet"], None
    _, lines, artifact = nearest
    return lines, artifact


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a node or manifest, one value a key: "field", "section.field", "input STAGE", "root NAME"."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    walk("", facts["params"])
    return {
        **flat,
        **{f"input {stage}": name for stage, name in facts["inputs"].items()},
        **{f"root {name}": value for name, value in facts["roots"].items()},
        "version": facts["version"],
        "encoding": facts["encoding"],
    }


def _change(node: Node, key: str, old: Any, new: Any) -> str:
    if key.startswith(("input ", "root ")):
        if old is None or new is None:
            return f"{key} {'added' if old is None else 'removed'}"
        return f"{key} {shown(str(old))} → {shown(str(new))}"
    return f"{written_as(node.stage.name, type(node.params), key)} {old} → {new}"
