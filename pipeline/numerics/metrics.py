"""Scores of clusters against labels, which are used for nothing else. Arrays in, arrays out.

The protocol is STEGO's (Hamilton et al. 2022, arXiv:2203.08414, section 4): one confusion matrix over all scored
images, one Hungarian matching that maximises matched pixels, then accuracy and mIoU. Two things differ on purpose:
clusters without a class, and pixels without a cluster, stay in the metric as wrong pixels. With as many clusters as
classes and every pixel assigned the numbers are the original's.
"""

from typing import TypedDict

import numpy as np
from PIL import Image


class Scores(TypedDict):
    accuracy: float | None
    """Percent of labelled pixels whose cluster is matched to their class; None without labelled pixels."""
    miou: float | None
    """Mean of `iou` over the classes that have one, in percent; None without labelled pixels."""
    iou: list[float | None]
    """Intersection over union per class, in percent; None for a class neither labelled nor predicted anywhere."""
    confusion: np.ndarray
    """int64 (classes, classes + 1): rows are labels, columns matched predictions, the last those without a class."""


def confusion(predicted: np.ndarray, label: np.ndarray, k: int, classes: int, ignore: int | None = None) -> np.ndarray:
    """Pixel counts int64 (k + 1, classes): row = cluster, column = label; matrices of several images add up.

    `predicted` and `label` are integers of one shape. A pixel leaves the metric only if its label is `ignore` or
    outside 0..classes-1. A prediction outside 0..k-1 (an unassigned pixel) is counted in row k. Raises ValueError if
    the shapes differ.
    """
    predicted, label = np.asarray(predicted), np.asarray(label)
    if predicted.shape != label.shape:
        raise ValueError(f"predicted {predicted.shape} and label {label.shape} differ in shape")
    scored = (label >= 0) & (label < classes)
    if ignore is not None:
        scored &= label != ignore
    rows, columns = predicted[scored], label[scored].astype(np.int64)
    rows = np.where((rows >= 0) & (rows < k), rows, k).astype(np.int64)
    counts = np.bincount(rows * classes + columns, minlength=(k + 1) * classes)
    return counts.reshape(k + 1, classes).astype(np.int64)


def match(confusion: np.ndarray) -> np.ndarray:
    """The class of each cluster, int64 (k,), or -1: one-to-one, maximising the matched pixels of (k + 1, classes).

    min(k, classes) clusters are matched, as in the original, even where a pair shares no pixel. (Kuhn 1955, the
    Hungarian method.)
    """
    from scipy.optimize import linear_sum_assignment

    clusters = confusion[:-1]
    matching = np.full(len(clusters), -1, np.int64)
    rows, columns = linear_sum_assignment(clusters, maximize=True)
    matching[rows] = columns
    return matching


def match_named(confusion: np.ndarray, of_name: np.ndarray) -> np.ndarray:
    """`match`, where the classes of some clusters are known: of_name (k,) int64, −1 for the others."""
    free, left = np.flatnonzero(of_name < 0), np.setdiff1d(np.arange(confusion.shape[1]), of_name)
    matching = of_name.copy()
    found = match(np.concatenate([confusion[np.ix_(free, left)], np.zeros((1, len(left)), np.int64)]))
    matching[free] = np.append(left, -1)[found]
    return matching


def scores(confusion: np.ndarray, matching: np.ndarray) -> Scores:
    """Accuracy, IoU and the matched confusion matrix from counts (k + 1, classes) and the class of each cluster (k,).

    `matching` may send several clusters to one class, and -1 to none: those pixels are missed for their class.
    """
    classes = confusion.shape[1]
    columns = np.append(np.where(matching < 0, classes, matching), classes)
    matched = np.zeros((classes, classes + 1), np.int64)
    np.add.at(matched.T, columns, confusion)
    hits = np.diag(matched)
    union = matched.sum(1) + matched[:, :classes].sum(0) - hits
    iou = [100 * float(hit) / float(of) if of else None for hit, of in zip(hits, union, strict=True)]
    present = [value for value in iou if value is not None]
    total = int(matched.sum())
    return {
        "accuracy": 100 * float(hits.sum()) / total if total else None,
        "miou": sum(present) / len(present) if total else None,
        "iou": iou,
        "confusion": matched,
    }


def stability(assign_a: np.ndarray, assign_b: np.ndarray, k: int) -> float:
    """Fraction of items (0..1) on which two clusterings into k agree under their best one-to-one matching.

    Items outside 0..k-1 in either count as disagreeing. (Lange et al. 2004, Stability-based validation of clustering
    solutions, section 2.) Raises ValueError if the shapes differ or there are no items.
    """
    from scipy.optimize import linear_sum_assignment

    if np.size(assign_a) == 0:
        raise ValueError("no items to compare")
    joint = confusion(assign_a, assign_b, k, k)
    rows, columns = linear_sum_assignment(joint[:-1], maximize=True)
    return float(joint[rows, columns].sum()) / np.size(assign_a)


STEGO_SIDE = 320


def stego_crop(labels: np.ndarray) -> np.ndarray:
    """What STEGO's evaluation scores of a label map (H, W), as int32 (320, 320): its shorter side brought to 320 pixels
    by Pillow's nearest neighbour (whose rounding is its own), then the centre. Source: STEGO's code, not its paper."""
    height, width = labels.shape
    short = min(height, width)
    size = [STEGO_SIDE if side == short else int(STEGO_SIDE * side / short) for side in (width, height)]
    resized = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    top, left = (round((side - STEGO_SIDE) / 2) for side in resized.shape)
    return resized[top : top + STEGO_SIDE, left : left + STEGO_SIDE]
