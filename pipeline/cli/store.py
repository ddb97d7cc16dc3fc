"""The commands that keep a store: verify, retract, gc, forget, name."""

import re
from typing import Annotated

from pipeline.cli.options import Flag, Json, StoreURL, open_existing, print_json
from pipeline.cli.progress import reporting
from pipeline.core.errors import ConfigError, NotFoundError
from pipeline.terminal import size, visible


def verify(ref: str | None = None, /, *, store: StoreURL = None, json: Json = False) -> int:
    """Read everything back, on all cores, and name each damaged file.

    Exit status 1 if there is a file that is not what was written.

        stegoflow verify

    Parameters
    ----------
    ref
        Only the artifacts of this run, or this artifact; default: the whole store.
    """
    from pipeline.core.artifact import Artifact, shown
    from pipeline.core.catalog import every_artifact, find_artifact
    from pipeline.core.execution import Execution
    from pipeline.core.executors import open_executor
    from pipeline.core.runs import find_run
    from pipeline.core.verify import verify as read_back

    opened = open_existing(store)
    if ref is None:
        artifacts = list(every_artifact(opened))
    else:
        try:
            artifacts = [Artifact(opened, *pair) for pair in find_run(opened, ref)["stages"].items()]
        except NotFoundError:
            artifacts = [find_artifact(opened, ref)]
    with reporting() as progress, open_executor(Execution()) as executor:
        found = read_back(opened, artifacts, lambda done, total: progress("verify", done, total, "artifacts"), executor)
    if json:
        rows = [problem._asdict() for problem in found]
        print_json({"store": opened.shown, "artifacts": len(artifacts), "problems": rows})
        return 1 if found else 0
    for problem in found:
        print(visible(f"{opened.path_of(problem.file)}: {problem.problem}"))
    if found:
        print(f"not what was written: {len(found)} (of all files of {len(artifacts)} artifacts)")
        for damaged in sorted({problem.fingerprint for problem in found} - {""}):
            print(f"  next: stegoflow retract {shown(damaged)} --downstream --store {opened.shown}, then run again")
        if any(not problem.fingerprint for problem in found):
            print("  next: stegoflow forget RUN takes a damaged run record away; name RUN NAME writes a name again")
        return 1
    print(f"{len(artifacts)} artifacts are what was written")
    return 0


def migrate(*, store: StoreURL = None, json: Json = False) -> int:
    """Bring a store to the layout that this program writes.

    Exit status 2 for a layout that it cannot bring there. Layouts before 4 were never released, so there is nothing to
    do today but to look.

        stegoflow migrate
    """
    from pipeline.core.store import ENCODING_VERSION

    opened = open_existing(store)
    if json:
        print_json({"store": opened.shown, "layout": ENCODING_VERSION, "migrated": 0})
    else:
        print(f"{opened.shown} has layout {ENCODING_VERSION}, this program's: nothing to migrate")
    return 0


def retract(
    fingerprint: str,
    /,
    *,
    downstream: Annotated[bool, Flag] = False,
    store: StoreURL = None,
    json: Json = False,
) -> int:
    """Remove an artifact, so that the next run makes it again.

    For one that is damaged or wrong.

        stegoflow retract 0123456789ab --downstream

    Parameters
    ----------
    fingerprint
        Its fingerprint; the beginning is enough.
    downstream
        Also remove everything that was made from it.
    """
    from pipeline.core.artifact import shown
    from pipeline.core.gc import retract as remove

    opened = open_existing(store)
    gone = remove(opened, fingerprint, with_downstream=downstream)
    if json:
        rows = [{"stage": artifact.stage, "fingerprint": artifact.fingerprint} for artifact in gone]
        return print_json({"store": opened.shown, "retracted": rows})
    for artifact in gone:
        print(f"removed {artifact.stage} {shown(artifact.fingerprint)}")
    print("  next: run the config again: it makes these again and reuses the rest")
    return 0


def gc(*, store: str, grace: str = "1d", delete: Annotated[bool, Flag] = False, json: Json = False) -> int:
    """Find what no run wants, and remove it with --delete.

    What a run or a name wants is never touched, nor the search index of a run that was explored.

        stegoflow gc --store store --delete

    Parameters
    ----------
    store
        Folder or object-store URL. There is no default here.
    grace
        Keep whatever was touched within this time: 30s, 10m, 12h, 7d.
    delete
        Remove it. Without this, nothing is changed.
    """
    from pipeline.artifacts import search
    from pipeline.core.gc import collect

    opened = open_existing(store)
    with reporting() as progress:
        found = collect(
            opened,
            _seconds(grace),
            delete=delete,
            progress=lambda a, b: progress("gc", a, b, "artifacts"),
            companions={search.STAGE: search.VERSION},
        )
    total = sum(row.bytes for row in found)
    if json:
        rows = [row._asdict() for row in found]
        return print_json({"store": opened.shown, "deleted": delete, "bytes": total, "removals": rows})
    for row in found:
        print(visible(f"{'removed' if delete else 'would remove'} {row.path} ({row.why}): {size(row.bytes)}"))
    print(f"{len(found)} items, {size(total)}")
    if found and not delete:
        print(f"  next: stegoflow gc --store {opened.shown} --grace {grace} --delete")
    elif not found:
        print(f"  next: stegoflow forget RUN --store {opened.shown} lets go of what only that run wants")
    return 0


def forget(ref: str, /, *, store: StoreURL = None, json: Json = False) -> int:
    """Let go of a run, or of a name.

    What no other run wants can then be removed by `gc`; nothing is removed here.

        stegoflow forget 20251125-234001-ab12

    Parameters
    ----------
    ref
        A run's id, or a name. A run that has a name is kept until the name is forgotten or moved.
    """
    from pipeline.core.runs import forget as let_go

    opened = open_existing(store)
    facts = let_go(opened, ref)
    if json:
        return print_json({"store": opened.shown, **facts})
    print(f"forgot the {facts['kind']} {facts['forgot']}\n  next: stegoflow gc --store {opened.shown}")
    return 0


def name(run: str, name: str, /, *, store: StoreURL = None, json: Json = False) -> int:
    """Give a run a name, which stands for its id.

    A name can be moved to another run.

        stegoflow name latest best

    Parameters
    ----------
    run
        A run's id, another name, or `latest`.
    name
        A letter, then letters, digits, dots, - and _.
    """
    from pipeline.core.runs import name_run

    opened = open_existing(store)
    facts = name_run(opened, run, name)
    if json:
        return print_json({"store": opened.shown, **facts})
    print(f"{facts['name']} is run {facts['run']}\n  next: stegoflow show {facts['name']} --store {opened.shown}")
    return 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found:
        raise ConfigError(f"--grace {text}: expected a number and s, m, h or d", next="--grace 12h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
