"""`python -m flows.demo`: a corpus made on this machine, all stages of it through Prefect, scores and a report.

Prefect's API is a temporary server on this machine, whose records stay in `.demo/prefect`; a user's own Prefect
settings are neither read nor changed. Results go to standard output, progress to standard error.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CORPUS, PREFECT = Path(".demo/corpus"), Path(".demo/prefect")
LINE = "%(asctime)s │ %(message)s"
PREFECT_SETTINGS = {
    "PREFECT_HOME": str(PREFECT.resolve()),
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",  # else any web page in a browser here may ask the server
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "stegoflow",
    "PREFECT_LOGGING_LOGGERS_PREFECT_LEVEL": "WARNING",
    "PREFECT_LOGGING_LOGGERS_PREFECT_EXTRA_LEVEL": "INFO",
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": LINE,
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": LINE.replace("│", "│ %(task_run_name)-10s │"),
}
"""Of this process and of the server that it starts; read when Prefect is imported."""


def main() -> int:
    """Build the corpus, run the flow, print what came out; the exit status."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ.update(PREFECT_SETTINGS)
    started = time.monotonic()
    from pipeline.core.errors import StegoflowError
    from pipeline.core.extras import require
    from pipeline.terminal import render_error

    try:
        require("prefect", "python -m flows.demo")
        build_corpus()
        result = run_flow()
    except StegoflowError as error:
        print(f"error: {render_error(error)}", file=sys.stderr)
        return error.exit_status
    if result is None:
        return 1
    show(result, time.monotonic() - started)
    return 0


def build_corpus() -> None:
    """Make the corpus unless it is there."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from pipeline.datasets.demo import corpus as demo

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("making the demo corpus", total=None, visible=False)
        demo.build(CORPUS, progress=lambda done, total: bars.update(bar, completed=done, total=total, visible=True))


def run_flow() -> Any:
    """The flow's result, or None where it failed; Prefect has then said why."""
    print("starting a temporary Prefect server …", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(1) as pool:  # it takes as long as the imports, and a core of its own
        from prefect.server.api.server import SubprocessASGIServer

        server = pool.submit(SubprocessASGIServer().start)
        from flows import tasks  # noqa: F401
        from flows.segment import segment
        from pipeline import configs
        from pipeline.core.extras import installed

        server.result()
    changes = [] if installed("pydensecrf") else ["masks.crf=false"]  # as on Python 3.13
    state = segment(str(configs.path("demo")), set=changes, return_state=True)
    return state.result() if state.is_completed() else None


def show(result: dict[str, Any], seconds: float) -> None:
    """Print stages, scores and where the report lies."""
    from rich.console import Console
    from rich.table import Table

    from flows.artifacts import METHODS
    from pipeline import configs
    from pipeline.config import load
    from pipeline.core.artifact import Artifact
    from pipeline.core.store import open_store

    console = Console()
    store = open_store(load(configs.path("demo")).store)
    stages = Table("stage", "", *(("seconds", "items")), title=f"Run {result['run']}")
    for column in stages.columns[2:]:
        column.justify = "right"
    for outcome in result["stages"]:
        items = Artifact(store, outcome["stage"], outcome["fingerprint"]).manifest["items"]
        reused = outcome["status"] == "reused"
        stages.add_row(
            outcome["stage"], "Reused" if reused else "ran", "" if reused else f"{outcome['seconds']:.1f}", f"{items:,}"
        )
    console.print(stages)
    scores = Table("percent", "accuracy", "mIoU", title="Scores on the validation pictures")
    for method, score in result["scores"].items():
        if score:
            scores.add_row(METHODS[method], f"{score['accuracy']:.1f}", f"{score['miou']:.1f}")
    for column in scores.columns[1:]:
        column.justify = "right"
    console.print(scores)
    again = (
        ""
        if any(outcome["status"] == "reused" for outcome in result["stages"])
        else " Run it again: every stage is Reused."
    )
    print("Weights: packaged, a DINOv2 ViT-S/14 that its author trained further for saliency.")
    print(f"Took {seconds:.0f} s.{again}")
    print(f"Report: {result['report']}")  # not through rich, which would break a long path


if __name__ == "__main__":
    sys.exit(main())
