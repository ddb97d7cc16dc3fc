"""Which stages a config means, and what each of them reads, as far as the other tests do not say it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig
from pipeline.core.engine import Node
from pipeline.core.store import Store
from pipeline.datasets import folder
from pipeline.planning import nodes

Make = Callable[..., PipelineConfig]


def graph(config: PipelineConfig, **options) -> dict[str, Node]:
    return {node.stage.name: node for node in nodes(config, Store(config.store), **options)}


def test_a_node_names_the_roots_that_its_stage_reads(make_config: Make, corpus: Path):
    made = graph(make_config())
    read = {name: set(node.roots) for name, node in made.items()}
    wanted = {
        "dataset": {"images"}, "features": {"images"}, "clusters": {"images"}, "masks": {"images"},
        "labels": {"labels"}, "scores": {"labels"}, "probe": {"training_labels"}, "report": {"images", "labels"},
        "neighbours": set(), "head": set(), "baseline": set(),
    }  # fmt: skip
    assert {name: read[name] for name in wanted} == wanted
    assert {root.location for node in made.values() for root in node.roots.values()} == {str(corpus)}


def test_without_labels_nothing_that_must_have_them_is_made(make_config: Make, corpus: Path, tmp_path: Path):
    shutil.copytree(corpus / "images", tmp_path / "bare/images")
    made, labelled = graph(make_config(root=tmp_path / "bare")), graph(make_config())
    assert set(labelled) - set(made) == {"labels", "probe"}
    assert {"labels", "probe"} & set(labelled["scores"].inputs) == {"labels", "probe"}
    assert not {"labels", "probe"} & {*made["scores"].inputs, *made["scores"].roots}
    assert made["masks"].fingerprint == labelled["masks"].fingerprint


def test_without_labels_of_training_images_there_is_no_probe(make_config: Make, corpus: Path, tmp_path: Path):
    shutil.copytree(corpus, tmp_path / "part")
    shutil.rmtree(tmp_path / "part/labels/train")
    made = graph(make_config(root=tmp_path / "part"))
    assert "probe" not in made
    assert "labels" in made["scores"].inputs
    assert "probe" not in made["scores"].inputs


def test_a_label_of_a_training_image_renames_the_probe(make_config: Make, corpus: Path, tmp_path: Path):
    """… and one of another image too, because the table of labels is another one then."""
    before = graph(make_config())
    for split in ("train", "val"):
        root = shutil.copytree(corpus, tmp_path / split)
        (root / "labels" / split / "00.png").unlink()
        after = graph(make_config(root=root))
        assert after["probe"].fingerprint != before["probe"].fingerprint
        same = after["probe"].roots["training_labels"].digest == before["probe"].roots["training_labels"].digest
        assert same == (split == "val")


def test_only_what_a_stage_reads_is_made_and_listed(make_config: Make, monkeypatch: pytest.MonkeyPatch):
    listed = []
    scan = folder.scan

    def watched(root: str, kind: str, *rest):
        listed.append(kind)
        return scan(root, kind, *rest)

    monkeypatch.setattr(folder, "scan", watched)
    config = make_config(clusters={"k": None})
    assert list(graph(config, until="neighbours")) == ["dataset", "features", "neighbours"]
    assert list(graph(config, until="suggestion")) == ["dataset", "features", "suggestion"]
    pins = {"head": "a" * 64, "clusters": "b" * 64}
    made = graph(config, until="masks", pins=pins)
    assert list(made) == ["dataset", "features", "masks"], "K is in the clusters already"
    assert pins.items() <= made["masks"].inputs.items()
    assert set(listed) == {"images"}


@pytest.mark.parametrize(
    ("method", "k", "readers"),
    [
        ("stego", 4, set()),
        ("stego", None, {"clusters", "baseline", "report"}),
        ("stegoflow", None, {"clusters", "baseline", "report"}),
        ("smooseg", None, {"head", "clusters", "baseline", "report"}),
    ],
)
def test_who_reads_the_suggestion(method: str, k: int | None, readers: set[str], make_config: Make):
    made = graph(make_config(head={"method": method}, clusters={"k": k}))
    assert {name for name, node in made.items() if "suggestion" in node.inputs} == readers
    assert ("suggestion" in made) == bool(readers)
