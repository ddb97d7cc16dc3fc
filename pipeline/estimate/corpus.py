"""How much of everything a config's corpus holds, and what a larger or smaller one with the same shares would."""

from dataclasses import dataclass

import numpy as np

from pipeline.artifacts.features import PART
from pipeline.artifacts.labels import stem
from pipeline.artifacts.views import view_table
from pipeline.backbones.facts import describe
from pipeline.config import PipelineConfig
from pipeline.core.engine import Progress
from pipeline.core.store import Store
from pipeline.datasets import folder
from pipeline.stages import dataset
from pipeline.stages.masks import predicted_images


@dataclass(frozen=True)
class Corpus:
    """How much there is of everything."""

    images: float
    views: float
    """Plain ones, what `--views` counts."""
    mirrored: float
    training: float
    """Training views."""
    predicted: float
    """Images that get masks."""
    predicted_views: float
    """Their views, mirrored ones too."""
    labelled: float
    """Predicted images with a label map."""
    labelled_views: float
    """Training views with a label map."""
    label_maps: float
    image_bytes: float
    megapixels: float
    grid: tuple[int, int, int]
    """Rows, columns and channels of a view's tokens."""

    @property
    def rows(self) -> float:
        """Of the features: mirrored views too."""
        return self.views + self.mirrored

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def view_bytes(self) -> int:
        return self.tokens * self.grid[2] * 2

    @property
    def plane_gets(self) -> float:
        """Requests for the tokens of all predicted images: the shard's index once a run of views, then every view."""
        runs = self.predicted * (2 if self.mirrored else 1)
        return self.predicted_views + max(runs, self.predicted_views / PART)

    def scaled(self, views: float) -> "Corpus":
        """A corpus with so many plain views and the same shares of everything, in whole numbers."""
        per_view = ("image_bytes", "megapixels", "grid")
        factor = views / self.views
        counts = {n: max(0.0, float(round(v * factor))) for n, v in vars(self).items() if n not in per_view}
        return Corpus(**{**vars(self), **counts})


def survey(config: PipelineConfig, store: Store, progress: Progress) -> Corpus:
    """Count the images, views and labels below `dataset.root`. What was listed before is remembered, as in `plan`."""
    root, layout = config.dataset.root, config.dataset.layout
    items, _ = folder.scan(
        root, "images", store, lambda done, total: progress("dataset", done, total, "images"), layout
    )
    images = dataset.table(items)
    views = config.features.views
    table = view_table(images, views, config.features.mirror, config.masks.splits)
    mirrored, training = np.asarray(table["mirrored"]), np.asarray(table["training"])
    predicted = predicted_images(images, config.masks.splits)
    merged = np.isin(np.asarray(table["image"]), predicted) & ~(training & (views.kind == "crops"))
    known = set()
    if folder.has_labels(root, layout):
        maps = folder.scan(
            root, "labels", store, lambda done, total: progress("labels", done, total, "label maps"), layout
        )
        known = {(item.split, stem(item.id)) for item in maps.items}
    labelled = np.asarray([(item.split, stem(item.id)) in known for item in items])
    patch, channels, _ = describe(config.features.backbone)
    return Corpus(
        images=len(items),
        views=int((~mirrored).sum()),
        mirrored=int(mirrored.sum()),
        training=int(training.sum()),
        predicted=len(predicted),
        predicted_views=int(merged.sum()),
        labelled=int(labelled[predicted].sum()),
        labelled_views=int((labelled[np.asarray(table["image"])] & training).sum()),
        label_maps=len(known),
        image_bytes=float(np.mean([item.size for item in items])),
        megapixels=float(np.mean([item.height * item.width for item in items])) / 1e6,
        grid=(views.size[0] // patch, views.size[1] // patch, channels),
    )
