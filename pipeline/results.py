"""A run as Python sees it: made from a config, or opened from a store. Everything is read when it is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pipeline import annotations, cuts, exporting, segmenting
from pipeline.artifacts.annotation import Annotation
from pipeline.artifacts.baseline import Baseline, baseline_maps
from pipeline.artifacts.clusters import Clusters, read_clusters
from pipeline.artifacts.feature_table import Features, read_features
from pipeline.artifacts.images import ByImage, Images, Key, Ranges
from pipeline.artifacts.labels import LabelMaps
from pipeline.artifacts.masks import label_maps
from pipeline.artifacts.neighbours import Neighbours, read_neighbours
from pipeline.artifacts.scores import ANNOTATED, NAMES, Scores, read_scores
from pipeline.artifacts.view_reader import corpus_reading
from pipeline.config import PipelineConfig
from pipeline.core.artifact import Artifact
from pipeline.core.engine import Outcome
from pipeline.core.errors import ConfigError, StegoflowError
from pipeline.core.runs import names as run_names
from pipeline.core.runs import run_artifact
from pipeline.core.store import Store
from pipeline.datasets.scale import configured
from pipeline.images.formats import open_source
from pipeline.images.source import PixelSize
from pipeline.report import notebook
from pipeline.session import recorded_config
from pipeline.terminal import visible
from pipeline.writing import Writing

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.artifacts.head import TrainedHead
    from pipeline.explore.server import Explorer


class Run:
    """A run in a store. NotFoundError where a property's artifact is not finished.

    Images are named by id (path below the split); where several splits hold an id, by "split/id" or (split, id).
    """

    def __init__(self, store: Store, record: dict[str, Any], outcomes: Sequence[Outcome] = ()) -> None:
        self.store = store
        self.record = record
        self.id: str = record["run"]
        self._outcomes = tuple(outcomes)

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The names that mean this run now."""
        return [name for name, run in run_names(self.store).items() if run == self.id]

    @property
    def date(self) -> datetime:
        """When it began."""
        return datetime.strptime(self.record["written"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)

    @cached_property
    def config(self) -> PipelineConfig:
        """Its config, without what could hold a password."""
        return recorded_config(self.store, self.record)

    @property
    def stages(self) -> list[Outcome]:
        """What this run did stage by stage: `ran` or `reused`, seconds, parts. Of a run that was opened: `finished` or
        `unfinished`, and the seconds that its artifacts once took."""
        return list(self._outcomes) or [self._state(stage) for stage in self.record["stages"]]

    def _state(self, stage: str) -> Outcome:
        artifact = Artifact(self.store, stage, self.record["stages"][stage])
        if not artifact.exists:
            return Outcome(stage, artifact.fingerprint, "unfinished", 0.0, 0, 0)
        facts = artifact.manifest
        return Outcome(stage, artifact.fingerprint, "finished", facts["seconds"], 0, facts["parts"])

    def artifact(self, stage: str) -> Artifact:
        """A stage's artifact; NotFoundError where it is not finished."""
        return run_artifact(self.store, self.record, stage)

    def has(self, stage: str) -> bool:
        """Whether a stage's artifact is finished."""
        return stage in self.record["stages"] and Artifact(self.store, stage, self.record["stages"][stage]).exists

    # What it found ---------------------------------------------------------------------------------------------------

    @cached_property
    def features(self) -> Features:
        """The feature store."""
        return read_features(self.artifact("features"))

    @cached_property
    def neighbours(self) -> Neighbours:
        """For each training view its nearest views of other images."""
        return read_neighbours(self.artifact("neighbours"))

    @cached_property
    def head(self) -> "TrainedHead":
        """The trained head: called with tokens (view, row, column, channel), it gives their codes."""
        from pipeline.artifacts.head import TrainedHead

        return TrainedHead(self.artifact("head"))

    @cached_property
    def clusters(self) -> Clusters:
        """The clusters: prototypes, the tree in which they merge, and its cut into K groups."""
        return read_clusters(self.artifact("clusters"))

    @property
    def classes(self) -> list[dict[str, Any]] | None:
        """What the masks show where the run has an annotation, by their values: {"name", "color", "groups", "points",
        "evidence"}; None where they show groups."""
        return self.artifact("masks").manifest.get("classes")

    @property
    def shares(self) -> np.ndarray:
        """(K,) float64: the share of each group, or class of an annotation, of all pixels of the masks without CRF."""
        return np.asarray(self.artifact("scores").read_json("scores.json")["cluster_share"])

    @cached_property
    def images(self) -> ByImage[np.ndarray]:
        """Every image of the dataset, (height, width, 3) uint8. StageError where the file has changed."""
        images, dataset = self._images, self.record["config"]["dataset"]
        params = dataset.get("channels"), dataset.get("values")
        seen = corpus_reading(*params, self.artifact("reading") if "reading" in self.record["stages"] else None)

        def read(row: int) -> np.ndarray:
            return open_source(dataset["root"], *images.file(row), seen).pixels()

        return ByImage(images, Ranges(range(len(images))), read)

    def image(self, key: Key) -> np.ndarray:
        """One image of the dataset, (height, width, 3) uint8. An id of several splits means the one with a mask."""
        predicted = self.has("masks") and key in self.masks
        return self.images.read((self.masks if predicted else self.images).row(key))

    def pixel_size(self, key: Key) -> PixelSize | None:
        """What a pixel of an image measures: what `dataset.pixel_size` says of it, else the file; None where neither
        does."""
        images, dataset = self._images, self.record["config"]["dataset"]
        path, sha256, size = images.file(self.images.row(key))
        known = configured(dataset.get("pixel_size"))(path)
        return known or open_source(dataset["root"], path, sha256, size).pixel_size

    @cached_property
    def masks(self) -> ByImage[np.ndarray]:
        """The label map of each predicted image, (height, width) cluster ids: with the CRF where the run has it."""
        return label_maps(self.artifact("masks"), self._images)

    @cached_property
    def baseline(self) -> ByImage[np.ndarray]:
        """The label map of each predicted image by k-means on tokens, computed when it is read."""
        found = Baseline(self.artifact("baseline"), self.artifact("features"))
        return baseline_maps(found, self._images, self.masks.rows)

    @cached_property
    def labels(self) -> Mapping[str, np.ndarray]:
        """The label map of each predicted image that has one, (height, width) class ids; empty without labels."""
        if "labels" not in self.record["stages"]:
            return {}
        images, maps = self._images, LabelMaps(self.artifact("labels"), self.record["config"]["dataset"]["root"])
        rows = [row for row in self.masks.rows if images.name(row) in maps]
        return ByImage(images, rows, lambda row: maps.read(images.row(row)))  # type: ignore[arg-type,return-value]

    @cached_property
    def scores(self) -> Scores | None:
        """How well clusters, probes and the baseline agree with the labels; None without labels."""
        return read_scores(self.artifact("scores"))

    @property
    def report(self) -> str:
        """Path or URL of the report."""
        return self.artifact("report").path("report.html")

    @cached_property
    def _images(self) -> Images:
        return Images(self.artifact("dataset"))

    # What a person says of it ----------------------------------------------------------------------------------------

    def groups(self, cut: int | None = None) -> list[dict[str, Any]]:
        """The groups of a cut, K by default, with what they look like: [{"id", "share", "parent", "examples"}…].

        `id` is a node of the tree, `parent` the one that it becomes part of; `examples` are typical patches, four at
        most, each {"split", "image", "y", "x"}. From cached tokens: a second for fifty images or so."""
        return cuts.examples(self.store, self.record, cut)

    @property
    def annotation(self) -> Annotation:
        """The newest version of what a person said of these clusters; empty where nothing was said."""
        found = annotations.newest(self.store, self.record)
        return found[1] if found else Annotation(clusters=self.record["stages"]["clusters"])

    def name(self, node: int, name: str | None, color: str | None = None) -> Annotation:
        """Name a group, or (None) take its name back; with a colour, `#rrggbb`, if need be. Stores the annotation, as
        `merge` and `point` do, and gives it. Run the config with classes.annotation=newest to use it."""
        return annotations.edit(self.store, self.record, lambda found: found.with_group(node, name, color)).annotation

    def merge(self, nodes: Sequence[int], name: str) -> Annotation:
        """Name several groups alike."""
        return annotations.edit(self.store, self.record, lambda found: found.with_groups(nodes, name)).annotation

    def point(self, image: Key, y: int, x: int, name: str | None) -> Annotation:
        """Say what class a pixel of an image is of, or (None) take that back. KeyError as for `images`."""
        split, id = self._images.name(self.images.row(image))
        return annotations.edit(self.store, self.record, lambda made: made.with_point(split, id, y, x, name)).annotation

    # What to do with it ----------------------------------------------------------------------------------------------

    def show(self, n: int = 6) -> "Image":
        """A picture of `n` images, evenly spaced, beside their masks and the baseline's. ConfigError where none of
        them can be shown."""
        picture, _ = self.figure(n)
        if picture is None:
            raise ConfigError(
                f"run {self.id} has no image to show", next="ask for more than 0, or look into its report"
            )
        return picture

    def figure(self, n: int) -> "tuple[Image | None, list[str]]":
        """The picture of `show`, None where none can be shown, and the names of the images in it."""
        baseline = self.baseline if self.has("baseline") else None
        scores, shares = (self.scores, self.shares) if self.has("scores") else (None, None)
        given = [(row["name"], row["color"]) for row in self.classes or ()]
        k = self.artifact("masks").manifest["clusters"]
        return notebook.figure(self.images, self.masks, baseline, k, scores, shares, n, given)

    def explore(self, *, read_only: bool = False) -> "Explorer":
        """The explorer's page: a notebook shows it, a browser opens its `url`. Served from this process until `close`;
        needs the extra `explore`."""
        from pipeline.explore.server import Explorer

        return Explorer(self.store, self.record, read_only=read_only, framed=True).start()

    def export(self, out: str | Path, **choices: Unpack[exporting.Choices]) -> dict[str, Any]:
        """Write its label maps in a format of `pipeline.writers`; see `pipeline.export`."""
        return exporting.export(self.store, self.id, out, **choices)

    def segment(
        self, images: str | Path, out: str | Path, *, crf: bool | None = None, **writing: Unpack[Writing]
    ) -> dict[str, Any]:
        """Segment new images with its head and clusters; see `pipeline.segment`."""
        return segmenting.segment(self.store, self.id, images, out, crf=crf, **writing)

    def summary(self) -> dict[str, Any]:
        """What `run --json` prints: {"run", "stages", "k", "groups" (shares; of "classes" where the
        run has these), "classes", "annotation" (what a person gave), "protocol", "scores", "report", "failed" (how many
        "images" could not be decoded, and "paths" of the first)}; None for what the run has not, or not yet."""
        scores = self.scores if self.has("scores") else None
        seen = self.artifact("features").manifest if self.has("features") else {}
        absent = () if scores and scores.annotation else ANNOTATED
        measured = {name: getattr(scores, name, None) for name in NAMES if name not in absent}
        return {
            "run": self.id,
            "stages": [asdict(outcome) for outcome in self.stages],
            "k": self.clusters.k if self.has("clusters") else None,
            "classes": self.classes if self.has("masks") else None,
            "annotation": scores.annotation._asdict() if scores and scores.annotation else None,
            "groups": self.shares.tolist() if self.has("scores") else None,
            "protocol": scores.protocol if scores else None,
            "scores": {name: s and {"accuracy": s.accuracy, "miou": s.miou} for name, s in measured.items()},
            "report": self.report if self.has("report") else None,
            "failed": {"images": seen.get("failed_images", 0), "paths": sorted(seen.get("failed", ()))},
        }

    def __repr__(self) -> str:
        return f"<run {self._title}>"

    @property
    def _title(self) -> str:
        """Its id, data, K, head and score, in one line."""
        config = self.record["config"]
        facts = [self.id, PurePosixPath(config["dataset"]["root"]).name]
        facts += [f"{self.artifact('dataset').manifest['items']:,} images"] if self.has("dataset") else []
        facts += [f"K {self.clusters.k}"] if self.has("clusters") else []
        facts.append(f"head {config['head']['method']}")
        result = self.scores.result if self.has("scores") and self.scores else None
        facts += [f"mIoU {result.miou:.1f}"] if result and result.miou is not None else []
        return visible(" · ".join(facts))

    def _repr_html_(self) -> str:
        there = all(self.has(stage) for stage in ("dataset", "features", "clusters", "masks"))
        try:
            picture = self.figure(4)[0] if there else None
        except (OSError, StegoflowError):  # the images may lie elsewhere by now
            picture = None
        return notebook.html(f"run {self._title}", self.scores if self.has("scores") else None, picture)
