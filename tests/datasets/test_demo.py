"""The demo corpus: deterministic, complete, honest about its splits, safe to call twice."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.core.errors import ConfigError
from pipeline.datasets.demo import corpus as demo
from pipeline.datasets.demo import scene as demo_scene
from pipeline.datasets.demo import sources as demo_sources

RECIPE_OF_STARS = 2  # every fourth scene, from this one on, has a night sky


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return demo.build(tmp_path_factory.mktemp("demo"), train=16, val=8)


def labels_of(corpus: Path, split: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((corpus / "labels" / split).iterdir())]


def test_files_and_card(corpus):
    for split, count in (("train", 16), ("val", 8)):
        for kind, suffix in (("images", "jpg"), ("labels", "png")):
            names = sorted(path.name for path in (corpus / kind / split).iterdir())
            assert names == [f"{number:03d}.{suffix}" for number in range(count)]
    card = yaml.safe_load((corpus / "dataset.yaml").read_text())
    assert list(card) == ["name", "num_classes", "classes", "ignore_index", "notes"]
    assert card["num_classes"] == len(card["classes"]) == len(set(card["classes"])) == len(demo.CLASSES)
    assert card["ignore_index"] == demo.IGNORE
    assert (corpus / ".complete").is_file()


def test_every_label_map_fits_its_picture(corpus):
    for image in sorted((corpus / "images").rglob("*.jpg")):
        label_map = corpus / "labels" / image.parent.name / f"{image.stem}.png"
        with Image.open(image) as picture, Image.open(label_map) as labels:
            assert picture.mode == "RGB"
            assert labels.mode == "L"
            assert picture.size == labels.size
            assert np.asarray(labels).max() < len(demo.CLASSES)  # every pixel is labelled


def test_both_orientations_and_several_sizes(corpus):
    shapes = {labels.shape for split in demo.SPLITS for labels in labels_of(corpus, split)}
    assert any(rows > columns for rows, columns in shapes)
    assert any(rows < columns for rows, columns in shapes)
    assert len(shapes) > 3


@pytest.mark.parametrize("split", demo.SPLITS)
def test_every_category_occurs(corpus, split):
    counts = sum(np.bincount(labels.ravel(), minlength=len(demo.CLASSES)) for labels in labels_of(corpus, split))
    assert dict(zip(demo.CLASSES, counts > 0, strict=True)) == dict.fromkeys(demo.CLASSES, True)
    scenes = [len(np.unique(labels)) for labels in labels_of(corpus, split)]
    assert min(scenes) >= 2
    assert max(scenes) >= 5


def test_labels_follow_the_pixels():
    """In a scene with the night sky, the pixels labelled so are the dark ones."""
    picture, labels = demo_scene.scene(0, "train", RECIPE_OF_STARS)
    stars = labels == demo.CLASSES.index("stars")
    assert stars.any()
    assert np.median(picture[stars]) < 40 < np.median(picture[~stars])


def bounds(quad: demo_sources.Quad) -> tuple[float, float, float, float]:
    xs, ys = zip(*quad, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


@pytest.mark.parametrize("material", demo_sources.MATERIALS, ids=demo.CLASSES)
def test_train_and_val_share_no_source_pixel(material):
    left, top, right, bottom = bounds(material.train)
    other_left, other_top, other_right, other_bottom = bounds(material.val)
    assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
    for split in demo.SPLITS:
        assert min(demo_sources.source_patch(material.name, split).size) > 50


def test_no_two_materials_share_a_source():
    assert len({material.file for material in demo_sources.MATERIALS}) == len(demo_sources.MATERIALS)


@pytest.mark.parametrize("split", demo.SPLITS)
def test_every_coin_is_found(split):
    coins = demo_sources.source_coins(split)
    assert len(coins) == 12
    assert all(15 < radius < 35 for _, _, radius in coins)


def test_mirrored_copies_meet_without_a_seam():
    assert demo_scene._mirror(-3, 12, 4).tolist() == [2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0, 0]


def test_same_seed_same_bytes_another_seed_other_bytes(tmp_path):
    first, second, third = (
        demo.build(tmp_path / str(n), seed=seed, train=3, val=2) for n, seed in enumerate((7, 7, 8))
    )
    assert contents(first) == contents(second)
    changed = {name for name, data in contents(third).items() if contents(first)[name] != data}
    assert changed >= {name for name in contents(first) if name.endswith((".jpg", ".png"))}


def test_a_scene_does_not_depend_on_the_others(corpus, tmp_path):
    small = contents(demo.build(tmp_path, train=2, val=1))
    large = contents(corpus)
    assert all(large[name] == data for name, data in small.items() if name != ".complete")


def test_a_second_call_does_nothing(corpus):
    before = contents(corpus)
    assert demo.build(corpus, train=16, val=8, progress=lambda *_: pytest.fail("it built again")) == corpus
    assert contents(corpus) == before


def test_a_corpus_that_is_there_needs_no_heavy_package(corpus):
    code = """
import json, sys
import json
import subprocess
import sys
from pathlib import Path
from pipeline.datasets.demo.corpus import build
build(Path(sys.argv[1]), train=16, val=8)
print(json.dumps(list(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, str(corpus)], check=True, capture_output=True, text=True)
    assert not {"torch", "scipy", "skimage"} & set(json.loads(done.stdout))


def test_a_half_built_corpus_is_made_again(tmp_path):
    whole = contents(demo.build(tmp_path, train=2, val=1))
    (tmp_path / ".complete").unlink()
    (tmp_path / "images/train/001.jpg").write_bytes(b"torn")
    (tmp_path / "labels/val/000.png").unlink()
    calls: list[tuple[int, int]] = []
    demo.build(tmp_path, train=2, val=1, progress=lambda done, count: calls.append((done, count)))
    assert contents(tmp_path) == whole
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_stopped_build_leaves_no_stamp(tmp_path):
    def stop(done: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.build(tmp_path / "corpus", train=2, val=1, progress=stop)
    assert not (tmp_path / "corpus" / ".complete").exists()
    demo.build(tmp_path / "corpus", train=1, val=0)
    assert (tmp_path / "corpus" / ".complete").exists()


def test_other_arguments_replace_the_corpus(tmp_path):
    demo.build(tmp_path, train=2, val=1)
    demo.build(tmp_path, train=1, val=1)
    assert not [name for name in contents(tmp_path) if "001" in name]


def test_files_of_somebody_else_are_left_alone(tmp_path):
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "images/train/000.jpg").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="not the demo corpus"):
        demo.build(tmp_path, train=1, val=0)
    assert contents(tmp_path) == {"images/train/000.jpg": b"mine"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("recipe", range(len(demo_scene.RECIPES)))
def test_any_seed_makes_a_full_scene(seed, recipe):
    picture, labels = demo_scene.scene(seed + 100, "val", recipe)
    assert picture.shape == (*labels.shape, 3)
    assert picture.dtype == labels.dtype == np.uint8
    assert labels.max() < len(demo.CLASSES)
    assert picture.std() > 10
