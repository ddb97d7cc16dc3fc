"""Making runs and opening what a store holds: the functions of the package (see `pipeline.__init__`)."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts.feature_table import Features, read_features
from pipeline.config import PipelineConfig
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Outcome, Progress
from pipeline.core.errors import NotFoundError, StageError
from pipeline.core.runs import find_run
from pipeline.core.store import Store, open_existing
from pipeline.progress import watched
from pipeline.results import Run
from pipeline.session import Session, ensure_all, session

NEWEST_REPORT = "report.html"
"""Where a store keeps a copy of the report of the run that ended last."""


def run(
    config: PipelineConfig, *, stage: str | None = None, until: str | None = None, progress: Progress | None = None
) -> Run:
    """Run all stages of a config, or one, or those up to one; what exists is reused, what was cut short goes on.

    Shows its progress on a terminal and in a notebook, and says it elsewhere to the log `stegoflow` at INFO
    (`logging.basicConfig(level="INFO")`); `progress` is called in its place, and nothing is shown by `pipeline.silent`.

    Raises StegoflowError, whose `stage` names the stage that raised it.
    """
    with watched(progress) as shown, session(config, stage=stage, until=until, progress=shown) as opened:
        return finish(opened, ensure_all(opened))


def finish(opened: Session, outcomes: Sequence[Outcome]) -> Run:
    """The run of a session whose stages are done; its report becomes the store's newest. StageError where an artifact
    was deleted while it ran."""
    done = Run(opened.store, find_run(opened.store, opened.id), outcomes)
    for outcome in outcomes:
        if not done.has(outcome.stage):
            raise StageError(f"{outcome.stage} {outcome.fingerprint} was deleted during the run", next="run it again")
        if outcome.stage == "report":
            opened.store.put(NEWEST_REPORT, done.artifact("report").read("report.html"))
    return done


def open_run(store: str | Path | Store, run: str = "latest") -> Run:
    """A run of a store: its id, the beginning of one, its name, or `latest`. NotFoundError where there is none."""
    opened = open_existing(store)
    return Run(opened, find_run(opened, run, "masks"))


def open_features(store: str | Path | Store, ref: str = "latest") -> Features:
    """The feature store of a run (as in `open_run`), or of a features fingerprint (or its beginning).

    NotFoundError where there is none.
    """
    opened = open_existing(store)
    names = [name for name in opened.folders("artifacts/features") if name.startswith(ref)]
    if len(names) != 1:
        return Run(opened, find_run(opened, ref)).features
    artifact = Artifact(opened, "features", names[0])
    if not artifact.exists:
        raise NotFoundError(f"features {ref} is not finished", next="run its config again: finished parts are kept")
    return read_features(artifact)
