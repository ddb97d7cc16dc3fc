"""OME-Zarr 0.4 and 0.5: axes in any order, channels by name, planes, levels, and nothing that could run code."""

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raster_files import BANDS, SCENE, edit, ome_zarr

from pipeline.core.errors import ConfigError
from pipeline.datasets.folder import scan
from pipeline.images import files, ngff
from pipeline.images.files import Folder
from pipeline.images.formats import LabelWindows, open_image, open_label, open_source, planes, read_label
from pipeline.images.pixels import DecodeError
from pipeline.images.reading import readings
from pipeline.images.source import Source

CYX = np.ascontiguousarray(np.moveaxis(BANDS, -1, 0))
NAMES = ("DAPI", "GFP", "RFP", "Cy5")
EXPECTED = np.rint(BANDS[..., [2, 0, 3]] / 257).astype(np.uint8)
ALL = [0, 65535]


def opened(path: Path, channels: Any = None, values: Any = None, plane: dict[str, int] | None = None) -> Source:
    return open_image(Folder(str(path.parent), path.name, 0), readings(channels, values)[0], plane)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("bucket", [False, True])
def test_channels_by_name_and_the_scale(version, bucket, tmp_path, monkeypatch):
    if bucket:  # through obstore, as in a bucket
        monkeypatch.setattr(files, "local_folder", lambda url: None)
    levels = [CYX, CYX[:, ::2, ::2]]
    image = opened(
        ome_zarr(tmp_path / "a.zarr", levels, version=version, channels=NAMES, scale=(1, 0.65, 0.5)),
        ["RFP", 1, "cy5"],
        ALL,
    )
    assert image.channels == NAMES
    assert image.pixel_size == (0.5, 0.65, "µm")
    assert [level[:2] for level in image.levels] == [(150, 221), (75, 111)]
    assert np.array_equal(image.pixels(), EXPECTED)
    assert np.array_equal(image.read((60, 70, 80, 90), (80, 90)), EXPECTED[60:140, 70:160])
    coarse = np.rint(BANDS[::2, ::2][..., [2, 0, 3]] / 257)
    assert np.abs(image.read((0, 0, 150, 221), (75, 111)) - coarse).max() <= 1


@pytest.mark.parametrize("axes", ["".join(order) for order in itertools.permutations("cyx")])
@pytest.mark.parametrize("options", [{"chunks": (40, 40, 40)}, {"chunks": (3, 100, 70)}, {"chunks": (300, 300, 300)}])
def test_axes_in_any_order(axes, options, tmp_path):
    stored = CYX.transpose(["cyx".index(axis) for axis in axes])
    assert np.array_equal(
        opened(ome_zarr(tmp_path / "a.zarr", [stored], axes, **options), [3, 1, 4], ALL).pixels(), EXPECTED
    )


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "uint8"},
        {"dtype": ">u2"},
        {"dtype": "float32"},
        {"dtype": "int64"},
        {"shards": (1, 128, 128)},
        {"compressors": None},
        {"order": "F"},
    ],
)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_types_shards_and_codecs(options, version, tmp_path):
    options = dict(options)
    if version == "0.4":
        options.pop("shards", None)
    else:
        options.pop("order", None)
    dtype = np.dtype(options.pop("dtype", "uint16"))
    stored = (CYX // 50).astype(dtype)
    image = opened(ome_zarr(tmp_path / "a.zarr", [stored], version=version, **options), None, [0, 255])
    assert np.array_equal(image.pixels(), np.moveaxis(stored[:3].clip(0, 255), 0, -1).astype(np.uint8))


def test_by_default_percentiles_of_the_image(tmp_path):
    image = opened(ome_zarr(tmp_path / "a.zarr", [CYX]))
    low, high = np.percentile(BANDS[..., :3].reshape(-1, 3), [2, 98], axis=0)
    expected = np.clip((BANDS[..., :3] - low) / (high - low), 0, 1) * 255
    assert np.abs(image.pixels() - expected).max() <= 0.51
    small = opened(ome_zarr(tmp_path / "b.zarr", [np.moveaxis(SCENE, -1, 0)]))
    assert np.array_equal(small.pixels(), SCENE)


def test_planes_are_images_of_their_own(tmp_path):
    stack = np.stack([CYX // n for n in range(1, 7)]).reshape(2, 3, *CYX.shape)  # t, z, c, y, x
    path = ome_zarr(tmp_path / "images/a.zarr", [stack, stack[:, ::2, :, ::2, ::2]], "tzcyx", channels=NAMES)
    expected = [{"t": t, "z": z} for t in range(2) for z in range(3)]
    assert planes(Folder(str(path.parent), "a.zarr", 0)) == [(keys, 150, 221) for keys in expected]
    items = scan(str(tmp_path), "images").items
    assert [item.id for item in items] == [f"a#t={keys['t']},z={keys['z']}.zarr" for keys in expected]
    assert len({item.sha256 for item in items}) == 1
    for n, item in enumerate(items, 1):
        image = open_source(str(tmp_path), item.path, item.sha256, item.size, readings(["DAPI"], ALL)[0])
        assert np.array_equal(image.pixels()[..., 0], np.rint(CYX[0] // n / 257).astype(np.uint8))
        assert (item.height, item.width) == image.size
    with pytest.raises(DecodeError, match=r"has no plane z=3"):
        opened(path, plane={"z": 3})


def test_series_of_bioformats2raw(tmp_path):
    path = tmp_path / "a.zarr"
    ome_zarr(path, [CYX])
    edit(
        path / "zarr.json", lambda meta: meta.update(attributes={"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
    )
    for number, level in enumerate((CYX, CYX[:, :70])):
        ome_zarr(path / str(number), [level])
    assert planes(Folder(str(tmp_path), "a.zarr", 0)) == [({"series": 0}, 150, 221), ({"series": 1}, 70, 221)]
    assert opened(path, plane={"series": 1}).size == (70, 221)


def test_a_folder_is_listed_once_and_named_by_its_content(tmp_path):
    for version in ("0.4", "0.5"):
        ome_zarr(tmp_path / f"images/{version}.zarr", [CYX], version=version)
    found = scan(str(tmp_path), "images")
    items, notes = found.items, found.notes
    assert [item.path for item in items] == ["images/0.4.zarr", "images/0.5.zarr"]
    assert [item.error for item in items] == ["", ""]
    assert "more than three channels" in notes[0]
    for name in ("0.4.zarr/.zattrs", "0.5.zarr/zarr.json"):
        edit(tmp_path / "images" / name, lambda meta: meta.update(note="changed"))
    chunk = next(path for path in (tmp_path / "images/0.5.zarr/0/c").rglob("*") if path.is_file())
    after = scan(str(tmp_path), "images").items
    assert all(a.sha256 != b.sha256 for a, b in zip(items, after, strict=True))
    chunk.unlink()
    last = scan(str(tmp_path), "images").items
    assert [a.sha256 == b.sha256 for a, b in zip(after, last, strict=True)] == [True, False]


def test_a_label_image(tmp_path):
    label = (SCENE[..., 0] // 60).astype(np.uint16)
    path = ome_zarr(tmp_path / "l.zarr", [label], "yx")
    assert np.array_equal(read_label(Folder(str(tmp_path), path.name, 0)), label)
    ome_zarr(tmp_path / "m.zarr", [label.astype(np.float32)], "yx")
    with pytest.raises(ConfigError, match=r"m\.zarr: a label must hold integers"):
        read_label(Folder(str(tmp_path), "m.zarr", 0))


def test_a_large_label_image_is_read_by_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(ngff, "SMALL", 1000)
    label = (SCENE[..., 0] // 60).astype(np.uint16)
    path = ome_zarr(tmp_path / "l.zarr", [label, label[::2, ::2]], "yx")
    found = open_label(Folder(str(tmp_path), path.name, 0))
    assert isinstance(found, LabelWindows)
    assert np.array_equal(found[20:141, 100:], label[20:141, 100:])


# Refused --------------------------------------------------------------------------------------------------------------


def change(path: str, *steps: Any) -> Any:
    """A change of one value of a JSON document: (file, function that makes it)."""

    def make(root: Path) -> None:
        def inner(meta: Any) -> None:
            for step in steps[:-2]:
                meta = meta[step]
            meta[steps[-2]] = steps[-1]

        edit(root / path, inner)

    return make


SCALES = ("attributes", "ome", "multiscales")


@pytest.mark.parametrize(
    ("version", "make", "why"),
    [
        ("0.5", change("zarr.json", "attributes", {}), "has no multiscales"),
        ("0.5", change("zarr.json", *SCALES, []), "has no multiscales"),
        ("0.5", change("zarr.json", *SCALES, 0, "axes", []), "y and x are needed"),
        ("0.5", change("zarr.json", *SCALES, 0, "axes", 0, "name", "y"), "y and x are needed once"),
        ("0.5", change("zarr.json", *SCALES, 0, "axes", [{"name": "y"}, {"name": "x"}]), "other than the 2 axes"),
        ("0.5", change("zarr.json", *SCALES, 0, "datasets", 1, "path", "7"), "a level is missing: there is no array 7"),
        ("0.5", change("zarr.json", *SCALES, 0, "datasets", 1, "path", "0"), "do not get smaller"),
        ("0.5", change("zarr.json", *SCALES, 0, "datasets", 0, "path", "../b.zarr/0"), "not below it"),
        ("0.5", change("zarr.json", *SCALES, 0, "datasets", 0, "path", "/etc"), "not below it"),
        ("0.5", change("zarr.json", "attributes", "ome", {"plate": {}}), "is a plate of many images"),
        ("0.5", lambda root: (root / "zarr.json").write_text("{"), "cannot be decoded"),
        ("0.5", lambda root: (root / "zarr.json").unlink(), "neither zarr.json nor .zattrs"),
        ("0.5", change("0/zarr.json", "data_type", "string"), "holds string: only plain numbers"),
        ("0.5", change("0/zarr.json", "codecs", [{"name": "numcodecs.pickle"}]), "compressed by 'numcodecs.pickle'"),
        ("0.5", change("0/zarr.json", "codecs", [{"name": "sharding_indexed", "configuration": {"codecs": [
            {"name": "vlen-utf8"}]}}]), "compressed by 'vlen-utf8'"),
        ("0.4", change("0/.zarray", "dtype", "|O"), "only plain numbers are read"),
        ("0.4", change("0/.zarray", "dtype", [["a", "<u2"]]), "only plain numbers are read"),
        ("0.4", change("0/.zarray", "filters", [{"id": "pickle"}]), "only plain numbers are read"),
        ("0.4", change("0/.zarray", "compressor", {"id": "pickle"}), "compressed by 'pickle'"),
        ("0.4", lambda root: (root / "0/.zarray").unlink(), "a level is missing"),
        ("0.4", change(".zattrs", "multiscales", 0, "datasets", 0, "path", ".."), "not below it"),
    ],
)  # fmt: skip
def test_what_is_refused(version, make, why, tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", [CYX, CYX[:, ::2, ::2]], version=version)
    make(path)
    with pytest.raises(DecodeError, match=rf"^a\.zarr: .*{why}"):
        opened(path)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    """Not from an array of objects, nor from consolidated metadata that say otherwise than the array's own."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True)
    path = ome_zarr(tmp_path / "a.zarr", [CYX], version="0.4")
    trapped = {**json.loads((path / "0/.zarray").read_text()), "dtype": "|O", "filters": [{"id": "pickle"}]}
    consolidated = {"zarr_consolidated_format": 1, "metadata": {".zgroup": {"zarr_format": 2}, "0/.zarray": trapped}}
    (path / ".zmetadata").write_text(json.dumps(consolidated))
    for chunk in (path / "0").glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DecodeError, match=r"^a\.zarr: cannot be decoded"):
        opened(path).pixels()
    assert not (tmp_path / "sprung").exists()


def test_chunks_that_are_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ngff, "LARGEST", 10_000)
    path = ome_zarr(tmp_path / "a.zarr", [CYX], chunks=(1, 150, 221))
    with pytest.raises(DecodeError, match=r"chunks of 1 × 150 × 221: too large"):
        opened(path)


@pytest.mark.parametrize(
    "make",
    [
        change("zarr.json", *SCALES, 0, "axes", 1, "unit", "parsec"),
        change("zarr.json", *SCALES, 0, "datasets", 0, "coordinateTransformations", []),
        change("zarr.json", *SCALES, 0, "datasets", 0, "coordinateTransformations", 0, "scale", [1, 0, 0]),
        change("zarr.json", *SCALES, 0, "datasets", 0, "coordinateTransformations", 0, "scale", [1, 1e300, 1e300]),
    ],
)
def test_a_scale_that_cannot_be_is_none(make, tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", [CYX])
    make(path)
    assert opened(path).pixel_size is None
