"""What `pipeline.images.formats` refuses, and how it says so."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from image_files import COLOUR, PNG, RNG, chunk, encode, png16, size, tiff
from PIL import Image

from pipeline.core.errors import ConfigError
from pipeline.images import pillow, source
from pipeline.images import tiff as tiff_module
from pipeline.images.formats import decode, decode_label
from pipeline.images.pixels import DecodeError


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\n", "not a JPEG"),
        (b"version https://git-lfs.github.com/spec/v1", "begins with b'version https:/"),
        (b"<html></html>" * 9, "not a JPEG"),
        (b"%PDF-1.4" + bytes(99), "not a JPEG"),
        (PNG, "decoded"),
        (b"\xff\xd8\xff", "decoded"),
        (b"II*\0", "decoded"),
        (b"BM", "decoded"),
        (b"GIF89a", "decoded"),
        (b"RIFF\0\0\0\0WAVEfmt ", "decoded"),
    ],
)
def test_no_image(data, reason):
    for read in (decode, size):
        with pytest.raises(DecodeError, match=r"^folder/x\.png: .*" + reason):
            read(data, "folder/x.png")
    with pytest.raises((DecodeError, ConfigError), match=r"^folder/x\.png: .*(must be a PNG, TIFF|" + reason + ")"):
        decode_label(data, "folder/x.png")


BODY = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
FILES = {
    **{format: encode(BODY, format) for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP")},
    **{f"TIFF {kind}": tiff(BODY, photometric="rgb", compression=kind) for kind in (None, "deflate", "lzw", "jpeg")},
    "TIFF tiles": tiff(BODY, photometric="rgb", tile=(16, 16)),
    "TIFF CMYK": encode(Image.fromarray(BODY).convert("CMYK"), "TIFF"),
    "PNG 16": png16(BODY.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("keep", [0.02, 0.1, 0.5, 0.9])
def test_cut_short(kind, keep):
    data = FILES[kind]
    with pytest.raises(DecodeError, match="a: "):
        decode(data[: int(keep * len(data))], "a")


@pytest.mark.parametrize("kind", ["PNG", "PNG 16", "TIFF deflate"])
def test_damaged_inside(kind):
    data = bytearray(FILES[kind])
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    with pytest.raises(DecodeError, match="a: cannot be decoded"):
        decode(bytes(data), "a")


@pytest.mark.parametrize("kind", FILES)
def test_noise_in_a_header_raises_nothing_else(kind):
    for seed in range(20):
        noise = bytearray(FILES[kind])
        generator = np.random.default_rng(seed)
        for at in generator.integers(0, 200, 8):
            noise[at] = generator.integers(256)
        for read in (decode, size):
            with contextlib.suppress(DecodeError):
                read(bytes(noise), "a")


def huge_png(height, width, bits=8):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return PNG + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def huge_tiff(height, width):
    data = tiff(np.zeros((3, 4), np.uint8))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages[0].tags
        places = [(tags[257].valueoffset, height), (tags[256].valueoffset, width)]
    changed = bytearray(data)
    for at, value in places:
        changed[at : at + 2] = struct.pack("<H", value)
    return bytes(changed)


@pytest.mark.parametrize("data", [huge_png(20000, 20000), huge_png(20000, 20000, 16), huge_tiff(20000, 20000)])
def test_decompression_bomb(data):
    for read in (decode, size, decode_label):
        with pytest.raises(DecodeError, match=r"a: (20000 × 20000 pixels are more than the 268 megapixels|cut short)"):
            read(data, "a")


def test_large_but_allowed_sizes_make_pillow_neither_warn_nor_raise():
    assert size(huge_png(14000, 15000), "a") == (14000, 15000)  # Pillow's own hard limit is 179 megapixels
    assert size(huge_png(16384, 16384), "a") == (16384, 16384)


def test_no_pixels():
    with pytest.raises(DecodeError, match="a: "):
        size(huge_tiff(0, 4), "a")


def test_complex_tiff_is_refused():
    with pytest.raises(DecodeError, match="complex64"):
        decode(tiff(np.ones((3, 4), np.complex64)), "a")


def test_many_channels_have_a_limit(monkeypatch):
    monkeypatch.setattr(source, "MAX_PIXELS", 40)
    assert decode(tiff(np.zeros((5, 7, 4), np.uint8)), "a").shape == (5, 7, 3)
    nine = tiff(np.zeros((5, 7, 9), np.uint8), photometric="minisblack", planarconfig="contig")
    assert decode(nine, "a").shape == (5, 7, 3), "the three that are seen are decoded alone"
    monkeypatch.setattr(tiff_module, "FEW", 9)
    with pytest.raises(DecodeError, match="megapixels"):
        decode(nine, "a")


def test_lack_of_memory_is_no_decode_error(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(pillow, "rgb_pixels", fail)
    with pytest.raises(MemoryError):
        decode(encode(COLOUR, "PNG"), "a")
