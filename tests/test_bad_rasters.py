"""Odd rasters, slides and stacks, one test per row of the table of docs/bad-input.md, through the command line."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from corpora import picture
from image_files import tiff
from raster_files import geotiff, ome_zarr, slide
from rasterio.transform import Affine
from test_bad_input import Exported, case, refused, row, run_and_export, stegoflow, write_config

from pipeline.artifacts.features import view_pieces

BODY = picture(3, (80, 112))[0]
DEEP = BODY.astype(np.uint16) * 40 + 7
PLANES = np.ascontiguousarray(DEEP.transpose(2, 0, 1))
HOLED = DEEP.copy()
HOLED[:, :50] = 0
NAN = BODY[..., 0].astype(np.float32)
NAN[:20], NAN[30, 0], NAN[30, 1] = np.nan, np.inf, -np.inf


def fits_bytes(image: np.ndarray, **cards: Any) -> bytes:
    sink = io.BytesIO()
    fits.PrimaryHDU(image, fits.Header(cards)).writeto(sink)
    return sink.getvalue()


def put(data: bytes) -> Any:
    return lambda path: path.write_bytes(data)


def zarr_without_its_second_level(path: Path) -> None:
    ome_zarr(path, [PLANES, PLANES[:, ::2, ::2]])
    (path / "1/zarr.json").unlink()


def pyramid(*levels: np.ndarray) -> bytes:
    """RGB, its coarser levels as pages that say so."""
    sink = io.BytesIO()
    with tifffile.TiffWriter(sink) as file:
        for number, level in enumerate(levels):
            file.write(level, tile=(32, 32), photometric="rgb", compression="deflate", subfiletype=number and 1,
                       metadata=None)  # fmt: skip
    return sink.getvalue()


def photometric(image: np.ndarray, code: int) -> bytes:
    """A TIFF that says, in the tag 262, what its values mean."""
    data = bytearray(tiff(image, photometric="rgb" if image.ndim == 3 else "minisblack"))
    at = int.from_bytes(data[4:8], "little") + 2
    entry = next(at + 12 * n for n in range(99) if data[at + 12 * n : at + 12 * n + 2] == b"\x06\x01")
    data[entry + 8 : entry + 10] = code.to_bytes(2, "little")
    return bytes(data)


def tiny_pages(count: int) -> bytes:
    """So many pages of 4 × 4 pixels, which share their pixels."""
    tags = [(256, 3, 4), (257, 3, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 4),
            (279, 4, 16)]  # fmt: skip
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", code, kind, 1, v) for code, kind, v in tags)
    starts = [24 + n * (len(page) + 4) for n in range(1, count)]
    return b"II*\0\x18\0\0\0" + b"\7" * 16 + b"".join(page + struct.pack("<I", at) for at in [*starts, 0])


def cut_slide(path: Path) -> None:
    slide(path, [BODY, BODY[::2, ::2].copy()])
    path.write_bytes(path.read_bytes()[:-2000])


def vrt_to_elsewhere(path: Path) -> None:
    path.write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="0">/etc/passwd</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )


READ = [
    case("a rotated geotransform", 0, "rotated.tif", lambda p: geotiff(p, DEEP, transform=Affine(
        6, 8, 5e5, 8, -6, 5e6))),
    case("another CRS in the same folder", 0, "crs.tif", lambda p: geotiff(p, DEEP, crs="EPSG:4326", transform=Affine(
        1e-4, 0, 5, 0, -1e-4, 50))),
    case("pixels that are not square", 0, "oblong.tif", lambda p: geotiff(p, DEEP, transform=Affine(
        10, 0, 5e5, 0, -20, 5e6))),
    case("a pixel size of zero or of 10¹² m", 0, "absurd.tif", lambda p: geotiff(p, DEEP, transform=Affine(
        1e12, 0, 5e5, 0, -1e12, 5e6))),
    case("bands as planes", 0, "planes.tif", lambda p: geotiff(p, DEEP, interleave="band")),
    case("big-endian", 0, "big.tif", lambda p: geotiff(p, DEEP, ENDIANNESS="BIG")),
    case("eight bands", 0, "eight.tif", lambda p: geotiff(p, np.dstack([DEEP, DEEP, DEEP[..., :2]]))),
    case("TIFF with JPEG 2000 tiles", 0, "j2k.tif", put(tiff(
        BODY, photometric="rgb", tile=(64, 64), compression="jpeg2000"))),
    case("OME-Zarr without names of channels", 0, "nameless.zarr", lambda p: ome_zarr(p, [PLANES])),
    case("FITS with NaN and infinities", 0, "nan.fits", put(fits_bytes(NAN))),
    case("integer FITS with BLANK", 0, "blank.fits", put(fits_bytes(BODY[..., 0].astype(np.int16), BLANK=0))),
    case("a slide without a pixel size", 0, "nompp.svs", lambda p: slide(p, [BODY // 2], None)),
    case("a slide with a pixel size of zero", 0, "zeromm.svs", lambda p: slide(p, [BODY // 2], 0)),
    case("a TIFF pyramid that lacks a level", 0, "gap.tif", put(pyramid(BODY, BODY[::8, ::8].copy()))),
    case("RGB that says it is grey (photometric)", 0, "grey.tif", put(photometric(BODY, 1))),
    case("grey that says it is RGB (photometric)", 0, "colour.tif", put(photometric(BODY[..., 0], 2))),
    case("one row of pixels", 0, "thin.tif", lambda p: geotiff(p, DEEP[40:41])),
]  # fmt: skip
EMPTY = [
    case("nodata everywhere", 0, "nodata.tif", lambda p: geotiff(p, np.zeros_like(DEEP), nodata=0)),
    case("NaN everywhere", 0, "allnan.fits", put(fits_bytes(np.full_like(NAN, np.nan)))),
    case("a slide of glass alone", 0, "glass.svs", lambda p: slide(p, [np.full((80, 112, 3), 243, np.uint8)])),
]
CUT = tiff(DEEP, photometric="rgb", tile=(64, 64), compression="deflate")[:-900]
SKIPPED = [
    case("a tiled TIFF cut short", 0, "cut.tif", put(CUT), "cut short"),
    case("a slide cut short", 0, "cut.svs", cut_slide, "cannot be opened by OpenSlide"),
    case("a photometric that nobody knows", 0, "odd.tif", put(photometric(BODY, 777)), "cannot be decoded"),
    case("a palette that is missing (photometric)", 0, "palette.tif", put(photometric(BODY[..., 0], 3)),
         "a palette, which is missing"),
    case("a TIFF of a million tiny pages", 0, "pages.tif", put(tiny_pages(10_001)), "has 10001 planes"),
    case("FITS cut short", 0, "cut.fits", put(fits_bytes(NAN)[:6000]), "cut short"),
    case("FITS of tables alone", 0, "table.fits", put(fits_bytes(np.zeros(3, np.int16))), "has no image"),
    case("OME-Zarr whose level is missing", 0, "level.zarr", zarr_without_its_second_level, "a level is missing"),
    case("a folder .zarr that is no OME-Zarr", 0, "other.zarr", lambda p: (p.mkdir(), (p / "a").write_text("b")),
         "is no OME-Zarr"),
    case("a slide that OpenSlide does not know", 0, "odd.ndpi", put(b"not looked at"), "cannot be opened by OpenSlide"),
    case("a VRT that names files elsewhere", 0, "elsewhere.vrt", vrt_to_elsewhere, "only files below dataset.root"),
    case("a stack of more than 10 000 planes", 0, "many.tif", put(tiff(
        np.zeros((10_001, 2, 2), np.uint8), imagej=True, truncate=True, metadata={"axes": "TYX"})), "has 10001 planes"),
    case("complex numbers", 0, "complex.tif", put(tiff(DEEP[..., 0].astype(np.complex64))), "complex64"),
]  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, vit: Path) -> Exported:
    """Three good images and every odd one in one folder, seen by windows of 64 pixels."""
    place = tmp_path_factory.mktemp("rasters")
    root = place / "images"
    for number in range(3):
        geotiff(root / f"good{number}.tif", picture(number, (72, 96))[0].astype(np.uint16) * 30 + 1)
    geotiff(root / "holed.tif", HOLED, nodata=0)
    stack = np.stack([DEEP[..., 0] // n for n in (1, 2)])
    tifffile.imwrite(root / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    for parameters in (*READ, *EMPTY, *SKIPPED):
        _, name, make, *_ = parameters.values
        make(root / name)
    return run_and_export(
        place,
        root,
        vit,
        dataset={"root": str(root), "values": "percentiles"},
        features={"max_failed_fraction": 0.5, "views": {"kind": "sliding", "size": [64, 64]}},
        masks={"crf": False},
        report={"images": 99, "patches": 1},
    )


def mask(zoo: Exported, name: str) -> np.ndarray:
    return zoo.mask(Path(name).stem + ".png")


@pytest.mark.parametrize(("status", "name", "make"), READ)
def test_an_odd_raster_is_read(zoo: Exported, status, name, make):
    assert status == 0
    assert name not in zoo.failed
    found = zoo.run.image(name)
    assert mask(zoo, name).shape == found.shape[:2]
    assert (mask(zoo, name) < 4).any()
    assert len(np.unique(found)) > 10


@row("nodata in places", 0)
def test_nodata_in_places(zoo: Exported, status):
    assert status == 0
    found = mask(zoo, "holed.tif")
    assert (found[:, :50] == 255).all()
    assert (found[:, 64:] < 4).all()
    assert (zoo.run.image("holed.tif")[:, :50] == 0).all()


@pytest.mark.parametrize(("status", "name", "make"), EMPTY)
def test_an_image_without_content(zoo: Exported, status, name, make):
    assert status == 0
    assert name not in zoo.failed
    assert name not in view_pieces(zoo.run.artifact("features")).read()["path"].to_pylist()
    assert mask(zoo, name).shape == (80, 112)
    assert (mask(zoo, name) == 255).all()


@row("a stack along z, t or pages", 0)
def test_a_stack(zoo: Exported, status):
    assert status == 0
    for z in range(2):
        assert mask(zoo, f"stack#z={z}.tif").shape == (80, 112)


@pytest.mark.parametrize(("status", "name", "make", "why"), SKIPPED)
def test_a_raster_that_cannot_be_read_is_skipped(zoo: Exported, status, name, make, why):
    assert status == 0
    assert name in zoo.failed
    assert why in zoo.run.artifact("features").manifest["failed"][name]


@row("nothing but nodata or glass in all images", 1)
def test_nothing_has_content(tmp_path, vit, status):
    geotiff(tmp_path / "images/a.tif", np.zeros_like(DEEP), nodata=0)
    refused(status, "run", write_config(tmp_path, tmp_path / "images", vit), named=("no image has content",))


@row("dataset.channels names a channel that an image lacks", 2)
def test_a_channel_that_is_missing(tmp_path, vit, status):
    for number in range(2):
        geotiff(tmp_path / f"images/{number}.tif", DEEP, ("blue", "green", "red"))
    config = write_config(
        tmp_path,
        tmp_path / "images",
        vit,
        dataset={"root": str(tmp_path / "images"), "channels": ["nir", "red", "green"]},
    )
    refused(status, "run", config, named=("0.tif has no channel 'nir'", "1 blue, 2 green, 3 red", "dataset.channels"))


DEGREES = {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 5, 0, -1e-4, 50)}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("status", "gsd", "grid", "why"),
    [
        case("views.mpp or gsd, a pixel size missing or in degrees", 2, 10.0, DEGREES, "no length"),
        case("views.mpp or gsd, much finer than a pixel", 2, 0.001, {}, "features.views.gsd is 10,000 times finer"),
    ],
)
def test_a_scale_that_an_image_cannot_be_seen_at(tmp_path, vit, command, status, gsd, grid, why):
    geotiff(tmp_path / "images/a.tif", DEEP, **grid)
    features = {"views": {"size": [64, 64], "gsd": gsd}}
    config = write_config(tmp_path, tmp_path / "images", vit, features=features)
    refused(status, command, config, named=("a.tif", why, "dataset.pixel_size"))


@pytest.mark.parametrize(
    ("status", "section", "named"),
    [
        case("dataset.channels: two or four", 2, {"channels": [1, 2]}, ("dataset.channels", "three channels, or one")),
        case(
            "dataset.values: limits that do not ascend", 2, {"values": [9, 9]}, ("dataset.values", "below the second")
        ),
        case("dataset.values: a word that is no rule", 2, {"values": "log"}, ("dataset.values",)),
    ],
)
def test_bad_settings(tmp_path, vit, status, section, named):
    geotiff(tmp_path / "images/a.tif", DEEP)
    config = write_config(tmp_path, tmp_path / "images", vit, dataset={"root": str(tmp_path / "images"), **section})
    refused(status, "run", config, named=named)


@row("a large TIFF pyramid whose coarser levels are cut off", 1)
def test_a_pyramid_without_its_end(tmp_path, vit, status, monkeypatch):
    monkeypatch.setattr("pipeline.images.tiff.WINDOWED", 1000)
    (tmp_path / "images").mkdir()
    data = pyramid(BODY, BODY[::2, ::2].copy())
    (tmp_path / "images/a.tif").write_bytes(data[:-900])
    refused(status, "run", write_config(tmp_path, tmp_path / "images", vit), named=("a.tif", "cut short"))
    (tmp_path / "images/a.tif").write_bytes(data)
    assert stegoflow("run", write_config(tmp_path, tmp_path / "images", vit))[0] == 0


def test_everything_here_has_a_row():
    table = (Path(__file__).parents[1] / "docs/bad-input.md").read_text(encoding="utf-8")
    for parameters in (*READ, *EMPTY, *SKIPPED):
        assert f"| {parameters.id} |" in table, parameters.id
