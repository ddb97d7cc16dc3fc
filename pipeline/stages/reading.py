"""reading: what the values of a corpus become, found in a sample of its training images.

Artifact: `reading.json`: `weights` (3 or 1, C) and `offset` of the stored channels C that are seen: 255 × (weights ·
values + offset), cut at 0 and 255, is what the backbone sees. `channels`: their names in the first image. Made only
where `dataset.values` is `corpus` or `dataset.channels` is `pca`. Several triples of channels stand one behind the
other.
"""

from typing import Any

import numpy as np

from pipeline.artifacts.images import Images, Ranges
from pipeline.core.engine import Job, Stage, Work
from pipeline.core.errors import ConfigError, Set, StageError
from pipeline.core.params import Params, borrowed
from pipeline.datasets import folder
from pipeline.images.formats import open_source
from pipeline.images.pixels import DecodeError
from pipeline.images.raster import sampled
from pipeline.images.reading import PERCENTILES, Reading, choose, principal, stretched, triples

IMAGES = 256
"""Training images that are looked at, evenly spaced."""
PIXELS = 2**20
"""Pixels of them, as many of each."""


STORED = Reading(values=(0.0, 1.0))
"""Any rule: of what a rule is asked for, a source has the stored samples."""


class ReadingParams(Params):
    channels: list[int | str] | list[list[int | str]] | str | None = borrowed("dataset.channels", optional=True)
    values: tuple[float, float] | str | None = borrowed("dataset.values", optional=True)

    @property
    def asked(self) -> bool:
        """Whether the corpus decides what is seen."""
        return self.channels == "pca" or self.values == "corpus"


def compute(job: Job, work: Work) -> dict[str, Any]:
    params: ReadingParams = job.params
    images = Images(job.inputs["dataset"])
    every = Ranges(*(images.splits[split] for split in folder.training_splits(set(images.splits))))
    rows = sorted({every[round(at)] for at in np.linspace(0, len(every) - 1, min(IMAGES, len(every))).tolist()})
    root, found, names = job.roots["images"].location, [], ()
    for done, image in enumerate(map(images.row, rows), 1):
        work.tick(done, len(rows), "images")
        try:
            raster = open_source(root, image["path"], image["sha256"], image["size"], STORED).raster
            chosen = sum((choose(raster.channels, one, image["path"]) for one in triples(params.channels)), ())
            pixels = sampled(raster, chosen)
        except DecodeError:  # encoding its views says so
            continue
        names = names or tuple(raster.channels[n] for n in chosen)
        if len(chosen) != len(names) or (params.channels == "pca" and len(chosen) < 3):
            raise ConfigError(
                f"dataset.channels: {image['path']} has {len(chosen)} channels, but the corpus is read by "
                f"{max(3, len(names))} or more of the same",
                next=("name channels that all images have: ", Set("dataset.channels", [1, 2, 3])),
            )
        pixels = pixels[np.isfinite(pixels).all(axis=1)].astype(np.float64)
        found.append(pixels[:: max(1, -(-len(pixels) * len(rows) // PIXELS))])
    if not sum(map(len, found)):
        raise StageError("no training image has pixels with values", next="look at the images of the training split")
    sample = np.concatenate(found)
    weights, offset = principal(sample) if params.channels == "pca" else stretched(sample, PERCENTILES)
    content = {"channels": names, "weights": weights.tolist(), "offset": offset.tolist()}
    job.out.write_json("reading.json", content)
    return {"items": len(found), "pixels": len(sample)}


STAGE = Stage(
    "reading", version=1, encoding=1, inputs=("dataset",), roots=("images",), params=ReadingParams, compute=compute
)
