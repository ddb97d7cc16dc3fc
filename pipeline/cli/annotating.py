"""The commands with which a person says what groups mean: groups, annotate, annotation."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.cli.options import Flag, Json, StoreURL, open_existing, print_json
from pipeline.core.errors import ConfigError
from pipeline.terminal import visible


def groups(run: str = "latest", /, *, cut: int | None = None, store: StoreURL = None, json: Json = False) -> int:
    """List a run's groups, with patches that show what they are.

    `group` is its number in masks, reports and `export` with the same --cut; `id` is its node of the tree, which an
    annotation names. With --json a list of {"id", "share", "parent", "examples"} in the order of the numbers.

        stegoflow groups latest --cut 50

    Parameters
    ----------
    run
        A run's id or name, or `latest`.
    cut
        The tree of clusters cut into so many groups; default: as the run has them.
    """
    from pipeline.api import open_run
    from pipeline.cli.tables import command, console, groups_table, waiting

    opened = open_run(open_existing(store), run)
    with waiting("looking for typical patches"):
        found = opened.groups(cut)
    if json:
        return print_json(found)

    console().print(groups_table(found, opened.annotation))
    print(f"\nnext: {command(f'export {run} --cut {len(found)} --out FOLDER', store or './store')}  # to see them")
    print(f"      {command(f'annotate {run} FILE', store or './store')}  # to name them")
    return 0


def annotate(
    run: str,
    file: str | None = None,
    /,
    *,
    other: Annotated[str | None, Parameter(name="--from")] = None,
    after: int | None = None,
    merge: Annotated[bool, Flag] = False,
    store: StoreURL = None,
    json: Json = False,
) -> int:
    """Check an annotation, and store it as the newest version.

    An annotation is YAML: `classes: [{name: gland, color: "#d55e00"}]`, `groups: {"412": gland}` (nodes that `groups`
    lists) and `points: [{split: train, image: a/b.png, y: 120, x: 33, class: gland}]` (split: all, where the images are
    in no folders of splits). Earlier versions are kept.

        stegoflow annotate latest mine.yaml --after 3
        stegoflow annotate latest --from best

    Parameters
    ----------
    run
        A run's id or name, or `latest`.
    file
        The YAML file.
    other
        In place of FILE, what was said of this run of the same images, with other clusters, another head or seed: each
        group gets the name that most of its patches had there; points stay as they are.
    after
        The version that it was made from, 0 for none: exit status 2 where there is a newer one by now. It is stored all
        the same.
    merge
        Where there is a newer one, also store both together; what both changed is as FILE has it, and reported.
    """
    from pipeline import annotations
    from pipeline.artifacts.annotation_versions import find
    from pipeline.core.runs import find_run, run_artifact

    opened = open_existing(store)
    record = find_run(opened, run, "clusters")
    if merge and after is None:
        raise ConfigError("--merge needs the version that FILE was made from", next="--after N")
    kept: dict[str, float] = {}
    lost = 0
    if file is not None and other is None:
        path = str(Path(file).absolute())  # `12` and `newest` are files here
        found = find(path, run_artifact(opened, record, "clusters"))
    elif other is not None and file is None:
        from pipeline.carrying import carried

        found, kept, lost = carried(opened, record, find_run(opened, other, "clusters"))
    else:
        raise ConfigError("annotate reads FILE or --from RUN", next="name one of them")
    conflicts: list[str] = []
    if merge and after is not None:
        number, found, conflicts = annotations.save_merged(opened, record, found, after)
    else:
        number = annotations.save(opened, record, found, after)
    counts = {"classes": len(found.classes), "groups": len(found.groups), "points": len(found.points)}
    if json:
        more = {} if other is None else {"kept": kept, "lost": lost}
        return print_json({"run": record["run"], "version": number, **counts, "conflicts": conflicts, **more})
    from pipeline.cli.tables import command

    print(f"version {number}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    for name, share in kept.items():
        print(
            visible(f"  {name}: " + (f"{share:.0%} of its patches have it again" if share else "no group is mostly it"))
        )
    if lost:
        print(f"  points left out, whose image is not there or has another size: {lost}")
    for text in conflicts:
        print(visible(f"  both changed {text}"))
    print(f"next: {command('run CONFIG --set classes.annotation=newest', store or './store')}")
    return 0


def annotation(run: str, /, *, version: int | None = None, store: StoreURL = None, json: Json = False) -> int:
    """Print the newest annotation of a run's clusters as YAML.

    It can be edited and given to `annotate`, or to a config as classes.annotation=FILE.

        stegoflow annotation latest > mine.yaml

    Parameters
    ----------
    run
        A run's id or name, or `latest`.
    version
        This version in place of the newest.
    """
    from pipeline import annotations
    from pipeline.artifacts.annotation import Annotation, dump
    from pipeline.core.runs import find_run

    opened = open_existing(store)
    record = find_run(opened, run, "clusters")
    if version is None:
        number, found = annotations.newest(opened, record) or (0, Annotation(clusters=record["stages"]["clusters"]))
    else:
        number, found = version, annotations.read(opened, record, version)
    if json:
        facts: dict[str, Any] = {"run": record["run"], "version": number, "clusters": found.clusters}
        return print_json({**facts, **found.plain})
    print(f"# version {number}" if number else "# nothing was stored yet")
    print(dump(found), end="")
    return 0
