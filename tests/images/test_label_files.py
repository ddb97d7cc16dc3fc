"""Label maps: the stored numbers, nothing scaled, nothing turned."""

import struct
import zlib

import numpy as np
import pytest
from image_files import COLOUR, GREY, PNG, RNG, check, chunk, encode, png16, tiff
from PIL import Image

from pipeline.core.errors import ConfigError
from pipeline.images.formats import decode_label
from pipeline.images.pixels import DecodeError


def test_labels_keep_their_numbers():
    ids = np.array([[0, 1, 2, 255], [3, 3, 7, 9]], np.uint8)
    wide = ids.astype(np.uint16) * 200
    palette = Image.fromarray(ids)
    palette.putpalette(RNG.integers(0, 256, 768, dtype=np.uint8).tobytes())
    exif = Image.Exif()
    exif[274] = 6
    cases = [
        (encode(ids, "PNG"), ids),
        (encode(ids, "PNG", exif=exif), ids),
        (encode(palette, "PNG"), ids),
        (encode(palette, "TIFF"), ids),
        (encode(wide, "PNG"), wide),
        (encode(Image.fromarray(ids > 2), "PNG"), ids > 2),
        (tiff(ids), ids),
        (tiff(ids, photometric="miniswhite"), ids),
        (tiff(ids, extratags=[(274, "H", 1, 6, True)]), ids),
        (tiff(wide, compression="deflate"), wide),
        (tiff(ids.astype(np.int32) - 5), ids.astype(int) - 5),
        (tiff(ids > 2), ids > 2),
        (tiff(ids.astype(np.uint64)), ids),
    ]
    for data, expected in cases:
        label = decode_label(data, "l")
        assert label.dtype == np.int32
        assert np.array_equal(label, np.asarray(expected))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_few_bits_are_not_stretched(bits):
    ids = np.arange(8, dtype=np.uint8) % 2**bits
    packed = np.packbits(np.unpackbits(ids[:, None], axis=1)[:, -bits:].ravel()).tobytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0))
    data = PNG + header + chunk(b"IDAT", zlib.compress(b"\0" + packed)) + chunk(b"IEND", b"")
    assert np.array_equal(decode_label(data, "l")[0], ids)
    check(data, np.rint(ids[None] * 255.0 / (2**bits - 1)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(COLOUR, "PNG"), "one channel, this one has 3"),
        (encode(np.dstack([GREY, GREY]), "PNG"), "one channel, this one has 2"),
        (png16(COLOUR.astype(np.uint16)), "one channel"),
        (tiff(COLOUR, photometric="rgb"), "one channel, this one has 3"),
        (encode(GREY, "JPEG"), "must be a PNG, TIFF"),
        (tiff(GREY.astype(np.float32)), "integers, this one holds float32"),
        (tiff(GREY.astype(np.uint32) + 2**31), "are no class ids"),
    ],
)
def test_no_label(data, reason):
    with pytest.raises(ConfigError, match=f"labels/x.png: .*{reason}") as caught:
        decode_label(data, "labels/x.png")
    assert "single-channel PNG" in caught.value.next


@pytest.mark.parametrize("data", [encode(GREY, "PNG"), tiff(GREY), encode(GREY.astype(np.uint16), "PNG")])
def test_damaged_label(data):
    with pytest.raises(DecodeError, match="l: "):
        decode_label(data[: len(data) * 2 // 3], "l")
