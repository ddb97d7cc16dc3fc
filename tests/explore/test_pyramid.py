"""A large image in the explorer: a pyramid of pieces in the browser, and fewer patches than there are."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from corpora import picture, small
from explorer_page import saved, until
from PIL import Image
from raster_files import geotiff

from pipeline import annotations
from pipeline.api import run
from pipeline.artifacts.annotation import Annotation
from pipeline.config import validate
from pipeline.cuts import predictor
from pipeline.explore import corpus, indexing
from pipeline.explore.packing import thinned
from pipeline.explore.server import Explorer
from pipeline.images.pixels import resize
from pipeline.stages import search

SIZE = 2200, 2700
FEW = 3000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, vit: Path) -> Iterator[Explorer]:
    """A server of a run with two small images and a large one, row 2. An image of more than 3000 patches is thinned."""
    root = tmp_path_factory.mktemp("large")
    folder = root / "data/images/train"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(picture(number, (320, 320))[0]).save(folder / f"{number}.png")
    scene = resize(picture(5, (110, 135))[0], *SIZE)
    geotiff(folder / "scene.tif", scene, tiled=True, blockxsize=256, blockysize=256)
    views = {"kind": "sliding", "size": [320, 320]}
    sections = {"features": {"views": views}, "clusters": {"k": 3, "prototypes": 8}, "masks": {"crf": False}}
    found = run(validate(small(root / "data", root / "store", vit, **sections)), until="masks")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(corpus, "HELD", FEW)
        patched.setattr(indexing, "HELD", FEW)
        patched.setattr(search, "BAND", FEW)
        patched.setattr("pipeline.explore.packing.HELD", FEW)
        server = Explorer(found.store, found.record).start()
        server.service.corpus.indexing.wait()
        yield server
        server.close()


def test_a_large_image_is_looked_at_to_its_pixels_and_taught(large, open_page):
    page = open_page("#/image/2", url=large.url)
    source = large.service.corpus.source(2)
    until(page, "document.querySelector('.title').title.includes('2700 × 2200')")
    box = page.locator("canvas.picture").bounding_box()
    x, y = box["x"] + 0.6 * box["width"], box["y"] + 0.45 * box["height"]
    page.keyboard.press("p")
    page.mouse.move(x, y)
    for _ in range(9):
        page.mouse.wheel(0, -150)
    page.keyboard.press("h")
    page.wait_for_timeout(1500)
    fit = min((box["width"] - 32) / SIZE[1], (box["height"] - 32) / SIZE[0])
    scale, closer = fit * np.exp(9 * 150 / 400), np.exp(9 * 150 / 400)
    left, top = (
        at - (at - (length - side * fit) / 2) * closer
        for at, length, side in ((x - box["x"], box["width"], SIZE[1]), (y - box["y"], box["height"], SIZE[0]))
    )
    assert scale > 2
    row, column = (int((at - start) / scale) for at, start in ((y - box["y"], top), (x - box["x"], left)))
    seen = page.evaluate(PIXEL, [x - box["x"] + 20, y - box["y"] + 20])
    wanted = source.read((row + 20 / scale - 2, column + 20 / scale - 2, 4, 4), (1, 1))[0, 0]
    assert np.abs(np.array(seen[:3], int) - wanted).max() < 25

    page.keyboard.press("t")
    page.mouse.click(x, y)
    page.locator("dialog input").fill("thing")
    page.keyboard.press("Enter")
    saved(page)
    found = annotations.newest(large.service.store, large.service.record)
    assert found is not None
    (point,) = found[1].points
    assert abs(point.y - row) <= 1
    assert abs(point.x - column) <= 1
    annotations.save(large.service.store, large.service.record, Annotation())


def test_every_patch_of_a_large_image_is_found_though_the_page_gets_fewer(large):
    found = large.service.corpus
    rows, columns = found.indexing.shape(2)
    assert found.plane(2)["shape"].tolist() == [rows, columns]
    assert len(found.plane(2)["scale"]) == rows * columns > 4 * FEW
    some = thinned(rows, columns, FEW)[1]
    assert found.nearest(2).shape == some.shape == found.codes(2).shape[:2]
    assert some.size <= FEW
    code = found.code(2, 1100, 1300, SIZE)
    exact = found.indexing.planes(2)[1][1100 * rows // SIZE[0], 1300 * columns // SIZE[1]]
    np.testing.assert_allclose(code, exact, atol=1e-5)
    place = large.service.find(0, 3, 3, 3)[-1]
    assert place["y"] < rows
    assert place["x"] < columns


def test_pieces_have_the_groups_of_the_masks(large):
    """At the image's own pixels, from the tokens near a piece alone."""
    found = large.service.corpus
    piece = found.prototype_tile(2, (0, 1, 2))
    predict, images, _ = predictor(large.service.store, large.service.record, len(found.clusters.vectors))
    kept = slice(512, 1024), slice(1024, 1536)
    wanted = found.clusters.cut(len(found.clusters.vectors)).nodes[predict(2, images.row(2), None)[0][kept]]
    assert (piece == wanted).mean() > 0.999
    assert len(np.unique(piece)) > 1
    assert found.prototype_tile(2, (2, 1, 1)).shape == (38, 163)


PIXEL = """([x, y]) => [...document.querySelector('canvas.picture').getContext('2d').getImageData(x, y, 1, 1).data]"""
