"""Images that are read by windows: the same pixels as the whole, from the level that fits, in bounded memory."""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from image_files import encode, tiff

from pipeline.core.errors import StageError, StoreError
from pipeline.core.store import Store
from pipeline.datasets.folder import scan
from pipeline.images import files, source
from pipeline.images import tiff as tiff_module
from pipeline.images.files import Memory
from pipeline.images.formats import open_image, open_source
from pipeline.images.pixels import DecodeError, resize
from pipeline.images.source import Whole, Windowed

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import pixels

OLD = 1_500_000_000
SCENE = resize(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8), 300, 451)
"""Smooth, with sides that are no multiples of a tile's."""


@pytest.fixture
def windowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small TIFFs are read by windows too."""
    monkeypatch.setattr(tiff_module, "WINDOWED", 1000)


def opened(data: bytes) -> source.Source:
    return open_image(Memory("a.tif", data))


def pyramid(levels: list[np.ndarray], below: bool) -> bytes:
    """A tiled TIFF of levels, as SubIFDs of the first page or as the pages after it."""
    sink = io.BytesIO()
    with tifffile.TiffWriter(sink) as file:
        for number, level in enumerate(levels):
            file.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                metadata=None,
                subifds=len(levels) - 1 if below and number == 0 else None,
                subfiletype=1 if number else 0,
                resolution=(20000, 40000),
                resolutionunit="CENTIMETER",
            )
    return sink.getvalue()


# The same pixels as the whole -----------------------------------------------------------------------------------------

STORED = {
    "tiles": {"tile": (64, 64)},
    "tiles, deflate": {"tile": (64, 64), "compression": "deflate", "predictor": True},
    "tiles, JPEG": {"tile": (64, 64), "compression": "jpeg"},
    "tiles, planes": {"tile": (64, 64), "planarconfig": "separate"},
    "strips": {"rowsperstrip": 16, "compression": "lzw"},
    "raw": {},
    "raw planes": {"planarconfig": "separate"},
    "raw, big-endian": {"byteorder": ">"},
    "four channels": {"tile": (64, 64), "extrasamples": ["unspecified"]},
}
WINDOWS = [
    ((0, 0, 300, 451), (300, 451)),
    ((17, 40, 64, 64), (64, 64)),
    ((236, 387, 64, 64), (64, 64)),
    ((100.5, 33.25, 100, 150), (50, 70)),
    ((0, 0, 20.5, 30.25), (64, 64)),
]


@pytest.mark.parametrize("kind", STORED)
def test_a_window_is_that_of_the_whole(kind: str, windowed):
    options = STORED[kind]
    image = np.dstack([SCENE, SCENE[..., 0]]) if "extrasamples" in options else SCENE
    stored = image.transpose(2, 0, 1) if "planarconfig" in options else image
    data = tiff(stored, photometric="rgb", metadata=None, **options)
    image = opened(data)
    assert isinstance(image, Windowed)
    assert image.size == (300, 451)
    with tifffile.TiffFile(Memory("", data).stream()) as file:
        whole = file.asarray()
    whole = (whole.transpose(1, 2, 0) if "planarconfig" in options else whole)[..., :3]
    assert np.array_equal(image.pixels(), whole)
    for window, size in WINDOWS:
        found, expected = image.read(window, size), resize(whole, *size, window)
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).max() <= 1, (window, size)


def test_grey_is_spread_and_white_may_be_zero(windowed):
    grey = SCENE[..., 0]
    for kind, expected in (("minisblack", grey), ("miniswhite", 255 - grey)):
        image = opened(tiff(grey, photometric=kind, tile=(64, 64)))
        assert isinstance(image, Windowed)
        assert np.array_equal(image.read((5, 6, 40, 50), (40, 50)), np.dstack([expected[5:45, 6:56]] * 3))
        assert image.channels == ("1",)


def test_neighbouring_windows_fit_together_where_pixels_are_averaged_first(windowed):
    """300 × 448 pixels to 30 × 28: 3 and 5 pixels become one beforehand, the same ones in each window."""
    image = opened(tiff(SCENE[:, :448], photometric="rgb", tile=(64, 64)))
    whole = image.read((0, 0, 300, 448), (30, 28))
    assert np.abs(whole.astype(int) - resize(SCENE[:, :448], 30, 28)).mean() < 2
    parts = [[image.read((y, x, 150, 224), (15, 14)) for x in (0, 224)] for y in (0, 150)]
    assert np.abs(np.block([[[p] for p in row] for row in parts]).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, 301, 5), (0, 447, 5, 5), (0, 0, 0, 5)])
def test_a_window_outside_is_refused(window, windowed):
    with pytest.raises(ValueError, match=r"not inside"):
        opened(tiff(SCENE, photometric="rgb", tile=(64, 64))).read(window, (4, 4))


def test_small_images_are_decoded_whole():
    """Bit by bit what they were when nothing was read by windows."""
    for data in (tiff(SCENE, photometric="rgb", tile=(64, 64)), encode(SCENE, "PNG")):
        image = opened(data)
        assert isinstance(image, Whole)
        assert len(image.levels) == 1
        for window, size in WINDOWS:
            assert np.array_equal(image.read(window, size), resize(SCENE, *size, window))


@pytest.mark.parametrize(
    ("why", "image", "options"),
    [
        ("values have 1 bits: convert them to 8 or 16", SCENE[..., 0] > 99, {"photometric": "minisblack"}),
        ("stored turned", SCENE, {"photometric": "rgb", "extratags": [(274, "H", 1, 6, True)]}),
        ("neither grey nor RGB", np.dstack([SCENE, SCENE[..., 0]]), {"photometric": "separated"}),
    ],
)
def test_what_cannot_be_read_by_windows_says_why(why, image, options, windowed, monkeypatch):
    data = tiff(image, tile=(64, 64), metadata=None, **options)
    assert isinstance(opened(data), Whole)
    monkeypatch.setattr(source, "MAX_PIXELS", 1000)
    with pytest.raises(DecodeError, match=rf"300 × 451 pixels .*{why}.*vips tiffsave a\.tif"):
        opened(data)


# Levels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", [True, False])
def test_a_window_is_read_from_the_coarsest_level_that_has_its_detail(below: bool, windowed):
    """Each level has a colour of its own."""
    sides = [(400, 301), (200, 150), (100, 75)]
    levels = [np.full((*side, 3), 50 * number, np.uint8) for number, side in enumerate(sides)]
    image = opened(pyramid(levels, below))
    assert [level[:2] for level in image.levels] == sides
    assert image.levels[0].factor == 1
    assert image.levels[2].factor == pytest.approx(4, abs=0.02)
    assert image.pixel_size == pytest.approx((0.5, 0.25, "µm"))
    for size, level in {400: 0, 201: 0, 200: 1, 120: 1, 100: 2, 10: 2}.items():
        found = image.read((0, 0, 400, 300), (size, size * 3 // 4))
        assert (found == 50 * level).all(), size


def test_pages_of_another_shape_or_kind_are_no_levels(windowed):
    label = np.zeros((100, 140, 3), np.uint8)
    image = opened(pyramid([SCENE, label, SCENE, SCENE[::3, ::3]], below=False))
    assert [level[:2] for level in image.levels] == [(300, 451), (100, 151)]


def test_no_resolution_no_pixel_size(windowed):
    for options in ({}, {"resolution": (72, 72), "resolutionunit": "INCH"}):
        assert opened(tiff(SCENE, photometric="rgb", **options)).pixel_size is None


# Damage and change ----------------------------------------------------------------------------------------------------


def test_a_damaged_tile_spoils_its_windows_alone(windowed):
    data = bytearray(tiff(SCENE, photometric="rgb", tile=(64, 64), compression="deflate"))
    with tifffile.TiffFile(Memory("", bytes(data)).stream()) as file:
        at = file.pages[0].dataoffsets[0]
    data[at : at + 40] = bytes(40)
    image = opened(bytes(data))
    assert image.read((128, 128, 64, 64), (64, 64)).shape == (64, 64, 3)
    with pytest.raises(DecodeError, match=r"^a\.tif: cannot be decoded"):
        image.read((0, 0, 64, 64), (64, 64))


@pytest.mark.parametrize("options", [{}, {"tile": (64, 64)}, {"rowsperstrip": 16, "compression": "deflate"}])
def test_a_file_cut_short_is_refused_when_it_is_opened(options, windowed):
    data = tiff(SCENE, photometric="rgb", **options)
    with pytest.raises(DecodeError, match=r"^a\.tif: cut short"):
        opened(data[:-5000])


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windowed) -> Path:
    """A root with one TIFF, every file of which counts as large; read as a folder, and through obstore."""
    monkeypatch.setattr(files, "SMALL", 0)
    if request.param == "bucket":
        monkeypatch.setattr(files, "local_folder", lambda url: None)
    (tmp_path / "a.tif").write_bytes(tiff(SCENE, photometric="rgb", tile=(64, 64)))
    os.utime(tmp_path / "a.tif", (OLD, OLD))
    return tmp_path


def test_a_large_file_is_read_by_ranges(place: Path):
    size = (place / "a.tif").stat().st_size
    image = open_source(str(place), "a.tif", "not looked at", size)
    assert np.array_equal(image.read((70, 80, 100, 90), (100, 90)), SCENE[70:170, 80:170])


def test_a_large_file_that_changes_is_noticed_at_the_next_read(place: Path):
    path = place / "a.tif"
    size = path.stat().st_size
    with pytest.raises(StageError, match=r"a\.tif changed since it was listed"):
        open_source(str(place), "a.tif", "", size + 1)
    image = open_source(str(place), "a.tif", "", size)
    image.read((0, 0, 64, 64), (64, 64))
    path.write_bytes(path.read_bytes())  # the same size, another time of change
    with pytest.raises(StageError, match=r"a\.tif changed since it was listed"):
        image.read((200, 200, 64, 64), (64, 64))
    path.unlink()
    with pytest.raises(OSError, match=r"a\.tif"):
        image.read((100, 300, 64, 64), (64, 64))


def test_a_large_file_that_is_read_whole_must_have_its_digest(place: Path):
    (place / "b.png").write_bytes(data := encode(SCENE, "PNG"))
    good = open_source(str(place), "b.png", hashlib.sha256(data).hexdigest(), len(data))
    assert np.array_equal(good.pixels(), SCENE)
    with pytest.raises(StageError, match=r"b\.png changed"):
        open_source(str(place), "b.png", "0" * 64, len(data)).pixels()


def test_a_read_that_fails_is_no_damaged_image(tmp_path: Path, windowed, monkeypatch):
    """Trying again may help: the part is repeated, and no image is left out."""
    (tmp_path / "a.tif").write_bytes(data := tiff(SCENE, photometric="rgb", tile=(64, 64)))
    monkeypatch.setattr(files, "SMALL", 0)
    image = open_source(str(tmp_path), "a.tif", "", len(data))
    (tmp_path / "a.tif").unlink()
    with pytest.raises(StoreError, match=r"cannot read a\.tif"):
        image.read((0, 0, 64, 64), (64, 64))


def test_one_client_per_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[str] = []
    init = Store.__init__
    monkeypatch.setattr(
        Store, "__init__", lambda self, url, **options: (made.append(url), init(self, url, **options))[1]
    )
    monkeypatch.setattr(files, "local_folder", lambda url: None)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encode(SCENE, "PNG"))
    items = scan(str(tmp_path), "images").items
    for item in items * 2:
        open_source(str(tmp_path), item.path, item.sha256, item.size).pixels()
    assert len(items) == 2
    assert made == [str(tmp_path)]


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pyramid", "slide", "ome-zarr"])
def test_a_pyramid_of_1600_megapixels_takes_less_than_300_mib(kind):
    command = [sys.executable, pixels.__file__, "--side", "40000", "--views", "40", "--source", kind]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(answer.stdout)
    assert found["megapixels"] == 1600
    assert found["levels"] == 8
    assert found["MiB of the imports"] < found["MiB at most"] < pixels.LIMIT
