"""FITS: astropy's own samples and generated files, windows, nodata, the WCS, several HDUs."""

import io
from pathlib import Path

import astropy
import numpy as np
import pytest
from astropy.io import fits
from astropy.visualization import ZScaleInterval
from astropy.wcs import WCS
from raster_files import SCENE

from pipeline.core.errors import ConfigError
from pipeline.images.files import Memory, stored
from pipeline.images.formats import LabelWindows, decode_label, open_image, open_label, planes
from pipeline.images.pixels import DecodeError
from pipeline.images.reading import readings
from pipeline.images.source import Source

SAMPLES = Path(astropy.__file__).parent
SKY = SCENE[..., 0].astype(np.float32) * 3.5 - 20


def written(*hdus, **options) -> bytes:
    sink = io.BytesIO()
    fits.HDUList(list(hdus)).writeto(sink, **options)
    return sink.getvalue()


def opened(data: bytes, channels=None, values=None, plane=None) -> Source:
    return open_image(Memory("sky.fits", data), readings(channels, values)[0], plane)


def everywhere(image: Source) -> np.ndarray:
    return image.valid((0, 0, *image.size), image.size)


@pytest.mark.parametrize(
    ("name", "hdu"),
    [
        ("io/fits/hdu/compressed/tests/data/m13.fits", 0),
        ("io/fits/hdu/compressed/tests/data/m13_rice.fits", 1),
        ("io/fits/hdu/compressed/tests/data/m13_hcomp.fits", 1),
        ("io/fits/tests/data/scale.fits", 0),
        ("io/fits/tests/data/comp.fits", 1),
        ("modeling/tests/data/1904-66_AZP.fits", 0),
        ("nddata/tests/data/sip-wcs.fits", 0),
    ],
)
def test_samples_of_astropy(name, hdu):
    """The pixels and the place in the sky that astropy finds."""
    path = SAMPLES / name
    image = opened(path.read_bytes())
    with fits.open(path) as file:
        data, header = np.asarray(file[hdu].data, np.float64), file[hdu].header
    assert image.size == data.shape
    finite = np.isfinite(data)
    low, high = ZScaleInterval().get_limits(data[finite])
    expected = np.where(finite, np.clip((np.nan_to_num(data) - low) / (high - low), 0, 1) * 255, 0)
    assert np.abs(image.pixels()[..., 0] - expected).max() <= 0.51
    assert np.array_equal(everywhere(image), finite)
    assert image.georeference
    ours = WCS(fits.Header.fromstring(image.georeference.wcs, sep="\n"), naxis=2)
    theirs = WCS(header, naxis=2)
    corners = [[0, 0], [image.size[1] - 1, image.size[0] - 1]]
    assert np.allclose(ours.all_pix2world(corners, 0), theirs.all_pix2world(corners, 0), equal_nan=True)


def test_a_window_is_that_of_astropys_section():
    header = fits.Header({"BSCALE": 1.0})
    image = opened(written(fits.PrimaryHDU(SKY, header)), values=[-20, 872.5])
    assert image.size == SKY.shape
    assert np.array_equal(image.read((30, 50, 64, 80), (64, 80))[..., 0], SCENE[30:94, 50:130, 0])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"])
def test_every_type(dtype):
    stored = SCENE[..., 0].astype(dtype)
    image = opened(written(fits.PrimaryHDU(stored)), values=[0, 255])
    assert np.array_equal(image.pixels()[..., 0], SCENE[..., 0])


@pytest.mark.filterwarnings("ignore:Invalid 'BLANK'")
@pytest.mark.parametrize(
    ("dtype", "cards"),
    [
        *((dtype, {}) for dtype in ("u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")),
        *((dtype, {"BLANK": 7}) for dtype in ("u1", "i2", "u2", "i4", "f4")),
        *((dtype, {"BSCALE": 0.5, "BZERO": 3.0}) for dtype in ("u1", "i2", "i4", "f4")),
    ],
)
def test_samples_of_a_cube_are_those_of_astropy(dtype, cards, tmp_path):
    """As they are stored, or scaled; from memory and from a file that is read by ranges."""
    cube = np.random.default_rng(0).integers(0, 120, (3, 40, 50)).astype(dtype)
    data = written(fits.PrimaryHDU(cube))
    for key, value in cards.items():  # set behind astropy's back, which would convert
        data = data.replace(b"END" + b" " * 77, f"{key:8}= {value:>20}".ljust(80).encode() + b"END" + b" " * 77, 1)
    data = data[:2880] + data[2880 + 80 * len(cards) :]
    (tmp_path / "cube.fits").write_bytes(data)
    with fits.open(io.BytesIO(data)) as file:
        expected = np.moveaxis(file[0].data, 0, -1)
    for one in (Memory("cube.fits", data), stored(str(tmp_path), "cube.fits")):
        raster = open_image(one).raster
        found = raster.samples(0, 11, 5, 20, 40, (2, 0))
        assert found.dtype == expected.dtype.newbyteorder("=") == raster.dtype
        assert np.array_equal(found, expected[11:31, 5:45, [2, 0]], equal_nan=expected.dtype.kind == "f")


def test_eight_bits_are_as_they_are_stored():
    assert np.array_equal(opened(written(fits.PrimaryHDU(SCENE[..., 0]))).pixels()[..., 0], SCENE[..., 0])


def test_blank_nan_and_infinity():
    counts = SCENE[..., 0].astype(np.int16)
    counts[10:20, 30:40] = -99
    hdu = fits.PrimaryHDU(counts)
    hdu.header["BLANK"] = -99
    holes = SKY.copy()
    holes[10:20, 30:40], holes[0, 0], holes[0, 1] = np.nan, np.inf, -np.inf
    for data in (written(hdu), written(fits.PrimaryHDU(holes)), written(fits.PrimaryHDU(), fits.CompImageHDU(holes))):
        image = opened(data)
        missing = ~everywhere(image)
        assert image.sparse
        assert missing.sum() == 100
        assert missing[10:20, 30:40].all()
        assert (image.pixels()[missing] == 0).all()
        assert image.pixels().max() == 255


def test_nan_everywhere():
    image = opened(written(fits.PrimaryHDU(np.full((20, 30), np.nan, np.float32))))
    assert (image.pixels() == 0).all()
    assert not everywhere(image).any()


def test_planes_of_a_cube_are_channels():
    cube = np.moveaxis(SCENE, -1, 0).astype(np.int16)
    image = opened(written(fits.PrimaryHDU(cube[None])), [3, 1, 2], [0, 255])
    assert image.channels == ("1", "2", "3")
    assert np.array_equal(image.pixels(), SCENE[..., [2, 0, 1]])


def test_several_images_are_images_of_their_own():
    data = written(fits.PrimaryHDU(), fits.ImageHDU(SKY), fits.BinTableHDU(), fits.ImageHDU(SKY[:50, :40] * 2))
    assert planes(Memory("a.fits", data)) == [({"hdu": 1}, 150, 221), ({"hdu": 3}, 50, 40)]
    assert opened(data, plane={"hdu": 3}).size == (50, 40)
    with pytest.raises(DecodeError, match=r"^sky\.fits: has no image in HDU 2"):
        opened(data, plane={"hdu": 2})


def test_science_comes_without_its_errors():
    names = [fits.ImageHDU(SKY * n, name=name) for n, name in enumerate(("SCI", "ERR", "DQ"), 1)]
    assert planes(Memory("a.fits", written(fits.PrimaryHDU(), *names))) == [({}, 150, 221)]


def test_scale_of_the_sky():
    header = fits.Header()
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [10, 41], [50, 60]
    wcs.wcs.cd = np.array([[-0.0001, 0.00002], [0.00002, 0.0002]])
    header.update(wcs.to_header())
    header["CTYPE3"], header["CRVAL3"] = "FREQ", 1e9
    image = opened(written(fits.PrimaryHDU(SKY, header)))
    assert image.pixel_size
    assert image.pixel_size[:2] == pytest.approx((0.36715, 0.72360), rel=1e-4)
    assert image.pixel_size.unit == "arcsec"
    assert image.georeference
    assert "FREQ" not in image.georeference.wcs


@pytest.mark.parametrize("cards", [{"CTYPE1": "LINEAR"}, {}, {"CTYPE1": "RA---TAN", "CDELT1": 0.0, "CDELT2": 0.0}])
def test_no_scale(cards):
    assert opened(written(fits.PrimaryHDU(SKY, fits.Header(cards)))).pixel_size is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (written(fits.PrimaryHDU(SKY))[:-20_000], "cut short: HDU 0 ends beyond"),
        (written(fits.PrimaryHDU(), fits.BinTableHDU()), "has no image"),
        (written(fits.PrimaryHDU(np.zeros((2, 2, 4, 4), np.uint8))), "2 × 2 × 4 × 4: more than three"),
        (b"SIMPLE  =  rubbish" + bytes(5000), "cannot be decoded"),
    ],
)
def test_what_is_refused(data, why):
    with pytest.raises(DecodeError, match=rf"^sky\.fits: .*{why}"):
        opened(data).pixels()


def test_a_large_label_map_is_read_by_windows(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.images.fits.SMALL", 1000)
    label = (SCENE[..., 0] // 60).astype(np.int32)
    (tmp_path / "l.fits").write_bytes(written(fits.PrimaryHDU(), fits.ImageHDU(label, name="SEGMAP")))
    found = open_label(stored(str(tmp_path), "l.fits"))
    assert isinstance(found, LabelWindows)
    assert np.array_equal(found[20:141, 100:], label[20:141, 100:])


def test_a_label_map():
    label = (SCENE[..., 0] // 60).astype(np.int32)
    assert np.array_equal(
        decode_label(written(fits.PrimaryHDU(), fits.ImageHDU(label, name="SEGMAP")), "l.fits"), label
    )
    with pytest.raises(ConfigError, match=r"l\.fits: a label must hold integers"):
        decode_label(written(fits.PrimaryHDU(SKY)), "l.fits")
    with pytest.raises(ConfigError, match=r"l\.fits: a label must have one channel, this one has 3"):
        decode_label(written(fits.PrimaryHDU(np.zeros((3, 4, 5), np.int16))), "l.fits")
