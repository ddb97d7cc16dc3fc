"""The command line `stegoflow`. Heavy imports stand inside the commands, so that --help answers at once."""

import os
import sys
from collections.abc import Callable

from cyclopts import App, Group

from pipeline.cli import annotating, computing, exploring, looking, store
from pipeline.cli.logs import set_up
from pipeline.cli.options import print_json
from pipeline.core.errors import StegoflowError, render
from pipeline.core.store import GO_ON
from pipeline.terminal import render_error

app = App(
    name="stegoflow",
    help="""Unsupervised semantic segmentation from a cache of frozen ViT features.

A frozen backbone sees every image once; its tokens are cached. Everything after that runs from the cache, stage by
stage, and a stage whose inputs and params did not change is reused: dataset, labels, features, suggestion (of K, where
none is given), neighbours, head, clusters, classes (where groups were named), probe, baseline, masks, scores,
report.""",
)
COMMANDS: dict[tuple[str, str], tuple[Callable[..., int], ...]] = {
    ("Begin", "stegoflow init my.yaml"): (
        looking.init,
        looking.params,
        looking.config,
        looking.doctor,
        computing.demo,
    ),
    ("Run", "stegoflow run my.yaml --set clusters.k=20"): (
        computing.plan,
        computing.run,
        computing.export,
        computing.segment,
    ),
    ("Name what was found", "stegoflow explore latest"): (
        exploring.explore,
        annotating.groups,
        annotating.annotate,
        annotating.annotation,
    ),
    ("Look", "stegoflow show latest"): (looking.open, looking.status, looking.show),
    ("Keep a store", "stegoflow name latest best"): (
        store.name,
        store.verify,
        store.retract,
        store.forget,
        store.gc,
        store.migrate,
    ),
}
"""By group, whose example line the help shows."""
for (title, example), commands in COMMANDS.items():
    group = Group.create_ordered(title, help=f"Such as: {example}")
    for place, command in enumerate(commands):
        app.command(command, group=group, sort_key=place)


def main() -> None:
    """Entry point: exit status 0, 2 for a config or input that cannot be used, 1 for anything else."""
    set_up()
    try:
        sys.exit(app(sys.argv[1:], result_action="return_value"))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read standard output has stopped, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        sys.exit(_report(error, "--json" in sys.argv))


def _report(error: Exception, json: bool) -> int:
    """Print an error, for a person or as a JSON object, and give the exit status. Raises what nobody expected."""
    if not isinstance(error, StegoflowError):
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError):
            error = StegoflowError(text, next=GO_ON)
        elif json:
            error = StegoflowError(text, next="run the same command without --json")
        else:
            raise error
    if json:
        print_json({"error": {"stage": error.stage, "message": error.message, "next": render(error.next)}})
    else:
        print(f"error: {f'{error.stage}: ' if error.stage else ''}{render_error(error)}", file=sys.stderr)
    return error.exit_status


if __name__ == "__main__":
    main()
