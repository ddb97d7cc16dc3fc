"""Every format, depth, channel layout and orientation that `pipeline.images.formats` speaks of."""

import io
import struct
import zlib

import numpy as np
import pytest
from image_files import COLOUR, GREY, PNG, check, chunk, encode, png16, size, tiff
from PIL import Image, ImageCms, ImageOps

from pipeline.images import formats, pillow
from pipeline.images.formats import SUFFIXES, Format, decode, decode_label
from pipeline.images.pixels import resize

RAMP = np.arange(35, dtype=np.uint16).reshape(5, 7)


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_lossless_colour(format, options):
    check(encode(COLOUR, format, **options), COLOUR)


@pytest.mark.parametrize(("format", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95})])
def test_lossy_colour(format, options):
    smooth = resize(COLOUR, 60, 80)
    check(encode(smooth, format, **options), smooth, 24)


def test_grey_and_alpha_is_dropped():
    alpha = np.zeros_like(GREY)
    for format in ("PNG", "TIFF", "BMP", "GIF"):
        check(encode(GREY, format), GREY)
    for format in ("PNG", "TIFF"):
        check(encode(np.dstack([GREY, alpha]), format), GREY)
        check(encode(np.dstack([COLOUR, alpha]), format), COLOUR)
    check(encode(np.dstack([COLOUR, alpha]), "WEBP", lossless=True, exact=True), COLOUR)
    check(encode(GREY, "JPEG", quality=100), GREY, 4)


def test_one_bit():
    bits = GREY > 127
    for format in ("PNG", "TIFF", "BMP"):
        check(encode(Image.fromarray(bits), format), bits * 255)
    check(tiff(bits, photometric="minisblack"), bits * 255)
    check(tiff(bits, photometric="miniswhite"), ~bits * 255)


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(200))])
@pytest.mark.parametrize("format", ["PNG", "GIF", "TIFF", "BMP"])
def test_palette(format, transparency):
    image = Image.fromarray(COLOUR).quantize(256)
    expected = np.array(image.convert("RGB"))
    if transparency is not None and (format == "PNG" or (format == "GIF" and transparency == 0)):
        image.info["transparency"] = transparency
    check(encode(image, format), expected)


def test_palette_tiff_of_eight_bit_colours():
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :3] = [[255, 0, 10], [0, 128, 20], [0, 0, 30]]
    indices = np.array([[0, 1, 2]], np.uint8)
    check(tiff(indices, photometric="palette", colormap=colours), colours.T[indices])
    check(tiff(indices, photometric="palette", colormap=colours * 257), colours.T[indices])


def test_first_frame_of_gif_and_webp():
    frames = [Image.fromarray(np.full((4, 6, 3), value, np.uint8)) for value in (10, 200)]
    for format in ("GIF", "WEBP", "PNG"):
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
        check(data, np.full((4, 6), 10))


def test_cmyk_and_lab_and_ycbcr():
    rgb = resize(COLOUR, 40, 40)
    image = Image.fromarray(rgb)
    check(encode(image.convert("CMYK"), "TIFF"), rgb)
    check(encode(image.convert("CMYK"), "JPEG", quality=100), rgb, 8)
    check(encode(image.convert("YCbCr"), "TIFF"), rgb, 3)
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    data = encode(lab, "TIFF")
    check(data, rgb, 30)  # 8-bit LAB is coarse
    assert np.abs(decode(data, "a").astype(int) - rgb).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation(format, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(COLOUR, format, exif=exif, **options)
    check(data, np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_what_pillow_does_not_turn(orientation):
    upright = [
        COLOUR,
        COLOUR[:, ::-1],
        COLOUR[::-1, ::-1],
        COLOUR[::-1],
        COLOUR.transpose(1, 0, 2),
        np.rot90(COLOUR, -1),
        COLOUR.transpose(1, 0, 2)[::-1, ::-1],
        np.rot90(COLOUR, 1),
    ][orientation - 1]
    tag = [(274, "H", 1, orientation, True)]
    wide = COLOUR.astype(np.uint16) * 257
    assert wide.max() > 4095
    check(tiff(wide, photometric="rgb", extratags=tag), upright)
    cmyk = encode(
        Image.fromarray(COLOUR).convert("CMYK"), "TIFF", tiffinfo={274: orientation}
    )  # goes through Pillow's own turning
    check(cmyk, upright)
    exif = Image.Exif()
    exif[274] = orientation
    plain = png16(wide)
    ihdr, iend = 33, len(plain) - 12
    eight = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    check(plain[:ihdr] + eight + plain[ihdr:], upright)
    check(plain[:iend] + eight + plain[iend:], upright)  # after the pixels


def test_unreadable_orientation_is_none():
    exif = Image.Exif()
    exif[274] = 9
    check(encode(COLOUR, "PNG", exif=exif), COLOUR)
    check(encode(COLOUR, "PNG", exif=b"Exif\0\0nonsense"), COLOUR)
    data = encode(COLOUR, "JPEG", exif=b"Exif\0\0nonsense")
    assert decode(data, "a").shape == COLOUR.shape
    check(tiff(COLOUR, photometric="rgb", extratags=[(274, "H", 1, 0, True)]), COLOUR)


@pytest.mark.parametrize(("largest", "top"), [(255, 255), (256, 4095), (4095, 4095), (4096, 65535), (65535, 65535)])
def test_wide_integers_scale_by_the_depth_they_use(largest, top):
    wide = (RAMP * (largest // 34)).astype(np.uint16)
    wide[0, 0] = largest
    expected = np.rint(wide * 255.0 / top)
    check(tiff(wide), expected)
    check(tiff(wide.astype(np.uint32)), expected)
    check(tiff(wide.astype(np.int32)), expected)
    check(tiff(65535 - wide, photometric="miniswhite"), 255 - np.rint((65535 - wide) * (255 / 65535)), 255 * (top < 0))
    check(encode(wide, "PNG"), expected)
    check(png16(np.dstack([wide] * 3)), expected)
    check(png16(np.dstack([wide, np.full_like(wide, 65535)])), expected)  # alpha has no say in the depth
    check(png16(np.dstack([wide] * 3 + [np.full_like(wide, 65535)])), expected)


def test_full_range_is_value_by_257():
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    check(tiff(wide), np.rint(wide / 257))


def test_declared_depth():
    twelve = RAMP * 7  # no value above 255, yet 12 bits
    packed = tiff(twelve, bitspersample=12, photometric="minisblack")
    check(packed, np.rint(twelve * 255 / 4095))


def test_floats_and_signed():
    unit = (GREY / 255).astype(np.float32)
    check(tiff(unit), GREY)
    check(tiff(unit.astype(np.float64)), GREY)
    check(tiff(unit.astype(np.float16)), GREY, 1)
    stretched = np.rint((GREY - float(GREY.min())) * 255 / float(np.ptp(GREY)))
    check(tiff(unit * 7 - 3), stretched, 1)
    check(tiff(GREY.astype(np.int16) - 99), stretched)
    check(tiff(GREY.astype(np.uint32) * 70000), stretched)
    check(tiff(np.full((3, 4), 7.5, np.float32)), np.zeros((3, 4)))
    check(tiff(np.dstack([unit] * 3), photometric="rgb"), GREY)


def test_values_that_are_not_finite():
    image = np.array([[0, 1, 0.5], [np.nan, np.inf, -np.inf]], np.float32)
    check(tiff(image), np.array([[0, 255, 128], [0, 255, 0]]))
    check(tiff(image * 10), np.array([[0, 255, 128], [0, 255, 0]]))
    check(tiff(np.full((2, 3), np.nan, np.float32)), np.zeros((2, 3)))


def test_channels_of_a_tiff():
    infrared = np.dstack([COLOUR, GREY])
    check(tiff(infrared, photometric="rgb", extrasamples=["unspecified"]), COLOUR)
    many = np.dstack([COLOUR] * 4)
    check(tiff(many, photometric="minisblack", planarconfig="contig"), COLOUR)
    planes = np.ascontiguousarray(COLOUR.transpose(2, 0, 1))
    check(tiff(planes, photometric="rgb", planarconfig="separate"), COLOUR)
    check(tiff(planes, photometric="minisblack"), COLOUR[..., 0])  # three pages: the first
    check(tiff(np.stack([COLOUR, 255 - COLOUR]), photometric="rgb"), COLOUR)
    check(tiff(planes, imagej=True), COLOUR)  # three channels as pages
    check(tiff(np.stack([GREY] * 4), volumetric=True, photometric="minisblack", tile=(16, 16, 16)), GREY)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd", "jpeg", "packbits", "lzma"])
def test_tiff_compression_tiles_and_bigtiff(compression):
    smooth = np.dstack(np.broadcast_arrays(np.arange(64)[:, None], np.arange(96), 99)).astype(np.uint8)
    tolerance = 8 if compression == "jpeg" else 0
    check(tiff(smooth, photometric="rgb", compression=compression), smooth, tolerance)
    check(tiff(smooth, photometric="rgb", compression=compression, tile=(32, 32), bigtiff=True), smooth, tolerance)
    check(tiff(smooth, photometric="rgb", byteorder=">", compression=compression), smooth, tolerance)


def test_interlaced_png():
    header = struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 1)  # 1 × 1, 16-bit grey, Adam7
    interlaced = PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80\0")) + chunk(b"IEND", b"")
    check(interlaced, np.array([[128]]))


def test_content_decides_not_the_name():
    data = encode(COLOUR, "PNG")
    assert np.array_equal(decode(data, "photo.jpg"), COLOUR)
    assert size(data, "scan.tif") == (5, 7)
    assert np.array_equal(decode_label(encode(GREY, "PNG"), "label.tif"), GREY)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


def test_resize():
    smooth = resize(COLOUR, 40, 60)
    assert smooth.shape == (40, 60, 3)
    assert smooth.dtype == np.uint8
    assert np.array_equal(resize(smooth, 40, 60), smooth)
    flat = np.full((64, 64, 3), 255, np.uint8)
    flat[::2] = 0
    assert np.abs(resize(flat, 8, 8).astype(int) - 128).max() < 12  # antialiased: stripes average out
    assert resize(COLOUR, 1, 1).shape == (1, 1, 3)
    assert np.array_equal(resize(COLOUR[:, ::-1], 5, 7), COLOUR[:, ::-1])  # strides do not matter


def test_resize_window():
    smooth = resize(COLOUR, 40, 60)
    assert np.array_equal(resize(smooth, 10, 20, (3, 5, 10, 20)), smooth[3:13, 5:25])
    whole = resize(smooth, 20, 30, (0, 0, 40, 60))
    assert np.array_equal(whole, resize(smooth, 20, 30))
    assert np.array_equal(whole[5:15, 5:15], resize(smooth, 10, 10, (10, 10, 20, 20)))  # reads beyond the window
    third = 40 / 3
    assert resize(smooth, 9, 9, (2 * third, 0.5, third, 10.25)).shape == (9, 9, 3)  # ends at 40.000000000000001
    for outside in [(-1, 0, 5, 5), (0, 0, 41, 5), (0, 0, 5, 61), (0, 0, 0, 0)]:
        with pytest.raises(ValueError, match=r"[Bb]ox"):
            resize(smooth, 4, 4, outside)


def test_a_format_without_magic_is_known_by_its_suffix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "_READ", (*formats._READ, Format("toy", (".xyz",), open=pillow.open_png)))
    odd = b"\0" * 4 + encode(COLOUR, "PNG")
    with pytest.raises(formats.DecodeError, match=r"a\.abc: not a JPEG"):
        decode(odd, "a.abc")
    with pytest.raises(formats.DecodeError) as caught:  # the toy's reader was asked, which wants a PNG
        decode(odd, "a.xyz")
    assert "not a JPEG" not in str(caught.value)
