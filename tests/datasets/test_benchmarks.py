"""The published benchmarks: what is listed, what stored labels mean, what is said of missing pieces, and a run each."""

import io
import json
import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from benchmark_trees import IGNORED, STORED, TRAIN, VAL, write_benchmark
from corpora import picture, small
from image_files import size
from scipy.io import loadmat, savemat

from pipeline import configs
from pipeline.api import run
from pipeline.artifacts.labels import LabelMaps
from pipeline.cli.doctor import examine
from pipeline.config import load, validate
from pipeline.core.errors import ConfigError, StageError
from pipeline.core.store import Store
from pipeline.datasets import benchmarks, folder
from pipeline.datasets.benchmarks import cocostuff27, listing, potsdam3
from pipeline.datasets.benchmarks.layouts import to_classes
from pipeline.exporting import export
from pipeline.images import files
from pipeline.images.formats import decode, decode_label
from pipeline.images.pixels import DecodeError
from pipeline.planning import plan
from pipeline.stages.dataset import DatasetParams

NAMES = {"cocostuff27": "cocostuff", "cityscapes27": "cityscapes", "potsdam3": "potsdam"}
LAYOUTS = sorted(NAMES)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tree of each layout. Read only."""
    return {layout: write_benchmark(tmp_path_factory.mktemp(layout), layout) for layout in LAYOUTS}


def listed(root: Path, layout: str, kind: str = "images") -> list[tuple[str, str, str]]:
    return [(item.split, item.id, item.path) for item in folder.scan(str(root), kind, layout=layout).items]


def test_every_layout_has_an_adapter():
    assert set(get_args(DatasetParams.model_fields["layout"].annotation)) == {"folder", *benchmarks.LAYOUTS} == {
        "folder", *LAYOUTS
    }  # fmt: skip


# Listing --------------------------------------------------------------------------------------------------------------


def test_cocostuff_is_what_its_lists_name(trees):
    def rows(kind: str, suffix: str) -> list[tuple[str, str, str]]:
        train = [("train", f"{n:012d}", f"cocostuff/{kind}/train2017/{n:012d}{suffix}") for n in range(TRAIN)]
        return [*train, ("val", f"{7:012d}", f"cocostuff/{kind}/val2017/{7:012d}{suffix}")]

    assert listed(trees["cocostuff27"], "cocostuff27") == rows("images", ".jpg")
    assert listed(trees["cocostuff27"], "cocostuff27", "labels") == rows("annotations", ".png")


def test_cityscapes_is_sorted_and_joined_by_stem(trees):
    found = listed(trees["cityscapes27"], "cityscapes27")
    assert [name for split, name, _ in found if split == "train"] == [
        "aachen/aachen_000001_000019", "aachen/aachen_000003_000019", "aachen/aachen_000005_000019",
        "bonn/bonn_000000_000019", "bonn/bonn_000002_000019", "bonn/bonn_000004_000019",
    ]  # fmt: skip
    assert found[0][2] == "cityscapes/leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png"
    labels = listed(trees["cityscapes27"], "cityscapes27", "labels")
    assert [row[:2] for row in labels] == [row[:2] for row in found]
    assert labels[0][2] == "cityscapes/gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png"
    assert len(found) == TRAIN + VAL


def test_potsdam_is_its_labelled_tiles(trees):
    found = listed(trees["potsdam3"], "potsdam3")
    wanted = [("train", str(n)) for n in range(TRAIN)] + [("val", str(n)) for n in range(TRAIN, TRAIN + VAL)]
    assert [row[:2] for row in found] == wanted
    assert found[0][2] == "potsdam/imgs/0.mat"
    assert listed(trees["potsdam3"], "potsdam3", "labels")[0][2] == "potsdam/gt/0.mat"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_root_may_be_the_benchmark_itself(layout: str, trees):
    inside = listed(trees[layout] / NAMES[layout], layout)
    assert [(split, id, f"{NAMES[layout]}/{path}") for split, id, path in inside] == listed(trees[layout], layout)


def test_a_store_of_objects_is_listed_alike(trees, monkeypatch):
    """As on S3: no path of a disk is used, only the calls of `Store`."""
    wanted = {layout: listed(trees[layout], layout) for layout in LAYOUTS}
    monkeypatch.setattr(files, "local_folder", lambda root: None)
    for layout in LAYOUTS:
        assert listed(trees[layout], layout) == wanted[layout]
        assert folder.has_labels(str(trees[layout]), layout)


def test_a_shorter_list_is_taken_and_said(tmp_path, make_config, caplog):
    root = write_benchmark(tmp_path / "root", "cocostuff27")
    (root / "cocostuff/curated/train2017/Coco164kFull_Stuff_Coarse.txt").unlink()
    assert [id for split, id, _ in listed(root, "cocostuff27") if split == "train"] == [f"{n:012d}" for n in (1, 3, 5)]
    with caplog.at_level(logging.WARNING, "stegoflow"):
        plan(make_config(root=root, dataset={"layout": "cocostuff27"}))
    (said,) = caplog.messages
    assert said == listing.notes(str(root), "cocostuff27")[0]
    assert "Coarse.txt is missing: train is the 3 images of" in said
    assert "Coarse_7.txt, not the published set" in said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_complete_tree_lacks_nothing(layout: str, trees):
    assert listing.shortcomings(str(trees[layout]), layout) == []
    assert listing.notes(str(trees[layout]), layout) == []


# Labels ---------------------------------------------------------------------------------------------------------------


def test_the_label_map_of_cocostuff():
    """Against the published check sums."""
    wanted = [6, 6, 10, 10, 8, 8, 8, 10, 6, 1, 10, 8, 2, 6, 4, 11, 4, 11, 7, 2, 6, 11, 9, 2, 6, 5, 5]
    counts = Counter(cocostuff27.COARSE)
    assert [counts[number] for number in range(27)] == wanted
    assert len(cocostuff27.COARSE) == sum(wanted) == 182


@pytest.mark.parametrize("layout", LAYOUTS)
def test_classes_are_named_and_all_in_use(layout: str):
    known = benchmarks.LAYOUTS[layout]
    assert len(set(known.classes)) == len(known.classes) == {"potsdam3": 3}.get(layout, 27)
    assert set(known.coarse.values()) == set(range(len(known.classes)))


@pytest.mark.parametrize(
    ("layout", "stored", "wanted"),
    [
        ("cocostuff27", [0, 1, 9, 91, 93, 147, 156, 179, 181, 182, 254, 255], [9, 11, 8, 17, 22, 26, 23, 19, 24]),
        ("cityscapes27", [7, 8, 11, 23, 24, 33, 0, 6, 34, 255, -1], [0, 1, 4, 16, 17, 26]),
        ("potsdam3", [0, 4, 1, 5, 2, 3, 6, 255, -1], [0, 0, 1, 1, 2, 2]),
    ],
)  # fmt: skip
def test_stored_labels_become_classes_or_255(layout: str, stored: list[int], wanted: list[int]):
    pairs = folder.read_description("nowhere", layout)["coarse"]
    found = to_classes(np.asarray([stored], np.int32), pairs)
    assert found.dtype == np.int32
    assert found.tolist() == [wanted + [255] * (len(stored) - len(wanted))]


# MATLAB files ---------------------------------------------------------------------------------------------------------


def mat(**variables) -> bytes:
    sink = io.BytesIO()
    savemat(sink, variables, do_compression=True)
    return sink.getvalue()


def test_a_tile_is_its_first_three_channels(trees):
    image, _ = picture(0, (40, 40))
    data = (trees["potsdam3"] / "potsdam/imgs/0.mat").read_bytes()
    found = decode(data, "0.mat")
    assert found.dtype == np.uint8
    assert np.array_equal(found, image)
    assert size(data, "0.mat") == (40, 40)


def test_a_label_tile_holds_what_was_stored(trees):
    data = (trees["potsdam3"] / "potsdam/gt/0.mat").read_bytes()
    found = decode_label(data, "0.mat")
    assert found.dtype == np.int32
    assert np.array_equal(found, loadmat(io.BytesIO(data))["gt"])
    assert set(np.unique(found)) == {*STORED["potsdam3"], 255}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(1000), "cannot be decoded"),
        (mat(img=np.ones((2, 2, 4), np.uint8))[:150], "cannot be decoded"),
        (mat(other=np.ones((2, 2, 4), np.uint8)), "no variable img"),
        (mat(img=np.ones((2, 2, 4))), "no variable img of type uint8"),
        (mat(img={"a": 1}), "no variable img of type uint8"),
        (mat(img=np.array(["a", {"b": 2}], object)), "no variable img of type uint8"),
        (mat(img=np.ones((2, 2), np.uint8)), "shape"),
        (mat(img=np.ones((0, 2, 3), np.uint8)), "no integers"),
        (bytes(potsdam3.MAX_BYTES + 1), "more than a tile has"),
        (mat(img=np.zeros((1000, 1000, 4), np.uint8)), "more than a tile has"),
    ],
)
def test_what_is_no_tile_is_refused(data: bytes, why: str):
    for function in (decode, size):
        with pytest.raises(DecodeError, match=rf"a\.mat: .*{why}"):
            function(data, "a.mat")


def test_what_is_no_label_tile_is_refused():
    for value in (np.ones((2, 2)), np.ones((2, 2, 1, 2), np.int32), {"a": 1}):
        with pytest.raises(DecodeError, match=r"a\.mat"):
            decode_label(mat(gt=value), "a.mat")


def test_a_folder_of_images_lists_no_matlab_file(trees):
    with pytest.raises(ConfigError, match="no image under"):
        folder.scan(str(trees["potsdam3"]), "images")


# Missing pieces -------------------------------------------------------------------------------------------------------

PIECES = {
    "cocostuff27": {
        "images/train2017": "train2017.zip",
        "images/val2017": "val2017.zip",
        "images/val2017/000000000007.jpg": "val2017.zip",
        "annotations/val2017/000000000007.png": "stuffthingmaps_trainval2017.zip",
        "curated/val2017/Coco164kFull_Stuff_Coarse_7.txt": "can be rebuilt from the labels",
        "curated/train2017": "no COCO download holds them",
    },
    "cityscapes27": {
        "leftImg8bit/train": "leftImg8bit_trainvaltest.zip",
        "leftImg8bit/val": "leftImg8bit_trainvaltest.zip",
        "gtFine/val/bonn/bonn_000006_000019_gtFine_labelIds.png": "gtFine_trainvaltest.zip",
    },
    "potsdam3": {
        "imgs": "cannot be rebuilt",
        "imgs/3.mat": "cannot be rebuilt",
        "gt/3.mat": "prepared archive",
        "labelled_train.txt": "cannot be rebuilt from the ISPRS download",
        "labelled_test.txt": "cannot be rebuilt from the ISPRS download",
    },
}


@pytest.mark.parametrize(("layout", "piece"), [(layout, piece) for layout in LAYOUTS for piece in PIECES[layout]])
def test_a_missing_piece_is_named_with_what_to_do(layout: str, piece: str, trees, tmp_path):
    root = shutil.copytree(trees[layout], tmp_path / "root")
    gone = root / NAMES[layout] / piece
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    (lacking,) = listing.shortcomings(str(root), layout)
    assert lacking[0] == "error"
    assert f"{NAMES[layout]}/{piece}" in lacking[1]
    kind = "labels" if piece.startswith(("annotations", "gt")) else "images"
    with pytest.raises(ConfigError) as error:
        folder.scan(str(root), kind, layout=layout)
    assert f"{NAMES[layout]}/{piece}" in error.value.message
    assert layout in error.value.message
    assert PIECES[layout][piece] in error.value.next


@pytest.mark.parametrize("top", ["gtFine/train", "gtFine/val"])
def test_a_split_without_labels_is_a_warning(top: str, trees, tmp_path, vit):
    root = shutil.copytree(trees["cityscapes27"], tmp_path / "root")
    shutil.rmtree(root / "cityscapes" / top)
    ((state, what, _),) = listing.shortcomings(str(root), "cityscapes27")
    assert (state, what) == ("warning", f"cityscapes/{top}: no label map, so no scores and no probe of it")
    config = validate(small(root, tmp_path / "store", vit, dataset={"layout": "cityscapes27"}))
    assert ("probe" in {row.stage for row in plan(config)}) == (top == "gtFine/val")


def test_an_id_in_both_lists_is_refused(tmp_path):
    root = write_benchmark(tmp_path / "root", "potsdam3")
    (root / "potsdam/labelled_test.txt").write_text("7\n2\n\n7\n")
    with pytest.raises(ConfigError, match="1 ids are in train and in val, first 2"):
        folder.scan(str(root), "images", layout="potsdam3")


def test_a_list_cannot_lead_out_of_the_root(tmp_path):
    root = write_benchmark(tmp_path / "root", "potsdam3")
    shutil.copy(root / "potsdam/imgs/0.mat", tmp_path / "0.mat")
    (root / "potsdam/labelled_test.txt").write_text("../../../0\n")
    with pytest.raises(ConfigError, match="1 of the 1 images of"):
        folder.scan(str(root), "images", layout="potsdam3")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_doctor_lists_all_that_an_empty_folder_lacks(layout: str, tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps({"dataset": {"root": str(tmp_path), "layout": layout}}))
    found = [line for line in examine(str(tmp_path / "config.yaml"), str(tmp_path / "store")) if line.what == "dataset"]
    said = " ".join(line.found for line in found)
    pieces = {
        "cocostuff27": [
            *(f"{kind}/{split}2017" for kind in ("images", "annotations") for split in ("train", "val")),
            "curated/train2017/Coco164kFull_Stuff_Coarse.txt",
            "curated/val2017/Coco164kFull_Stuff_Coarse_7.txt",
        ],
        "cityscapes27": [f"{kind}/{split}" for kind in ("leftImg8bit", "gtFine") for split in ("train", "val")],
        "potsdam3": ["imgs", "labelled_train.txt", "labelled_test.txt", "gt"],
    }[layout]
    for piece in pieces:
        assert f" {NAMES[layout]}/{piece}" in said
    assert {line.state for line in found} == {"error", "warning"}
    assert all(line.next for line in found)
    assert len({line.found for line in found}) == len(found), "nothing is said twice"
    if layout != "cityscapes27":
        assert any("rebuilt" in line.next for line in found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_doctor_is_content_with_a_complete_tree(layout: str, trees, tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps({"dataset": {"root": str(trees[layout]), "layout": layout}}))
    (line,) = [
        line for line in examine(str(tmp_path / "config.yaml"), str(tmp_path / "store")) if line.what == "dataset"
    ]
    assert line.state == "ok"
    assert line.found.endswith("images in train, val")


# Runs and presets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_is_scored_in_the_benchmarks_classes(layout: str, trees, vit: Path, tmp_path):
    root = trees[layout]
    config = validate(small(root, tmp_path / "store", vit, dataset={"layout": layout}, clusters={"k": 3}))
    result = run(config)
    found = result.artifact("scores").read_json("scores.json")
    classes = benchmarks.LAYOUTS[layout].classes
    assert found["classes"] == list(classes)
    for method in ("cluster", "cluster_crf", "linear", "linear_tokens", "baseline"):
        assert 0 <= found["scores"][method]["accuracy"] <= 100
        assert len(found["scores"][method]["iou"]) == len(classes)
    val = 1 if layout == "cocostuff27" else VAL
    assert found["images"] == val
    assert result.artifact("dataset").manifest["splits"] == {"train": TRAIN, "val": val}

    maps = LabelMaps(result.artifact("labels"), str(root))
    items = folder.scan(str(root), "images", layout=layout).items
    for item in items:
        label = maps.read(item._asdict())
        assert label is not None
        assert label.shape == (item.height, item.width)
        coarse = benchmarks.LAYOUTS[layout].coarse
        assert set(np.unique(label)) <= {255, *(coarse[stored] for stored in STORED[layout])}
        assert (label[0] == 255).all(), f"{IGNORED[layout]} is no class"
    val_labels = [maps.read(item._asdict()) for item in items if item.split == "val"]
    assert sum(map(sum, found["confusion"]["cluster"])) == sum((label != 255).sum() for label in val_labels)

    assert {row.action for row in plan(config)} == {"reuse"}
    assert export(Store(config.store), "latest", tmp_path / "out", crf=True)["written"] == val


def test_a_benchmark_without_labels_has_no_scores(tmp_path, vit):
    root = write_benchmark(tmp_path / "root", "cityscapes27", labels=False)
    stages = {
        row.stage for row in plan(validate(small(root, tmp_path / "store", vit, dataset={"layout": "cityscapes27"})))
    }
    assert not stages & {"labels", "probe"}
    states = [state for state, _, _ in listing.shortcomings(str(root), "cityscapes27")]
    assert states == ["warning", "warning"]


def test_labels_decide_nothing_but_scores_and_probe(tmp_path, vit, trees):
    bare = shutil.copytree(trees["potsdam3"], tmp_path / "bare")
    shutil.rmtree(bare / "potsdam/gt")
    names = [
        {
            row.stage: row.fingerprint
            for row in plan(validate(small(r, tmp_path / "s", vit, dataset={"layout": "potsdam3"})))
        }
        for r in (trees["potsdam3"], bare)
    ]
    same = {stage for stage in names[1] if names[0][stage] == names[1][stage]}
    assert same == {"dataset", "features", "neighbours", "head", "clusters", "baseline", "masks"}


def test_a_label_of_another_size_is_an_error(tmp_path, vit):
    root = write_benchmark(tmp_path / "root", "potsdam3")
    savemat(root / "potsdam/gt/7.mat", {"gt": np.zeros((4, 4), np.int32)})
    with pytest.raises(StageError, match=r"the label of potsdam/imgs/7\.mat is 4×4, the image 40×40"):
        run(validate(small(root, tmp_path / "store", vit, dataset={"layout": "potsdam3"})))


PUBLISHED = {  # backbone, K, code, weights, shifts
    "cocostuff27": ("vit_small_patch8_224.dino", 27, 70, (0.67, 0.25, 0.63), (0.08, 0.02, 0.66), "crops"),
    "cityscapes27": ("vit_base_patch8_224.dino", 27, 100, (1.0, 0.577, 0.906), (0.458, 0.175, 0.314), "crops"),
    "potsdam3": ("vit_small_patch8_224.dino", 3, 70, (0.67, 0.25, 0.63), (0.08, 0.02, 0.46), "whole"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_preset_holds_the_published_settings(layout: str):
    config = load(configs.path(layout))
    head = config.head
    assert (head.method, config.masks.upsampling) == ("stego", "bilinear")
    assert config.dataset.layout == layout
    assert PUBLISHED[layout] == (
        config.features.backbone,
        config.clusters.k,
        head.code,
        (head.weight_self, head.weight_neighbours, head.weight_random),
        (head.shift_self, head.shift_neighbours, head.shift_random),
        config.features.views.kind,
    )
    assert (head.steps, head.batch, head.learning_rate, head.schedule) == (5000, 16, 5e-4, "constant")
    assert (head.samples, head.negatives, head.dropout, head.center) == (11, 5, 0.1, "none")
    assert (config.masks.crf, config.masks.splits, config.neighbours.k) == (True, ["val"], 7)
