"""GeoTIFF, COG, JPEG 2000 and VRT: the pixels, nodata, CRS and transform that rasterio finds."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from raster_files import BANDS, NORTH_UP, SCENE, UTM, geotiff
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from pipeline.core import extras
from pipeline.core.errors import ConfigError
from pipeline.images import tiff as tiff_module
from pipeline.images.files import Memory, stored
from pipeline.images.formats import decode_label, open_image
from pipeline.images.geo import tiles_of
from pipeline.images.pixels import DecodeError
from pipeline.images.reading import readings
from pipeline.images.source import Source

ALL = [0, 65535]


def opened(path: Path, channels=None, values=None) -> Source:
    """As a listed file that is read by ranges."""
    return open_image(stored(str(path.parent), path.name), readings(channels, values)[0])


def everywhere(image: Source) -> np.ndarray:
    return image.valid((0, 0, *image.size), image.size)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "predictor": 2},
        {"interleave": "band", "compress": "lzw"},
        {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band", "compress": "zstd"},
        {"ENDIANNESS": "BIG", "interleave": "pixel"},
        {"BIGTIFF": "YES", "compress": "packbits"},
    ],
    ids=lambda options: " ".join(map(str, options.values())) or "plain",
)
def test_the_pixels_are_those_of_gdal(dtype, options, tmp_path, monkeypatch):
    if "float" in dtype and "predictor" in options:
        options = {**options, "predictor": 3}
    path = geotiff(tmp_path / "a.tif", (BANDS // 40).astype(dtype), ("blue", "green", "red", "nir"), **options)
    for limit in (1000, 10**6):  # by windows, and whole
        monkeypatch.setattr(tiff_module, "WINDOWED", limit)
        image = opened(path, ["nir", "red", "green"], [0, 255])
        with rasterio.open(path) as file:
            expected = np.moveaxis(file.read([4, 3, 2]), 0, -1).clip(0, 255)
        assert np.array_equal(image.pixels(), expected.astype(np.uint8))
        window = image.read((11, 70, 100, 90), (100, 90))
        assert np.array_equal(window, expected[11:111, 70:160].astype(np.uint8))


def test_the_place_on_earth(tmp_path):
    image = opened(geotiff(tmp_path / "a.tif", SCENE))
    assert image.georeference
    assert rasterio.CRS.from_wkt(image.georeference.crs) == rasterio.CRS.from_string(UTM)
    assert image.georeference.transform == tuple(NORTH_UP)[:6]
    assert image.pixel_size == (10, 10, "m")
    assert np.array_equal(image.pixels(), SCENE)


@pytest.mark.parametrize(
    ("crs", "transform", "size"),
    [
        ("EPSG:4326", Affine(0.001, 0, 5, 0, -0.002, 50), (0.001, 0.002, "°")),
        ("EPSG:2263", Affine(3, 0, 9e5, 0, -3, 2e5), (3 * 1200 / 3937, 3 * 1200 / 3937, "m")),  # US feet
        (UTM, Affine(6, 8, 5e5, 8, -6, 5e6), (10, 10, "m")),  # turned
        (UTM, Affine(10, 0, 5e5, 0, 20, 5e6), (10, 20, "m")),  # south up, not square
        (None, Affine(10, 0, 5e5, 0, -10, 5e6), None),  # in no known system
        (UTM, Affine(1e12, 0, 5e5, 0, -1e12, 5e6), None),  # absurd
    ],
)
def test_scale_and_turn(crs, transform, size, tmp_path):
    image = opened(geotiff(tmp_path / "a.tif", SCENE, crs=crs, transform=transform))
    assert image.georeference
    assert image.georeference.transform == pytest.approx(tuple(transform)[:6])
    assert (image.georeference.crs is None) == (crs is None)
    if size is None:
        assert image.pixel_size is None
    else:
        assert image.pixel_size[:2] == pytest.approx(size[:2])  # type: ignore[index]
        assert image.pixel_size.unit == size[2]  # type: ignore[union-attr]


def test_no_place(tmp_path):
    with pytest.warns(NotGeoreferencedWarning):
        path = geotiff(tmp_path / "a.tif", SCENE, crs=None, transform=Affine.identity())
    image = opened(path)
    assert image.georeference is None
    assert image.pixel_size is None


def test_without_rasterio_the_pixels_are_the_same(tmp_path, monkeypatch):
    path = geotiff(tmp_path / "a.tif", BANDS, nodata=1)
    before = opened(path)
    assert before.georeference
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    after = opened(path)
    assert np.array_equal(before.pixels(), after.pixels())
    assert np.array_equal(everywhere(before), everywhere(after))
    assert after.georeference is None
    for name, data in (("a.jp2", b"\xff\x4f\xff\x51" + bytes(20)), ("a.vrt", b"<VRTDataset/>")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=rf"{name}.* needs rasterio(.|\n)*stegoflow\[geo\]"):
            opened(tmp_path / name)


# Nodata ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("uint8", 255), ("uint16", 0), ("int16", -999), ("float32", -3.4e38)]
)
def test_nodata_is_that_of_gdal(dtype, nodata, tmp_path, monkeypatch):
    bands = (BANDS[..., :3] // 60 + 1).astype(dtype)
    bands[20:60, :70] = nodata
    bands[0, 0, 0] = nodata  # in one band alone: there is content
    path = geotiff(tmp_path / "a.tif", bands, nodata=nodata, tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path) as file:
        expected = (file.read_masks([1, 2, 3]) > 0).any(0)
    for limit in (1000, 10**6):
        monkeypatch.setattr(tiff_module, "WINDOWED", limit)
        image = opened(path)
        assert image.sparse
        assert np.array_equal(everywhere(image), expected)
        assert np.array_equal(image.valid((10, 50, 60, 60), (60, 60)), expected[10:70, 50:110])
        coarse = image.valid((0, 0, *image.size), (15, 22))
        assert coarse.mean() == pytest.approx(expected.mean(), abs=0.02)
        shown = image.pixels()
        if dtype == "uint8":  # as they were
            assert np.array_equal(shown, bands[..., :3])
        else:  # filled, and without a say in the limits
            assert (shown[~expected] == 0).all()
            assert shown.max() > 100 if dtype == "float32" else shown.max() > 0


def test_nan_is_nodata(tmp_path):
    bands = BANDS.astype(np.float32)
    bands[:9] = np.nan
    image = opened(geotiff(tmp_path / "a.tif", bands), values="percentiles")
    assert np.array_equal(everywhere(image), np.indices(image.size)[0] >= 9)
    assert image.pixels().max() == 255


def test_nodata_everywhere(tmp_path):
    image = opened(geotiff(tmp_path / "a.tif", np.zeros((40, 50, 3), np.uint16), nodata=0), values="percentiles")
    assert not everywhere(image).any()
    assert (image.pixels() == 0).all()


def test_alpha_is_nodata_on_earth(tmp_path):
    alpha = np.full((150, 221, 1), 255, np.uint8)
    alpha[:, :30] = 0
    path = geotiff(tmp_path / "a.tif", np.dstack([SCENE, alpha]), photometric="RGB", ALPHA="YES")
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    image = opened(path)
    assert image.channels == ("R", "G", "B", "A")
    assert np.array_equal(everywhere(image), alpha[..., 0] > 0)
    assert np.array_equal(image.pixels(), SCENE)


@pytest.mark.parametrize("options", [{}, {"driver": "COG", "BLOCKSIZE": 128, "COMPRESS": "JPEG"}, {"tiled": True}])
@pytest.mark.parametrize("limit", [1000, 10**8])
def test_an_internal_mask_is_that_of_gdal(options, limit, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_module, "WINDOWED", limit)
    big = np.kron(SCENE, np.ones((4, 4, 1), np.uint8))
    mask = np.ones(big.shape[:2], bool)
    mask[30:200, 40:333] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = geotiff(tmp_path / "plain.tif", big)
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
        if options:
            rasterio.shutil.copy(path, tmp_path / "a.tif", **{"driver": "GTiff", **options})
            path = tmp_path / "a.tif"
    image = opened(path)
    with rasterio.open(path) as file:
        assert np.array_equal(file.dataset_mask() > 0, mask)
    assert image.sparse
    assert np.array_equal(everywhere(image), mask)
    assert np.array_equal(image.valid((100, 200, 150, 150), (150, 150)), mask[100:250, 200:350])
    assert image.valid((0, 0, *image.size), (75, 110)).mean() == pytest.approx(mask.mean(), abs=0.01)


# Overviews, and other drivers -----------------------------------------------------------------------------------------


def test_a_cog_is_read_from_its_overviews(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_module, "WINDOWED", 1000)
    big = np.kron(BANDS, np.ones((8, 8, 1), np.uint16))
    path = geotiff(
        tmp_path / "a.tif", big, driver="COG", BLOCKSIZE=128, COMPRESS="DEFLATE", OVERVIEW_RESAMPLING="AVERAGE"
    )
    image = opened(path, [4, 2, 1], ALL)
    with rasterio.open(path) as file:
        factors = file.overviews(1)
        small = np.moveaxis(file.read([4, 2, 1], out_shape=(3, 150, 221), resampling=Resampling.nearest), 0, -1)
    assert [round(level.factor) for level in image.levels] == [1, *factors]
    found = image.read((0, 0, *image.size), (150, 221)).astype(int)
    assert np.abs(found - small / 257).mean() < 0.6


def test_a_jpeg_2000(tmp_path):
    path = geotiff(tmp_path / "a.jp2", BANDS[..., :1], driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    image = opened(path, values=ALL)
    assert np.array_equal(image.pixels()[..., 0], np.rint(BANDS[..., 0] / 257).astype(np.uint8))
    assert image.pixel_size == (10, 10, "m")
    assert image.georeference
    assert image.georeference.transform == tuple(NORTH_UP)[:6]
    again = open_image(Memory("a.jp2", path.read_bytes()), readings(None, ALL)[0])
    assert np.array_equal(again.pixels(), image.pixels())


def mosaic(root: Path, text: str = "", name: str = 'relativeToVRT="1">tiles/b{}.tif') -> Path:
    """A VRT of three one-band files, as `gdalbuildvrt -separate` makes it."""
    for number in range(3):
        geotiff(root / f"tiles/b{number}.tif", BANDS[..., number : number + 1])
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{n + 1}"><Description>b{n}</Description><ComplexSource>'
        f"<SourceFilename {name.format(n)}</SourceFilename><SourceBand>1</SourceBand>"
        '<SrcRect xOff="0" yOff="0" xSize="221" ySize="150"/><DstRect xOff="0" yOff="0" xSize="221" ySize="150"/>'
        "</ComplexSource></VRTRasterBand>"
        for n in range(3)
    )
    (root / "all.vrt").write_text(
        f'<VRTDataset rasterXSize="221" rasterYSize="150"><SRS>{UTM}</SRS>'
        f"<GeoTransform>5e5, 10, 0, 5e6, 0, -10</GeoTransform>{text}{bands}</VRTDataset>"
    )
    return root / "all.vrt"


def test_a_vrt_of_bands(tmp_path):
    path = mosaic(tmp_path)
    image = opened(path, ["b2", "b1", "b0"], ALL)
    assert np.array_equal(image.pixels(), np.rint(BANDS[..., [2, 1, 0]] / 257).astype(np.uint8))
    assert image.pixel_size == (10, 10, "m")
    assert tiles_of(stored(str(tmp_path), "all.vrt")) == [f"tiles/b{n}.tif" for n in range(3)]


SECRET = b"\x07" * 150 * 221 * 2


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", 'relativeToVRT="0">{outside}'),
        ("", 'relativeToVRT="1">{outside}'),
        ("", 'relativeToVRT="1">../outside.tif'),
        ("", 'relativeToVRT="1">tiles/../../outside.tif'),
        ("", 'relativeToVRT="1">&#47;etc/passwd'),
        ("", 'relativeToVRT="1">/vsicurl/http://127.0.0.1:9/a.tif'),
        ("", 'relativeToVRT="1">vrt://tiles/b0.tif'),
        ("", 'relativeToVRT="1">tiles/b0.tif</SourceFilename><SourceFilename relativeToVRT="0">x.tif'),
        ('<VRTRasterBand subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="1">a</SourceFilename>'
         "</VRTRasterBand>", 'relativeToVRT="1">tiles/b0.tif'),
        ("<PixelFunctionType>python</PixelFunctionType>", 'relativeToVRT="1">tiles/b0.tif'),
        ("<GDALWarpOptions></GDALWarpOptions>", 'relativeToVRT="1">tiles/b0.tif'),
        ("<!-- x -->", 'relativeToVRT="1">tiles/b0.tif'),
        ('<OpenOptions><OOI key="a">b</OOI></OpenOptions>', 'relativeToVRT="1">tiles/b0.tif'),
    ],
)  # fmt: skip
def test_a_vrt_that_reaches_elsewhere_is_refused(text, name, tmp_path):
    outside = geotiff(tmp_path / "outside.tif", BANDS[..., :1])
    path = mosaic(tmp_path / "root", text, name.replace("{outside}", str(outside)))
    with pytest.raises(DecodeError, match=r"^all\.vrt: .*VRT"):
        opened(path)


def test_a_tile_that_is_no_raster_is_not_given_to_gdal(tmp_path):
    """A VRT within a VRT could name any file: GDAL tells formats by their content."""
    outside = tmp_path / "outside.raw"
    outside.write_bytes(SECRET)
    path = mosaic(tmp_path / "root")
    (tmp_path / "root/tiles/b0.tif").write_text(
        '<VRTDataset rasterXSize="221" rasterYSize="150"><VRTRasterBand dataType="UInt16" band="1" '
        f'subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="0">{outside}</SourceFilename>'
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(DecodeError, match=r"^all\.vrt: cannot be decoded"):
        opened(path, values=ALL).pixels()


def test_a_missing_tile_is_an_error(tmp_path):
    path = mosaic(tmp_path)
    (tmp_path / "tiles/b1.tif").unlink()
    with pytest.raises((DecodeError, FileNotFoundError), match=r"b1\.tif|all\.vrt"):
        opened(path)


def test_gdal_looks_at_no_file_beside(tmp_path):
    """A world file and metadata beside an image say nothing: they are no part of its digest."""
    path = geotiff(tmp_path / "a.tif", SCENE)
    before = opened(path).georeference
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n7\n7\n")
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><GeoTransform>7, 1, 0, 7, 0, -1</GeoTransform></PAMDataset>")
    assert opened(path).georeference == before


def test_a_label_map_of_gdal(tmp_path):
    label = (SCENE[..., :1] // 60).astype(np.uint8)
    path = geotiff(tmp_path / "l.tif", label, tiled=True, blockxsize=64, blockysize=64, compress="lzw", nodata=255)
    assert np.array_equal(decode_label(path.read_bytes(), "l.tif"), label[..., 0])
