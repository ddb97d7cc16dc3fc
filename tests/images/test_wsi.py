"""Whole slides through OpenSlide, in Aperio's layout: pixels, levels, scale, glass, a bucket, parts of a slide."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openslide
import pytest
from raster_files import SCENE, slide, tissue

from pipeline.core import extras
from pipeline.core.errors import ConfigError, StageError
from pipeline.datasets.folder import scan
from pipeline.images import files, wsi
from pipeline.images.files import Memory, stored
from pipeline.images.formats import open_image, open_source
from pipeline.images.pixels import DecodeError
from pipeline.images.source import Source

OLD = 1_500_000_000


def opened(path: Path) -> Source:
    return open_image(stored(str(path.parent), path.name))


def everywhere(image: Source, size: tuple[int, int] | None = None) -> np.ndarray:
    return image.valid((0, 0, *image.size), size or image.size)


def test_the_pixels_and_levels_of_a_slide(tmp_path):
    big = np.kron(SCENE, np.ones((4, 4, 1), np.uint8))
    path = slide(tmp_path / "a.svs", [big, big[::2, ::2].copy(), SCENE])
    assert openslide.OpenSlide.detect_format(path) == "aperio"
    image = opened(path)
    assert [level[:2] for level in image.levels] == [(600, 884), (300, 442), (150, 221)]
    assert image.pixel_size == (0.5, 0.5, "µm")
    assert np.array_equal(image.pixels(), big)
    assert np.array_equal(image.read((100, 300, 64, 64), (64, 64)), big[100:164, 300:364])
    assert np.array_equal(image.read((0, 0, 600, 884), (150, 221)), SCENE)


def test_a_slide_in_memory_has_the_same_pixels(tmp_path):
    path = slide(tmp_path / "a.svs", [SCENE])
    assert np.array_equal(open_image(Memory("a.svs", path.read_bytes())).pixels(), opened(path).pixels())


def test_glass_is_without_content(tmp_path):
    image = opened(slide(tmp_path / "a.svs", [tissue()]))
    assert image.sparse
    found = everywhere(image)
    assert found[130:382, 130:382].all()
    assert not found[:120].any()
    assert not found[:, 392:].any()
    assert not image.valid((0, 0, 100, 100), (16, 16)).any()
    assert everywhere(image, (64, 64)).mean() == pytest.approx(0.25, abs=0.05)
    assert np.array_equal(image.pixels()[:100], tissue()[:100]), "glass is shown as it is"


def test_a_slide_of_glass_alone(tmp_path):
    assert not everywhere(opened(slide(tmp_path / "a.svs", [np.full((300, 300, 3), 243, np.uint8)]))).any()


def test_a_dark_slide_has_content_everywhere(tmp_path):
    assert everywhere(opened(slide(tmp_path / "a.svs", [np.full((300, 300, 3), 9, np.uint8)]))).all()


@pytest.mark.parametrize("mpp", [None, 0, 1e20])
def test_no_scale(mpp, tmp_path):
    assert opened(slide(tmp_path / "a.svs", [SCENE], mpp)).pixel_size is None


def test_a_slide_that_changes_is_noticed(tmp_path):
    path = slide(tmp_path / "a.svs", [SCENE])
    os.utime(path, (OLD, OLD))
    (item,) = scan(str(tmp_path), "images").items
    image = open_source(str(tmp_path), item.path, item.sha256, item.size)
    image.read((0, 0, 64, 64), (64, 64))
    os.utime(path, (OLD + 9, OLD + 9))
    with pytest.raises(StageError, match=r"a\.svs changed since it was listed"):
        image.read((64, 64, 64, 64), (64, 64))
    with pytest.raises(StageError, match=r"a\.svs changed since it was listed"):
        open_source(str(tmp_path), item.path, item.sha256, item.size + 1)


@pytest.mark.parametrize("data", [b"rubbish" * 99, b"II*\0rubbish"])
def test_what_is_no_slide(data, tmp_path):
    (tmp_path / "a.svs").write_bytes(data)
    with pytest.raises(DecodeError, match=r"^a\.svs: cannot be opened by OpenSlide") as caught:
        opened(tmp_path / "a.svs")
    assert str(tmp_path) not in str(caught.value)


def test_without_openslide(tmp_path, monkeypatch):
    path = slide(tmp_path / "a.svs", [SCENE])
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"a\.svs, a whole slide, needs openslide(.|\n)*stegoflow\[wsi\]"):
        opened(path)


# What belongs to a slide ----------------------------------------------------------------------------------------------


def test_a_slide_of_a_bucket_is_copied_and_the_copy_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(wsi, "local_folder", lambda url: None)
    monkeypatch.setattr(files, "local_folder", lambda url: None)
    wsi._copy.cache_clear()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    path = slide(tmp_path / "root/deep/a.svs", [SCENE])
    file = stored(str(tmp_path / "root"), "deep/a.svs")
    for _ in range(2):
        assert np.array_equal(open_image(file).pixels(), SCENE)
    assert len(list(temporary.rglob("*.svs"))) == 1
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    wsi._copy.cache_clear()
    with pytest.raises(StageError, match=r"is copied from the bucket to be read, which needs"):
        open_image(file)
    wsi._copy.cache_clear()
    assert list(temporary.rglob("*.svs")) == []
    assert path.exists()


def test_the_parts_of_a_mirax_slide(tmp_path, monkeypatch):
    """They are listed with it, copied with it, and are no images; its list of parts names its own folder alone."""
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data0000.dat", "a/Index.dat", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(
            b"[HIERARCHICAL]\r\nINDEXFILE = ../../secret\r\n" if name.endswith("ini") else b"x"
        )
    items = scan(str(tmp_path), "images").items
    assert [item.path for item in items] == ["a.mrxs", "b.png"]
    assert "names the part '../../secret', which is not in its folder" in items[0].error
    (tmp_path / "a/Data0000.dat").write_bytes(b"other")
    after, _ = scan(str(tmp_path), "images").items
    assert after.sha256 != items[0].sha256
    monkeypatch.setattr(wsi, "local_folder", lambda url: None)
    monkeypatch.setattr(files, "local_folder", lambda url: None)
    file = stored(str(tmp_path), "a.mrxs")
    copy = wsi._copy(file.root, file.name, file.tag)
    assert sorted(p.relative_to(copy.folder).as_posix() for p in copy.folder.rglob("*.*")) == [
        "a.mrxs", "a/Data0000.dat", "a/Index.dat", "a/Slidedat.ini",
    ]  # fmt: skip
    del copy
    wsi._copy.cache_clear()
    monkeypatch.undo()
    (tmp_path / "a/Slidedat.ini").unlink()
    with pytest.raises(DecodeError, match=r"Slidedat\.ini, is missing"):
        open_image(stored(str(tmp_path), "a.mrxs"))


def dicom(series: str, more: bytes = b"") -> bytes:
    value = series.encode() + b"\0" * (len(series) % 2)
    return bytes(128) + b"DICM" + b"\x20\x00\x0e\x00UI" + len(value).to_bytes(2, "little") + value + more


def test_the_files_of_a_dicom_series_are_one_image(tmp_path):
    for name, series in (("s/1.dcm", "1.2.3"), ("s/2.dcm", "1.2.3"), ("s/3.dcm", "1.2.4"), ("t/1.dcm", "1.2.3")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(dicom(series, name.encode()))
    found = scan(str(tmp_path), "images")
    items, notes = found.items, found.notes
    assert [item.path for item in items] == ["s/1.dcm", "s/3.dcm", "t/1.dcm"]
    assert all("cannot be opened by OpenSlide" in item.error for item in items)
    assert "3 of 3 images cannot be read" in notes[0]
    before = items[0].sha256
    (tmp_path / "s/2.dcm").write_bytes(dicom("1.2.3", b"changed"))
    assert scan(str(tmp_path), "images").items[0].sha256 != before
