"""Which channels are seen, and how values become 8 bits: by limits of a whole image, the same in its windows."""

import numpy as np
import pytest
from astropy.visualization import AsinhStretch, ZScaleInterval
from image_files import COLOUR, RAMP, encode, png16, tiff
from raster_files import BANDS

from pipeline.core.errors import ConfigError
from pipeline.images import raster
from pipeline.images import tiff as tiff_module
from pipeline.images.files import Memory
from pipeline.images.formats import decode, open_image
from pipeline.images.reading import AS_STORED, Limits, choose, limits, looked_up, readings, scale, tables
from pipeline.images.source import Source

NAMES = ("blue", "Green", "red", "nir")


def opened(data: bytes, channels=None, values=None) -> Source:
    return open_image(Memory("a.tif", data), readings(channels, values)[0])


# Channels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, (0, 1, 2)),
        (["nir", "red", "green"], (3, 2, 1)),
        ([4, 3, 2], (3, 2, 1)),
        (["NIR", 1, "Blue"], (3, 0, 0)),
        ([4], (3,)),
    ],
)
def test_channels_by_name_and_by_number(wanted, found):
    assert choose(NAMES, wanted, "a") == found


def test_fewer_than_three_channels_are_grey():
    assert choose(("1", "2"), None, "a") == (0,)


@pytest.mark.parametrize("wanted", [["swir"], [0], [5], [-1], ["2"]])
def test_a_channel_that_is_not_there_is_named(wanted):
    with pytest.raises(
        ConfigError, match=r"dataset\.channels: scene\.tif has no channel .*1 blue, 2 Green, 3 red, 4 nir"
    ):
        choose(NAMES, wanted, "scene.tif")


def test_a_picture_has_the_channels_r_g_b():
    for data in (encode(COLOUR, "PNG"), tiff(COLOUR, photometric="rgb")):
        assert np.array_equal(opened(data, ["B", "G", "R"]).pixels(), COLOUR[..., ::-1])
        assert np.array_equal(opened(data, [2]).pixels(), np.dstack([COLOUR[..., 1]] * 3))
        with pytest.raises(ConfigError, match=r"a\.tif has no channel 4"):
            opened(data, [4])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", "<>")
def test_channels_of_a_tiff(planar, order):
    stored = BANDS if planar == "contig" else np.ascontiguousarray(BANDS.transpose(2, 0, 1))
    data = tiff(
        stored, photometric="minisblack", planarconfig=planar, byteorder=order, tile=(64, 64), compression="deflate"
    )
    found = opened(data, [4, 3, 1], [0, 65535]).pixels()
    assert np.array_equal(found, np.rint(BANDS[..., [3, 2, 0]] / 257).astype(np.uint8))


# Values ---------------------------------------------------------------------------------------------------------------


def test_fixed_limits():
    samples = np.array([[[-5.0], [10], [15], [20], [99], [np.nan], [np.inf], [-np.inf]]])
    assert scale(samples, limits((10.0, 20.0), samples.reshape(-1, 1))).ravel().tolist() == [
        0, 0, 128, 255, 255, 0, 255, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", ">u2", ">i2"])
@pytest.mark.parametrize("asinh", [False, True])
def test_what_is_looked_up_is_what_is_scaled(dtype, asinh):
    info = np.iinfo(dtype)
    every = np.arange(info.min, info.max + 1).astype(dtype).reshape(16, -1, 1).repeat(3, -1)
    found = Limits(np.array([info.min / 3, 5.5, 9.0]), np.array([info.max / 2, 99.0, 9.0]), asinh)
    table = tables(found, every.dtype)
    assert table is not None
    assert np.array_equal(looked_up(every, table), scale(every, found))
    assert np.array_equal(looked_up(every[::2, 3:], table), scale(every[::2, 3:], found))
    assert tables(found, np.dtype("int32")) is tables(found, np.dtype("float32")) is None


def test_percentiles_are_those_of_each_channel():
    sample = np.random.default_rng(0).normal([100, 5000], [9, 800], (5000, 2))
    found = limits("percentiles", sample)
    assert np.allclose([found.low, found.high], np.percentile(sample, [2, 98], axis=0))


def test_zscale_and_asinh_are_those_of_astronomers():
    sample = np.random.default_rng(0).gamma(2, 50, (4000, 1)).astype(np.float32)
    sample[7] = np.nan
    finite = sample[np.isfinite(sample)].astype(np.float64)
    found = limits("zscale", sample)
    assert (found.low[0], found.high[0]) == pytest.approx(ZScaleInterval().get_limits(finite))
    found = limits("asinh", sample)
    low, high = np.percentile(finite, [1, 99.9])
    expected = AsinhStretch()(np.clip((finite - low) / (high - low), 0, 1)) * 255
    assert np.abs(scale(finite.reshape(1, -1, 1), found).ravel() - expected).max() <= 0.51


@pytest.mark.parametrize("rule", ["percentiles", "asinh", "zscale", "depth"])
@pytest.mark.parametrize("sample", [np.full((9, 2), 7.0), np.full((9, 2), np.nan), np.zeros((0, 2))])
def test_what_has_no_range_becomes_something(rule, sample):
    found = scale(np.array([[[7.0, np.nan]]]), limits(rule, sample))
    assert found.dtype == np.uint8


def test_a_constant_image_is_black():
    assert (scale(np.full((2, 2, 1), 7), Limits(np.array([7.0]), np.array([7.0]))) == 0).all()


def test_8_bit_images_are_as_they_are_stored():
    """… and so are others where nothing is set: `pixels.to_uint8`."""
    for data, name in ((encode(COLOUR, "PNG"), "a.png"), (tiff(RAMP * 100), "a.tif"), (png16(RAMP), "a.png")):
        assert np.array_equal(open_image(Memory(name, data), AS_STORED).pixels(), decode(data, name))
    assert np.array_equal(decode(encode(COLOUR, "PNG"), "a"), COLOUR)


def test_a_rule_for_8_bit_images_is_followed_too():
    found = opened(encode(COLOUR, "PNG"), None, [100, 200]).pixels()
    assert np.abs(found - (COLOUR.astype(float).clip(100, 200) - 100) * 2.55).max() <= 0.51


def test_a_png_of_16_bits_keeps_them_for_the_rule():
    image = np.dstack([RAMP + 1000] * 3)
    found = opened(png16(image), None, [1000, 1034]).pixels()
    assert np.array_equal(found[..., 0], np.rint(RAMP * 7.5).astype(np.uint8))


@pytest.mark.parametrize("values", [None, "percentiles", "asinh", "zscale", [100, 5000]])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_limits_are_of_the_image_and_never_of_a_window(values, dtype, monkeypatch):
    """Windows of an image that is read tile by tile fit together."""
    monkeypatch.setattr(tiff_module, "WINDOWED", 1000)
    image = opened(
        tiff(BANDS.astype(dtype), photometric="minisblack", planarconfig="contig", tile=(64, 64)), None, values
    )
    whole = image.pixels()
    assert len(np.unique(whole)) > 20
    for y, x in ((0, 0), (17, 90), (86, 157)):
        assert np.array_equal(image.read((y, x, 64, 64), (64, 64)), whole[y : y + 64, x : x + 64])


def test_limits_come_from_a_bounded_sample(monkeypatch):
    """Of a large image without coarser levels, evenly spaced windows; the nearest level that is large enough else."""
    monkeypatch.setattr(tiff_module, "WINDOWED", 1000)
    monkeypatch.setattr(raster, "SAMPLE", 4096)
    read: list[int] = []
    image = opened(tiff(BANDS, photometric="minisblack", planarconfig="contig", tile=(16, 16)), None, "percentiles")
    samples = image.raster.samples
    monkeypatch.setattr(image.raster, "samples", lambda *a: (read.append(a[3] * a[4]), samples(*a))[1])
    image.read((0, 0, 16, 16), (16, 16))
    assert 1000 < sum(read[:-1]) <= 2 * 4096
    low, high = np.percentile(BANDS[..., :3].reshape(-1, 3), [2, 98], axis=0)
    assert np.abs(image._limits.low - low).max() < 600
    assert np.abs(image._limits.high - high).max() < 600
