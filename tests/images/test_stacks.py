"""Stacks: pages, z, t and c told apart; channels by name; scale from OME, ImageJ and tags."""

import io
from pathlib import Path

import numpy as np
import pytest
import skimage
import tifffile
from image_files import encode, tiff
from raster_files import BANDS, SCENE

from pipeline.artifacts.labels import open_label
from pipeline.core.errors import ConfigError
from pipeline.datasets.folder import scan
from pipeline.images import tiff as tiff_module
from pipeline.images import tiff_stacks
from pipeline.images.files import Memory, stored
from pipeline.images.formats import join_plane, open_image, open_source, planes, split_plane
from pipeline.images.pixels import DecodeError
from pipeline.images.reading import readings
from pipeline.images.source import Source

GREY = BANDS[..., 0]
TZC = np.stack([GREY // n for n in range(1, 13)]).reshape(2, 3, 2, *GREY.shape)
"""(t, z, c, y, x)."""
ALL = [0, 65535]


def opened(data: bytes, channels=None, values=None, plane=None) -> Source:
    return open_image(Memory("a.tif", data), readings(channels, values)[0], plane)


def keys(data: bytes) -> list[dict[str, int]]:
    return [key for key, _, _ in planes(Memory("a.tif", data))]


def ome(image: np.ndarray, axes: str, **metadata) -> bytes:
    return tiff(image, ome=True, photometric="minisblack", metadata={"axes": axes, **metadata})


EIGHT = TZC.astype(np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        tiff(EIGHT, imagej=True),
        ome(EIGHT, "TZCYX"),
        ome(EIGHT.transpose(1, 0, 2, 3, 4), "ZTCYX"),
        ome(EIGHT.transpose(2, 1, 0, 3, 4), "CZTYX"),
        tiff(
            EIGHT, ome=True, photometric="minisblack", metadata={"axes": "TZCYX"}, tile=(64, 64), compression="deflate"
        ),
        tiff(EIGHT, imagej=True, truncate=True),  # one directory for all planes, as ImageJ writes large stacks
        tiff(EIGHT, imagej=True, byteorder="<"),
    ],
    ids=[
        "imagej",
        "ome",
        "ome, z first",
        "ome, c first",
        "ome, tiles",
        "imagej, one directory",
        "imagej, little-endian",
    ],
)
@pytest.mark.parametrize("limit", [100, 10**6])
def test_z_t_and_c_are_told_apart(data, limit, monkeypatch):
    monkeypatch.setattr(tiff_module, "WINDOWED", limit)
    found = keys(data)
    assert sorted((key["t"], key["z"]) for key in found) == [(t, z) for t in range(2) for z in range(3)]
    for key in found:
        for channel in (1, 2):
            image = opened(data, [channel], ALL, key)
            assert len(image.channels) == 2
            assert image.size == GREY.shape
            expected = np.rint(TZC[key["t"], key["z"], channel - 1] / 257).astype(np.uint8)
            assert np.array_equal(image.pixels()[..., 0], expected), key


def test_pages_without_metadata_are_images():
    pages = np.stack([SCENE, 255 - SCENE])
    for options in ({}, {"metadata": None}, {"compression": "deflate", "metadata": None}):
        data = tiff(pages, photometric="rgb", **options)
        assert keys(data) == [{"page": 0}, {"page": 1}]
        for number, page in enumerate(pages):
            assert np.array_equal(opened(data, plane={"page": number}).pixels(), page)


def test_pages_that_are_decoded_whole():
    """A palette and one bit: there is no other way."""
    bits = np.stack([SCENE[..., 0] > 99, SCENE[..., 0] > 200])
    data = tiff(bits, photometric="minisblack", metadata=None)
    for number, page in enumerate(bits):
        assert np.array_equal(opened(data, plane={"page": number}).pixels()[..., 0], page * 255)


def test_a_thumbnail_and_levels_are_no_images():
    sink = io.BytesIO()
    with tifffile.TiffWriter(sink) as file:
        for image, kind in ((SCENE, 0), (SCENE[::2, ::2], 1), (SCENE[::4, ::4], 1), (SCENE[:40, :30], 0)):
            file.write(image.copy(), photometric="rgb", subfiletype=kind, metadata=None)
    assert keys(sink.getvalue()) == [{}]
    assert np.array_equal(opened(sink.getvalue()).pixels(), SCENE)


@pytest.mark.parametrize(("name", "shape"), [("multipage.tif", (15, 10)), ("multipage_rgb.tif", (10, 10))])
def test_samples_of_scikit_image(name, shape):
    data = (Path(skimage.__file__).parent / "data" / name).read_bytes()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = [page.asarray() for page in file.pages]
        pages = [np.moveaxis(page, 0, -1) if page.shape[0] == 3 else page for page in pages]
    found = planes(Memory(name, data))
    assert len(found) == len(pages)
    for number, (key, *size) in enumerate(found):
        image = opened(data, values=[0, 255], plane=key)
        assert tuple(size) == image.size == pages[number].shape[:2]
        shown = image.pixels()
        assert np.array_equal(
            shown if pages[number].ndim == 3 else shown[..., 0], np.rint(pages[number].clip(0, 255)).astype("u1")
        )


def test_names_and_scale_of_ome():
    data = ome(
        EIGHT[0, 0], "CYX", Channel={"Name": ["DAPI & more", "GFP"]}, PhysicalSizeX=0.325, PhysicalSizeY=650.0,
        PhysicalSizeYUnit="nm",
    )  # fmt: skip
    image = opened(data, ["dapi & more", "GFP", "GFP"], ALL)
    assert image.channels == ("DAPI & more", "GFP")
    assert image.pixel_size
    assert image.pixel_size[:2] == pytest.approx((0.325, 0.65))
    assert np.array_equal(image.pixels()[..., 1], np.rint(TZC[0, 0, 1] / 257).astype(np.uint8))


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m"])
def test_scale_of_imagej(unit):
    image = opened(tiff(GREY, imagej=True, resolution=(4.0, 2.0), metadata={"unit": unit}))
    assert image.pixel_size == (0.25, 0.5, "µm")


@pytest.mark.parametrize(
    "sizes", [{"PhysicalSizeX": 0.0, "PhysicalSizeY": 0.0}, {"PhysicalSizeX": 1e30, "PhysicalSizeY": 1e30}]
)
def test_a_scale_that_cannot_be_is_none(sizes):
    assert opened(ome(GREY, "YX", **sizes)).pixel_size is None


def test_planes_are_listed_as_images(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/cells.tif").write_bytes(tiff(EIGHT, imagej=True))
    (tmp_path / "images/one.tif").write_bytes(tiff(SCENE, photometric="rgb"))
    items = scan(str(tmp_path), "images").items
    assert [item.id for item in items] == [*(f"cells#t={t},z={z}.tif" for t in range(2) for z in range(3)), "one.tif"]
    assert {(item.height, item.width) for item in items} == {GREY.shape}
    image = open_source(str(tmp_path), items[4].path, items[4].sha256, items[4].size, readings([2], ALL)[0])
    assert np.array_equal(image.pixels()[..., 0], np.rint(TZC[1, 1, 1] / 257).astype(np.uint8))


def test_a_file_that_is_named_like_a_plane(tmp_path):
    (tmp_path / "a#z=1.tif").write_bytes(tiff(SCENE, photometric="rgb"))
    with pytest.raises(ConfigError, match=r"a#z=1\.tif is that of a plane of a\.tif"):
        scan(str(tmp_path), "images")


@pytest.mark.parametrize("path", ["a.tif", "b/a#1.tif", "a#z=.tif", "a#z=1", "x#z=1/a.tif", "a#Z=1.tif", "a#z=1.png"])
def test_other_names_are_no_planes(path):
    assert split_plane(path) == (path, {})


def test_names_of_planes():
    for path, plane in (("b.c/a.ome.tif", {"t": 0, "z": 12}), ("a.zarr", {"series": 3})):
        assert split_plane(join_plane(path, plane)) == (path, plane)
    assert join_plane("a.tif", {}) == "a.tif"


def test_the_planes_of_a_label_map(tmp_path):
    """Each is the label of the image of the same keys, and so is a PNG of that name."""
    labels = (EIGHT[0, :, 0] // 2000).astype(np.uint8)
    for name in ("images/cells.tif", "labels/cells.tif", "labels/other#z=1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "images/cells.tif").write_bytes(tiff(EIGHT[0, :, 0], imagej=True, metadata={"axes": "ZYX"}))
    (tmp_path / "labels/other#z=1.png").write_bytes(encode(labels[0], "PNG"))
    for options in ({}, {"truncate": True}):
        data = tiff(labels, imagej=True, metadata={"axes": "ZYX"}, **options)
        (tmp_path / "labels/cells.tif").write_bytes(data)
        items = scan(str(tmp_path), "labels").items
        assert [item.id for item in items] == [*(f"cells#z={z}.tif" for z in range(3)), "other#z=1.png"]
        for label, item in zip((*labels, labels[0]), items, strict=True):
            assert np.array_equal(open_label(str(tmp_path), item.path, item.sha256, item.size), label)


def test_too_many_planes_are_refused(monkeypatch):
    monkeypatch.setattr(tiff_stacks, "MOST", 5)
    for data in (tiff(EIGHT, imagej=True), tiff(EIGHT[0, :, :, :9, :9].reshape(6, 9, 9), metadata=None)):
        with pytest.raises(DecodeError, match=r"^a\.tif: has (more than )?\d+ planes"):
            planes(Memory("a.tif", data))


def test_a_stack_cut_short():
    data = tiff(EIGHT, imagej=True, truncate=True)
    for read in (planes, open_image):
        with pytest.raises(DecodeError, match=r"^a\.tif: cut short: 1 of the 12 planes"):
            read(Memory("a.tif", data[:-100]))


def test_ome_names_no_other_file(tmp_path):
    """OME's metadata may say that planes lie in other files."""
    first, second = tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"
    tifffile.imwrite(second, EIGHT[0, 1, 0], photometric="minisblack")
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image '
        'ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="221" SizeY="150" SizeZ="2" '
        'SizeC="1" SizeT="1"><TiffData FirstZ="0" IFD="0"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData FirstZ="1" IFD="0"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(first, EIGHT[0, 0, 0], photometric="minisblack", description=text, metadata=None)
    file = stored(str(tmp_path), "a.ome.tif")
    for read in (planes, open_image):
        with pytest.raises(DecodeError, match=r"^a\.ome\.tif: is one of several files of an OME image, of 2 planes"):
            read(file)
