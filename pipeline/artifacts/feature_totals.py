"""What all parts of a features artifact come to: failures, and the mean over the training views."""

import logging
from typing import Any

import numpy as np

from pipeline.artifacts.features import checksums, view_pieces
from pipeline.core.artifact import Artifact
from pipeline.core.errors import Set, StageError
from pipeline.datasets.finding import some

log = logging.getLogger("stegoflow")


def gathered(out: Artifact) -> tuple[dict[str, str], np.ndarray, int]:
    """What all parts say: the paths that could not be decoded and why, the rows of their views, and how many rows were
    copied."""
    failed: dict[str, str] = {}
    missing: list[int] = []
    copied = 0
    for marker in out.each_marker():
        failed |= marker["failed"]
        missing += marker["missing"]
        copied += marker["copied"]
    return failed, np.asarray(missing, np.int64), copied


def check_failed(failed: dict[str, str], images: int, most: float) -> None:
    """Warn of images that could not be decoded; StageError where they are too many."""
    if not failed:
        return
    lines = [f"{path}: {failed[path]}" for path in sorted(failed)]
    text = f"{len(failed)} of {images} images cannot be decoded: {some(lines)}"
    if len(failed) > most * images or len(failed) == images:
        raise StageError(
            text,
            next=("mend, convert or remove them, or allow more: ", Set("features.max_failed_fraction", 0.5)),
        )
    log.warning("%s", text)


def training_mean(out: Artifact, group: Any, missing: np.ndarray) -> np.ndarray:
    """The mean of the mean tokens of the training views, (channel,) float32. DamageError where the values of a view are
    gone whose image could be decoded."""
    total, count = 0.0, 0
    for start, piece in view_pieces(out).each():
        if not len(piece):
            continue
        with checksums(out, "mean"):
            mean = np.asarray(group["mean"][start : start + len(piece)])
        lost = np.setdiff1d(np.flatnonzero(np.isnan(mean[:, 0])) + start, missing)
        if len(lost):
            raise out.damaged(f"views {lost[0]} to {lost[-1]} of {out.store.path_of(out.root)} are gone")
        mean = mean[np.asarray(piece["training"])]
        seen = np.isfinite(mean[:, 0])
        total = total + mean[seen].sum(axis=0).astype(np.float64)
        count += int(seen.sum())
    if not count:
        raise StageError("no training image can be decoded", next="mend the images of the training split")
    return (total / count).astype(np.float32)  # type: ignore[attr-defined]
