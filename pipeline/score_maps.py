"""How sure label maps are: the probability of every group at every pixel, from cached tokens."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.core.runs import run_artifact
from pipeline.core.store import Store
from pipeline.cuts import predictor
from pipeline.images.formats import open_source
from pipeline.numerics.guided import guided_logits
from pipeline.numerics.prototypes import SCALE
from pipeline.numerics.views import cosine_logits


def score_maps(store: Store, record: dict[str, Any], n: int | None = None) -> Callable[[int], Iterator[np.ndarray]]:
    """Of an image, a row of the table of images: for each group of the cut into n (K by default) a map (height, width)
    uint8, its probability × 255.

    Probabilities are the softmax of `SCALE` × the cosine to each group, at which prototypes are fitted; the largest is
    that of the run's mask without CRF. Maps come one by one and are computed twice, so that two are in memory.
    ConfigError for a run whose masks hold classes.
    """
    masks = run_artifact(store, record, "masks")
    if n is None and masks.manifest.get("classes"):
        raise ConfigError("--scores: classes of an annotation have none yet", next="--cut N, for groups")
    predict, images, _ = predictor(store, record, n)

    def read(row: int) -> Iterator[np.ndarray]:
        plane = predict.plane(row)
        if plane is None:  # it could not be decoded when the features were made
            yield from (np.zeros(images.size(row), np.uint8) for _ in predict.cut.nodes)
            return
        pixels = open_source(predict.root, *images.file(row), predict.reading).pixels()

        def logits() -> Iterator[np.ndarray]:
            if predict.params.upsampling == "guided":
                return guided_logits(pixels, plane, predict.vectors, predict.cut)
            return iter(cosine_logits(plane, predict.vectors, predict.cut, *pixels.shape[:2]))

        yield from probabilities(logits)

    return read


def probabilities(logits: Callable[[], Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """The softmax of `SCALE` × maps of cosines, each × 255 as uint8; `logits` gives the maps, and is called twice."""
    total: np.ndarray | float = 0.0
    for cosine in logits():
        total = total + np.exp(SCALE * (cosine - 1))
    for cosine in logits():
        yield np.rint(255 * np.exp(SCALE * (cosine - 1)) / total).astype(np.uint8)
