"""COCO, panoptic, CVAT, Label Studio, FiftyOne: read back by pycocotools, or by the rules of the tool that opens them.

The tools of CVAT (datumaro), Label Studio (label-studio-converter) and FiftyOne need older versions of what stegoflow
needs. They have read these files in environments of their own; here the same is read by their rules.
"""

import ast
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from written import LEGEND, MANY, NAMES, blobs, facts, write_maps

from pipeline.terminal import visible
from pipeline.writers.interface import Legend
from pipeline.writers.label_studio import MOST, pack

MAPS = {"a/first": blobs(90, 120), "second": blobs(60, 50, seed=1, cells=4), "empty": np.full((8, 9), 255, np.uint8)}


@pytest.fixture
def written(tmp_path: Path):
    def write(format: str, legend: Legend = LEGEND, maps: dict[str, np.ndarray] = MAPS) -> Path:
        write_maps(format, tmp_path, [(facts(name), ids) for name, ids in maps.items()], legend)
        return tmp_path

    return write


def number_map(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode in ("L", "I;16"), "one channel"
        return np.asarray(image)


def from_one(ids: np.ndarray, nothing: int = 255) -> np.ndarray:
    return np.where(ids == nothing, 0, ids.astype(int) + 1)


# COCO ----------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools and NumPy 2
def test_pycocotools_reads_the_masks(written):
    coco = COCO(written("coco") / "annotations.json")
    assert [coco.cats[number]["name"] for number in range(1, 9)] == NAMES
    assert [coco.cats[number]["color"] for number in range(1, 9)] == LEGEND.colours.tolist()
    assert coco.dataset["info"]["run"] == "20261126-0000"
    assert [image["file_name"] for image in coco.imgs.values()] == [f"{name}.png" for name in MAPS]
    for at, ids in enumerate(MAPS.values(), 1):
        image = coco.imgs[at]
        assert (image["height"], image["width"]) == ids.shape
        again = np.zeros(ids.shape, int)
        for found in coco.loadAnns(coco.getAnnIds(imgIds=[at])):
            mask = coco.annToMask(found).astype(bool)
            again[mask] = found["category_id"]
            assert found["area"] == mask.sum()
            assert found["iscrowd"] == 1
            assert isinstance(found["segmentation"]["counts"], str)
            y, x = np.nonzero(mask)
            assert found["bbox"] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
        np.testing.assert_array_equal(again, from_one(ids))
    assert len(coco.anns) == len({found["id"] for found in coco.anns.values()})


@pytest.mark.parametrize("legend", [LEGEND, MANY])
def test_a_panoptic_png_holds_the_ids_of_its_segments(written, legend: Legend):
    ids = blobs(90, 120, len(legend.names), cells=20)
    out = written("panoptic", legend, {"a/first": ids})
    content = json.loads((out / "panoptic.json").read_text(encoding="utf-8"))
    (annotation,) = content["annotations"]
    colours = np.asarray(Image.open(out / "panoptic" / annotation["file_name"])).astype(int)
    values = colours @ (1, 256, 65536)
    np.testing.assert_array_equal(values, from_one(ids, legend.nothing))
    segments = {row["id"]: row for row in annotation["segments_info"]}
    assert set(segments) == set(np.unique(values)) - {0}
    for number, row in segments.items():
        y, x = np.nonzero(values == number)
        assert row["category_id"] == number
        assert (row["area"], row["iscrowd"]) == (len(y), 0)
        assert row["bbox"] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
    assert [row["id"] for row in content["categories"]] == list(range(1, len(legend.names) + 1))
    assert {row["isthing"] for row in content["categories"]} == {0}


# CVAT ----------------------------------------------------------------------------------------------------------------


def label_map(file: ZipFile) -> dict[str, tuple[int, ...]]:
    """As datumaro parses it: four fields a line, no name twice."""
    found: dict[str, tuple[int, ...]] = {}
    for line in file.read("labelmap.txt").decode().split("\n"):
        if line.strip() and not line.startswith("#"):
            name, colour, parts, actions = line.strip().split(":")
            assert (name not in found, parts, actions) == (True, "", "")
            found[name] = tuple(map(int, colour.split(",")))
    return found


def test_cvat_gets_indices_of_its_label_map(written):
    with ZipFile(written("cvat") / "cvat.zip") as file:
        labels = label_map(file)
        wanted = [re.sub("[:\n]", "_", name) for name in NAMES[:-1]]
        assert list(labels) == ["background", *wanted, "low (2)"]
        assert list(labels.values()) == [(0, 0, 0), *map(tuple, LEGEND.colours.tolist())]
        assert file.read("ImageSets/Segmentation/default.txt").decode().splitlines() == list(MAPS)
        masks = {f"SegmentationClass/{name}.png" for name in MAPS}
        assert set(file.namelist()) == {"labelmap.txt", "ImageSets/Segmentation/default.txt", *masks}
        for name, ids in MAPS.items():
            with file.open(f"SegmentationClass/{name}.png") as image:
                np.testing.assert_array_equal(np.asarray(Image.open(image)), from_one(ids))


def test_cvat_reads_a_line_an_image(written):
    with ZipFile(written("cvat", maps={"new\nline": MAPS["second"]}) / "cvat.zip") as file:
        assert file.read("ImageSets/Segmentation/default.txt") == b"new_line\n"
        assert "SegmentationClass/new_line.png" in file.namelist()


def test_cvat_gets_colours_where_there_are_more_classes_than_a_byte_holds(written):
    colours = MANY.colours.copy()
    colours[7], colours[9] = colours[3], 0  # two alike, and one that looks like the background
    legend = Legend(MANY.names, MANY.nothing, colours)
    ids = blobs(90, 120, 300, cells=20)
    with ZipFile(written("cvat", legend, {"x": ids}) / "cvat.zip") as file:
        labels = list(label_map(file).values())
        assert len(set(labels)) == len(labels) == 301
        with file.open("SegmentationClass/x.png") as image:
            painted = np.asarray(Image.open(image))
    np.testing.assert_array_equal(painted, np.array(labels)[from_one(ids, 65535)])


# Label Studio --------------------------------------------------------------------------------------------------------


def unpack(data: list[int]) -> np.ndarray:
    """@thi.ng/rle-pack, as Label Studio's editor reads it."""
    bits = iter("".join(f"{byte:08b}" for byte in data))

    def read(width: int) -> int:
        return int("".join(next(bits) for _ in range(width)), 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        repeated, size = read(1), sizes[read(2)]
        count = read(size) + 1
        out += [read(word)] * count if repeated else [read(word) for _ in range(count)]
    return np.array(out)


def test_masks_are_packed_as_label_studio_packs_them():
    """What label-studio-converter 0.0.59 (`brush.encode_rle`) makes of two masks; a last byte of zeros is its own."""
    small = np.zeros((5, 7), bool)
    small[1:3, 2:5] = small[4, 0] = small[0, 6] = True
    theirs = [0, 0, 0, 140, 57, 27, 254, 23, 0, 143, 254, 112, 11, 127, 247, 192, 45, 255, 226, 48, 8, 255, 240, 184, 0]
    assert [*pack(small), 0][: len(theirs)] == theirs
    tall = np.zeros((200, 200), bool)
    tall[50:180] = True
    theirs = [0, 2, 113, 0, 57, 27, 255, 156, 63, 0, 255, 255, 255, 254, 88, 255, 255, 159, 63, 128, 0]
    assert [*pack(tall), 0][: len(theirs)] == theirs


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 300))
def test_any_mask_is_unpacked_again(seed: int, height: int, width: int):
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.random((height, 1 + width // 9)) < 0.4, 9, 1)[:, :width]
    again = unpack(pack(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(again, np.repeat(mask[..., None] * 255, 4, -1))


def test_label_studio_gets_tasks_with_predictions(written):
    out = written("label-studio")
    tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
    view = ElementTree.fromstring((out / "config.xml").read_text(encoding="utf-8"))
    labels = [(row.get("value"), row.get("background")) for row in view.iter("Label")]
    names = [visible(name) for name in [*NAMES[:-1], "low (2)"]]
    assert labels == [(name, LEGEND.css(number)) for number, name in enumerate(names)]
    tag, image_tag = view.find("BrushLabels"), view.find("Image")
    for task, (name, ids) in zip(tasks, MAPS.items(), strict=True):
        assert task["data"] == {"image": f"/data/local-files/?d=images/val/{name}.png"}
        (prediction,) = task["predictions"]
        again = np.full(ids.shape, 255)
        for row in prediction["result"]:
            assert (row["type"], row["from_name"], row["to_name"]) == (
                "brushlabels",
                tag.get("name"),
                image_tag.get("name"),
            )
            assert (row["original_height"], row["original_width"]) == ids.shape
            mask = unpack(row["value"]["rle"]).reshape(*ids.shape, 4)[..., 3] > 0
            again[mask] = names.index(*row["value"]["brushlabels"])
        np.testing.assert_array_equal(again, ids)


def test_label_studio_gets_fewer_regions_than_its_editor_bears(written, caplog):
    ids = np.sort(np.arange(300, dtype=np.uint16).repeat(7))[None].repeat(3, 0)
    ids[0, :] = 250
    (task,) = json.loads((written("label-studio", MANY, {"x": ids}) / "tasks.json").read_text())
    result = task["predictions"][0]["result"]
    assert len(result) == MOST
    assert ["class 250"] in [row["value"]["brushlabels"] for row in result], "the largest"
    assert "the 99 largest of 300 classes" in caplog.text


# FiftyOne ------------------------------------------------------------------------------------------------------------


def test_fiftyone_gets_masks_without_class_0(written):
    out = written("fiftyone")
    for name, ids in MAPS.items():
        np.testing.assert_array_equal(number_map(out / f"labels/{name}.png"), from_one(ids))
    targets = json.loads((out / "mask_targets.json").read_text(encoding="utf-8"))
    assert targets == {str(number): name for number, name in enumerate(NAMES, 1)}
    script = (out / "load.py").read_text()
    ast.parse(script)
    assert not any(name in script for name in NAMES[1:6]), "no name is code"


def test_fiftyone_gets_16_bits_where_there_are_more_classes(written):
    ids = blobs(90, 120, 300, cells=20)
    np.testing.assert_array_equal(
        number_map(written("fiftyone", MANY, {"x": ids}) / "labels/x.png"), from_one(ids, 65535)
    )
