"""Bad input, one test per row of docs/bad-input.md: a listed skip or a sentence that helps, never a traceback.

Everything goes through the command line, so that the exit status is the real one.
"""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import markupsafe
import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
import yaml
from corpora import BACKBONE, CLASSES, picture, small, write_corpus
from imagecodecs import png_encode
from PIL import Image, ImageCms

from pipeline.api import open_run
from pipeline.backbones import vit as backbones
from pipeline.cli import main as cli
from pipeline.core.pieces import Pieces
from pipeline.core.store import ENCODING_VERSION, Store
from pipeline.images import files
from pipeline.images.formats import decode
from pipeline.results import Run
from pipeline.stages import features


def case(text: str, status: int, *values: Any) -> Any:
    """One parametrised case (status, *values), named `text`; docs/bad-input.md has a row for it."""
    return pytest.param(status, *values, id=text)


def row(text: str, status: int) -> pytest.MarkDecorator:
    """Name a test function, which takes `status`, `text`."""
    return pytest.mark.parametrize("status", [case(text, status)])


def stegoflow(*args: Any) -> tuple[int, str, str]:
    """Run `stegoflow ARGS` in this process: (exit status, stdout, stderr). What it does not catch is raised here."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["stegoflow", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    return int(stop.value.code or 0), out.getvalue(), err.getvalue()


def answer(*args: Any) -> dict[str, Any]:
    """The JSON object that a command prints which must succeed."""
    status, out, err = stegoflow(*args, "--json")
    assert status == 0, out + err
    return json.loads(out)


def refused(status: int, *args: Any, named: tuple[str, ...]) -> None:
    """The command ends with that status and one line of error, which names things, and one of what to do next."""
    got, _, err = stegoflow(*args)
    said = re.search(r"^error: .+\n  next: .+$", err, re.MULTILINE)
    assert said, err
    assert got == status
    for text in named:
        assert text in said[0]


def write_config(place: Path, root: Path | str, weights: Path, store: Path | str = "", **sections: Any) -> Path:
    """A config file in a folder, by default with a new store beside it."""
    path = place / "config.yaml"
    data = small(Path(root), store or place / "store", weights, **sections)
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A file or folder that cannot be read; for root, who may read everything, a system that says so."""
    mode = path.stat().st_mode
    path.chmod(0)
    real: dict[str, Callable[..., Any]] = {"open": io.open, "scandir": os.scandir}

    def refuse(name: str) -> Callable[..., Any]:
        def call(file: Any, *args: Any, **options: Any) -> Any:
            if str(file) == str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real[name](file, *args, **options)

        return call

    try:
        with pytest.MonkeyPatch.context() as patch:
            if os.access(path, os.R_OK):
                patch.setattr(io, "open", refuse("open"))
                patch.setattr(os, "scandir", refuse("scandir"))
            yield
    finally:
        path.chmod(mode)


# Images ---------------------------------------------------------------------------------------------------------------

HEIGHT, WIDTH = 40, 56
Y, X = np.mgrid[:HEIGHT, :WIDTH]
BODY = np.dstack([40 + Y * 4, 60 + X * 2, np.full_like(X, 110)]).astype(np.uint8)
"""Different in each corner, and smooth and pale, so that JPEG and LAB keep it."""
GREY = BODY[..., 0]


def saved(image: np.ndarray | Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, format, **options)
    return buffer.getvalue()


def tiff(image: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def bomb(height: int, width: int) -> bytes:
    """A small PNG that claims to be large."""
    data = bytearray(saved(BODY, "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def lab() -> bytes:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return saved(ImageCms.profileToProfile(Image.fromarray(BODY), *profiles, outputMode="LAB"), "TIFF")


def animation() -> bytes:
    first, second = (Image.fromarray(image).convert("L") for image in (GREY, 255 - GREY))
    return saved(first, "GIF", save_all=True, append_images=[second])


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return saved(BODY, "JPEG", quality=95, exif=exif)


UPRIGHT = {
    1: BODY,
    2: BODY[:, ::-1],
    3: BODY[::-1, ::-1],
    4: BODY[::-1],
    5: BODY.transpose(1, 0, 2),
    6: np.rot90(BODY, -1),
    7: BODY.transpose(1, 0, 2)[::-1, ::-1],
    8: np.rot90(BODY, 1),
}
PALETTE = Image.fromarray(BODY).quantize(32)
UNIT = (GREY / 255).astype(np.float32)
HOLES = np.where(X < 9, np.nan, np.where(X > 50, np.inf, UNIT)).astype(np.float32)
LINE = np.repeat(BODY[:, 5:6], -(-100_000 // HEIGHT), axis=0)[:100_000]
LONG = np.repeat(BODY[:, :10], 60_000 // HEIGHT, axis=0)

IMAGES = [
    case("PNG bytes named .jpg", 0, "named.jpg", saved(BODY, "PNG"), BODY, 0),
    case("1×1 pixel", 0, "one.png", saved(BODY[:1, :1], "PNG"), BODY[:1, :1], 0),
    case("60 000×10 pixels", 0, "wide.png", saved(LONG.transpose(1, 0, 2), "PNG"), LONG.transpose(1, 0, 2), 0),
    case("10×60 000 pixels", 0, "tall.png", saved(LONG, "PNG"), LONG, 0),
    case("100 000×1 pixels", 0, "flat.png", saved(LINE.transpose(1, 0, 2), "PNG"), LINE.transpose(1, 0, 2), 0),
    case("1×100 000 pixels", 0, "thin.png", saved(LINE, "PNG"), LINE, 0),
    case("CMYK JPEG", 0, "cmyk.jpg", saved(Image.fromarray(BODY).convert("CMYK"), "JPEG", quality=95), BODY, 12),
    case("LAB TIFF", 0, "lab.tif", lab(), BODY, 20),
    case("16-bit PNG", 0, "sixteen.png", bytes(png_encode(BODY.astype(np.uint16) * 257)), BODY, 0),
    case("16-bit TIFF", 0, "deep.tif", tiff(BODY.astype(np.uint16) * 257, photometric="rgb"), BODY, 0),
    case("float TIFF", 0, "float.tif", tiff(UNIT), np.dstack([GREY] * 3), 0),
    case(
        "float TIFF with NaN and infinity",
        0,
        "holes.tif",
        tiff(HOLES),
        np.dstack([np.where(X < 9, 0, np.where(X > 50, 255, GREY))] * 3),
        0,
    ),
    case(
        "palette PNG with transparency",
        0,
        "palette.png",
        saved(PALETTE, "PNG", transparency=0),
        np.array(PALETTE.convert("RGB")),
        0,
    ),
    case("animated GIF", 0, "animated.gif", animation(), np.dstack([GREY] * 3), 0),
    case("constant colour", 0, "constant.png", saved(np.full_like(BODY, 77), "PNG"), np.full_like(BODY, 77), 0),
    *(
        case(f"EXIF orientation {number}", 0, f"exif{number}.jpg", turned(number), upright, 12)
        for number, upright in UPRIGHT.items()
    ),
]
SKIPPED = [
    case("truncated, its header readable", 0, "truncated.png", saved(BODY, "PNG")[:90], (HEIGHT, WIDTH)),
    case("zero bytes", 0, "zero.jpg", b"", None),
    case("text named .png", 0, "text.png", b"no picture\n", None),
    case("a decompression bomb: a small PNG of 30 000×30 000 pixels", 0, "bomb.png", bomb(30000, 30000), None),
]


@dataclass(frozen=True)
class Exported:
    """A run, its label maps as files, and what was left out."""

    result: dict[str, Any]
    store: Path
    out: Path
    skipped: list[str]

    @property
    def run(self) -> Run:
        return open_run(self.store, self.result["run"])

    @property
    def failed(self) -> list[str]:
        return sorted(self.run.artifact("features").manifest["failed"])

    @property
    def report(self) -> str:
        return Path(self.result["report"]).read_text(encoding="utf-8")

    def mask(self, name: str) -> np.ndarray:
        with Image.open(self.out / name) as image:
            return np.asarray(image)


def run_and_export(place: Path, root: Path, vit: Path, **sections: Any) -> Exported:
    config = write_config(place, root, vit, **sections)
    result = answer("run", config)
    options = ("--as", "palette", "--out", place / "out", "--store", place / "store")
    done = answer("export", result["run"], *options)
    return Exported(result, place / "store", place / "out", done["skipped"])


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, vit: Path) -> Exported:
    """Three good images and every odd one in one folder: fitted on all, masks of all, all in the report."""
    place = tmp_path_factory.mktemp("zoo")
    root = place / "images"
    root.mkdir()
    for number in range(3):
        (root / f"good{number}.png").write_bytes(saved(picture(number, (72, 96))[0], "PNG"))
    for parameters in (*IMAGES, *SKIPPED):
        _, name, data, *_ = parameters.values
        (root / name).write_bytes(data)
    (root / "image.txt").write_bytes(saved(BODY, "PNG"))
    (root / "pages.tif").write_bytes(tiff(np.stack([BODY, 255 - BODY]), photometric="rgb"))
    shown = {"images": 99, "patches": 1, "gallery_images": 99}
    return run_and_export(place, root, vit, features={"max_failed_fraction": 0.3}, report=shown)


@pytest.mark.parametrize(("status", "name", "data", "expected", "tolerance"), IMAGES)
def test_an_odd_image_is_read(zoo: Exported, status, name, data, expected, tolerance):
    assert status == 0
    pixels = decode(data, name)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance
    mask = zoo.mask(Path(name).stem + ".png")
    assert mask.shape == expected.shape[:2]
    assert mask.max() < 4
    assert name not in zoo.failed
    assert name in zoo.report


@pytest.mark.parametrize(("status", "name", "data", "shape"), SKIPPED)
def test_an_image_without_pixels_is_skipped_and_listed(zoo: Exported, status, name, data, shape):
    assert status == 0
    assert name in zoo.failed
    assert f"{len(SKIPPED)} images could not be decoded" in zoo.report
    assert (name in zoo.skipped) == (shape is None)
    assert (zoo.out / Path(name).with_suffix(".png")).exists() == (shape is not None)
    if shape is not None:
        mask = zoo.mask(name)
        assert mask.shape == shape
        assert (mask == 255).all()


@row("an image named .txt", 0)
def test_other_names_are_no_images(zoo: Exported, status):
    assert status == 0
    listed = Pieces(zoo.run.artifact("dataset"), "images").read()["path"].to_pylist()
    assert "image.txt" not in listed
    assert len(listed) == 3 + 2 + len(IMAGES) + len(SKIPPED)


@row("TIFF of several pages", 0)
def test_pages_are_images(zoo: Exported, status):
    assert status == 0
    for page, pixels in enumerate((BODY, 255 - BODY)):
        name = f"pages#page={page}.tif"
        assert np.array_equal(zoo.run.image(name), pixels)
        assert zoo.mask(f"pages#page={page}.png").shape == pixels.shape[:2]
        assert name in zoo.report


@row("a tiled TIFF of more pixels than are decoded whole", 0)
def test_an_image_that_is_read_by_windows_alone(tmp_path, vit, status, monkeypatch):
    assert status == 0
    root = write_corpus(tmp_path / "corpus", train=3, val=1, labels=False)
    large, _ = picture(5, (300, 400))
    tifffile.imwrite(root / "images/val/large.tif", large, photometric="rgb", tile=(64, 64))
    limits = {"images.tiff.WINDOWED": 2000, "artifacts.mask_tiles.LARGE": 20_000, "artifacts.mask_tiles.TILE": 128}
    limits |= dict.fromkeys(("images.source.MAX_PIXELS", "stages.masks.MAX_PIXELS", "writing.MAX_PIXELS"), 20_000)
    for name, limit in limits.items():
        monkeypatch.setattr(f"pipeline.{name}", limit)
    views = {"kind": "sliding", "size": [64, 64]}
    done = run_and_export(tmp_path, root, vit, features={"views": views}, execution={"executor": "serial"})
    assert done.failed == []
    assert done.skipped == []
    assert done.mask("large.png").shape == (300, 400)
    assert (done.mask("large.png") < 4).all()
    assert "large.tif" in done.report
    tokens = done.run.artifact("features").manifest
    assert tokens["failed_images"] == 0
    assert tokens["items"] > 100


@row("slides and other images that are not read, beside images", 0)
def test_what_looks_like_an_image_and_is_not_read_is_named(tmp_path, vit, status, caplog):
    assert status == 0
    root = write_corpus(tmp_path / "corpus", train=3, val=1, labels=False)
    for name in ("a.czi", "b.CZI", "raw.dng", "old.vms"):
        path = root / "images/val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked at")
    done = run_and_export(tmp_path, root, vit)
    assert done.failed == []
    notes = done.run.artifact("dataset").manifest["notes"]
    assert [note.partition(" left out")[0] for note in notes] == [
        "2 .czi files were",
        "1 .dng file was",
        "1 .vms file was",
    ]
    assert "vips tiffsave a.vms" in notes[2]
    for note in notes:
        assert note in caplog.text
    assert "images/val/old.vms" in done.report


@row("slides alone", 2)
def test_slides_alone(tmp_path, vit, status):
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/a.vms").write_bytes(b"not looked at")
    refused(status, "run", write_config(tmp_path, tmp_path / "slides", vit), named=("no image", "a.vms", "vips"))


@row("every image of one constant colour", 0)
def test_nothing_but_constant_images(tmp_path, vit, status):
    assert status == 0
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / f"images/{number}.png").write_bytes(saved(np.full_like(BODY, 50), "PNG"))
    done = run_and_export(tmp_path, tmp_path / "images", vit)
    assert {done.mask(f"{number}.png").shape for number in range(4)} == {(HEIGHT, WIDTH)}
    assert done.skipped == []


@row("more undecodable images than features.max_failed_fraction", 1)
def test_too_many_undecodable_images(tmp_path, vit, status):
    root = write_corpus(tmp_path / "corpus", train=3, val=2, labels=False)
    (root / "images/val/00.png").write_bytes(b"")
    named = ("1 of 5 images", "images/val/00.png: the file is empty")
    refused(status, "run", write_config(tmp_path, root, vit), named=named)


@row("the reason of a refusal, in plan and run", 1)
def test_the_reason_of_a_refusal_reaches_the_user(tmp_path, vit, status, caplog):
    root = write_corpus(tmp_path / "corpus", train=3, val=2, labels=False)
    (root / "images/val/00.png").write_bytes(bomb(30_000, 20_000))
    config = write_config(tmp_path, root, vit)
    answer("plan", config)
    named = ("images/val/00.png", "30000 × 20000 pixels", "vips tiffsave 00.png 00.tif --tile --pyramid")
    assert all(text in caplog.text for text in named)
    refused(status, "run", config, named=named)


@row("no image that can be decoded", 1)
def test_no_image_can_be_decoded(tmp_path, vit, status):
    root = write_corpus(tmp_path / "corpus", train=2, val=1, labels=False)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    config = write_config(tmp_path, root, vit, features={"max_failed_fraction": 1.0})
    refused(status, "run", config, named=("3 of 3 images", "images/train/00.png"))


# Files ----------------------------------------------------------------------------------------------------------------

TOO_LONG = "l" * 251
NAMES = [
    case("a name with spaces and quotes", 0, ["with space 'and' \"quotes\".png"]),
    case("a name with a newline", 0, ["new\nline.png"]),
    case("a name of non-Latin letters", 0, ["Füße–東京–🦊.png"]),
    case("a name that is HTML or console markup", 0, ["<b>&amp;[bold]x[/bold].png"]),
    case("a name that begins with a dash", 0, ["-x.png"]),
    case("a name of 250 bytes", 0, ["東" * 82 + ".png"]),
    case("the same stem in two folders", 0, ["a/x.png", "b/x.png"]),
    case("the same stem with two suffixes", 0, ["s.png", "s.gif"]),
    case("a name of 250 bytes with two suffixes", 0, ["n" * 246 + ".png", "n" * 246 + ".tif"]),
]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory, vit: Path) -> Exported:
    """A folder of oddly named images, each of its own height."""
    place = tmp_path_factory.mktemp("names")
    shapes = {}
    for parameters in NAMES:
        for name in parameters.values[1]:
            path = place / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shapes[name] = 40 + len(shapes), 48
            path.write_bytes(saved(picture(len(shapes), shapes[name])[0], "PNG"))
    done = run_and_export(place, place / "images", vit, report={"images": 99})
    written = [path for path in done.out.rglob("*") if path.is_file()]
    assert len([path for path in written if path.suffix == ".png"]) == len(shapes)
    return done


@pytest.mark.parametrize(("status", "files"), NAMES)
def test_odd_names(names: Exported, status, files):
    assert status == 0
    for name in files:
        stem = name.rpartition(".")[0]
        shared = sum(other.rpartition(".")[0] == stem for other in files) > 1
        with Image.open(names.out.parent / "images" / name) as image:
            assert names.mask((name if shared else stem) + ".png").shape == image.size[::-1]
        assert str(markupsafe.escape(name)) in names.report


@pytest.mark.parametrize(
    ("status", "files"),
    [
        case(
            "a name of 255 bytes with two suffixes",
            0,
            [f"{TOO_LONG}.png", f"{TOO_LONG}.tif"],
        ),
        case(
            "a.jpg, a.png and a.jpg.png",
            0,
            ["a.jpg", "a.png", "a.jpg.png"],
        ),
        case(
            "a.jpg beside a folder a.png",
            0,
            ["a.jpg", "a.png/x.png"],
        ),
    ],
)
def test_label_maps_whose_names_collide(tmp_path, vit, status, files):
    assert status == 0
    for number, name in enumerate(files):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(picture(number, (40 + number, 48))[0], "PNG"))
    done = run_and_export(tmp_path, tmp_path / "images", vit)
    heights = sorted(done.mask(str(path)).shape[0] for path in done.out.rglob("*.png") if path.is_file())
    assert heights == [40 + number for number in range(len(files))]


@row("a name that is not UTF-8", 2)
def test_a_name_that_is_not_utf8(tmp_path, vit, status):
    root = write_corpus(tmp_path / "corpus", train=1, val=1, labels=False)
    shutil.copy(root / "images/val/00.png", os.fsencode(root / "images/val") + b"/caf\xe9.png")
    refused(status, "run", write_config(tmp_path, root, vit), named=("dataset.root", "caf", "rename"))


@row("links to themselves, to nothing and to a folder", 0)
@pytest.mark.timeout(60)
def test_links_are_passed_over(tmp_path, vit, status):
    assert status == 0
    root = write_corpus(tmp_path / "corpus", train=1, val=1, labels=False)
    for name, target in {"self.png": "self.png", "gone.png": "nowhere.png", "loop": ".", "up": "../.."}.items():
        (root / "images/val" / name).symlink_to(target)
    rows = answer("plan", write_config(tmp_path, root, vit))["stages"]
    assert rows[0]["stage"] == "dataset"
    assert answer("run", tmp_path / "config.yaml", "--stage", "dataset")["stages"][0]["status"] == "ran"
    (artifact,) = (tmp_path / "store/artifacts/dataset").iterdir()
    assert json.loads((artifact / "manifest.json").read_text())["items"] == 2


@row("dataset.root: a link to itself", 2)
def test_a_root_that_is_a_circle(tmp_path, vit, status):
    (tmp_path / "circle").symlink_to("circle")
    config = write_config(tmp_path, tmp_path / "circle", vit)
    refused(status, "run", config, named=("dataset.root", str(tmp_path / "circle")))


@row("an image that cannot be read (permissions)", 1)
def test_an_unreadable_image(tmp_path, vit, status, monkeypatch):
    root = write_corpus(tmp_path / "corpus", train=2, val=1, labels=False)
    read, tries = files.read_file, []
    monkeypatch.setattr(files, "read_file", lambda root, path: tries.append(path) or read(root, path))
    with locked(root / "images/val/00.png"):
        config = write_config(tmp_path, root, vit)
        refused(status, "run", config, named=("images/val/00.png cannot be read", "Permission denied"))
    assert tries.count("images/val/00.png") == files.TRIES


@row("an image that cannot be read after it was listed", 1)
def test_an_image_that_becomes_unreadable(tmp_path, vit, status):
    root = write_corpus(tmp_path / "corpus", train=2, val=1, labels=False)
    for path in root.rglob("*.png"):
        os.utime(path, (1_500_000_000, 1_500_000_000))  # old enough for the listing to be remembered
    config = write_config(tmp_path, root, vit)
    answer("plan", config)
    with locked(root / "images/val/00.png"):
        refused(status, "run", config, named=("failed 4 times", "images/val/00.png", "Permission denied"))


@pytest.mark.parametrize("kept", [True, False], ids=["read whole", "read by ranges"])
@row("an image that changes during a run", 1)
def test_an_image_that_changes(tmp_path, vit, status, kept, monkeypatch):
    root, real, calls = write_corpus(tmp_path / "corpus", train=2, val=1, labels=False), features.encode_part, []

    def change(job: Any, part: Any) -> Any:
        if not calls:
            path = root / "images/val/00.png"
            path.write_bytes(path.read_bytes() + b"more")
        calls.append(part)
        return real(job, part)

    monkeypatch.setattr(features, "encode_part", change)
    if not kept:
        monkeypatch.setattr(files, "SMALL", 0)
    config = write_config(tmp_path, root, vit)
    refused(status, "run", config, named=("images/val/00.png changed since it was listed", "run the same command"))
    monkeypatch.undo()
    assert answer("run", config)["run"], "the next run takes the image as it is now"


@row("a folder that cannot be listed (permissions)", 1)
def test_an_unreadable_folder(tmp_path, vit, status):
    root = write_corpus(tmp_path / "corpus", train=2, val=1, labels=False)
    with locked(root / "images/val"):
        config = write_config(tmp_path, root, vit)
        refused(status, "run", config, named=("images/val cannot be read", "Permission denied"))


@row("dataset.root: a folder without images", 2)
def test_a_folder_without_images(tmp_path, vit, status):
    (tmp_path / "empty").mkdir()
    refused(status, "run", write_config(tmp_path, tmp_path / "empty", vit), named=("dataset.root", "no image", "empty"))


@row("dataset.root: a file, or nothing", 2)
@pytest.mark.parametrize("name", ["file.png", "nothing"])
def test_a_root_that_is_no_folder(tmp_path, vit, status, name):
    (tmp_path / "file.png").write_bytes(saved(BODY, "PNG"))
    refused(status, "run", write_config(tmp_path, tmp_path / name, vit), named=("dataset.root", name))


@row("one image", 0)
def test_one_image(tmp_path, vit, status):
    assert status == 0
    (tmp_path / "images").mkdir()
    (tmp_path / "images/only.png").write_bytes(saved(BODY, "PNG"))
    assert run_and_export(tmp_path, tmp_path / "images", vit).mask("only.png").shape == (HEIGHT, WIDTH)


@row("three images, thirty neighbours asked", 0)
def test_more_neighbours_than_images(tmp_path, vit, status):
    assert status == 0
    root = write_corpus(tmp_path / "corpus", train=3, val=0, labels=False)
    done = run_and_export(tmp_path, root, vit, neighbours={"k": 30})
    near = done.run.artifact("neighbours").read_table("neighbours.parquet")
    assert {len(line) for line in near["neighbours"].to_pylist()} == {2}


# Labels ---------------------------------------------------------------------------------------------------------------


def write_label(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(pixels, "PNG"))


def change_label(path: Path, value: int) -> None:
    """The same label with one pixel of another value."""
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[3, 4] = value
    write_label(path, pixels)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory, finished) -> Path:
    """A copy of the finished run's store: other labels of the same images re-run what reads labels, and no more."""
    store = tmp_path_factory.mktemp("cached") / "store"
    shutil.copytree(finished.config.store, store)
    return store


@pytest.fixture
def labelled(tmp_path: Path, corpus: Path) -> Path:
    """A labelled corpus to change."""
    return shutil.copytree(corpus, tmp_path / "corpus")


def blank(place: Path) -> None:
    """Every pixel of every label becomes ignore_index."""
    for path in place.iterdir():
        with Image.open(path) as image:
            pixels = np.full_like(np.asarray(image), 255)
        write_label(path, pixels)


def cut(root: Path, name: str) -> None:
    (root / name).write_bytes((root / name).read_bytes()[:60])


def describe(root: Path, text: str) -> None:
    (root / "dataset.yaml").write_text(text)


@pytest.mark.parametrize(
    ("status", "change", "named"),
    [
        case(
            "a label of another shape than its image",
            1,
            lambda root: write_label(root / "labels/val/02.png", np.zeros((5, 6), np.uint8)),
            ("labels/val/02.png: the label of images/val/02.png is 6×5", "the image 96×72"),
        ),
        case(
            "a label of another shape than its training image",
            1,
            lambda root: write_label(root / "labels/train/02.png", np.zeros((5, 6), np.uint8)),
            ("labels/train/02.png: the label of images/train/02.png is 6×5", "the image 80×80"),
        ),
        case(
            "a colour label",
            2,
            lambda root: write_label(root / "labels/train/00.png", np.zeros((72, 96, 3), np.uint8)),
            ("labels/train/00.png", "one channel", "single-channel PNG"),
        ),
        case(
            "a label with an id that is neither a class nor ignore_index",
            2,
            lambda root: change_label(root / "labels/val/01.png", 3),
            ("labels/val/01.png holds the id 3", "3 classes (0 to 2)", "ignore_index is 255", "dataset.yaml"),
        ),
        case(
            "a label with an id of 1000 or more and no dataset.yaml",
            2,
            lambda root: (
                (root / "dataset.yaml").unlink(),
                write_label(root / "labels/val/01.png", np.full((64, 120), 60000, np.uint16)),
            ),
            ("labels", "60000", "dataset.yaml"),
        ),
        case(
            "a truncated label",
            1,
            lambda root: cut(root, "labels/val/00.png"),
            ("labels/val/00.png", "cannot be decoded"),
        ),
        case(
            "a truncated label and no dataset.yaml",
            1,
            lambda root: ((root / "dataset.yaml").unlink(), cut(root, "labels/val/00.png")),
            ("labels/val/00.png", "cannot be decoded"),
        ),
        case(
            "two labels of one image",
            2,
            lambda root: (root / "labels/val/00.tif").write_bytes(tiff(np.zeros((80, 80), np.uint8))),
            ("labels/val/00.png and labels/val/00.tif are labels of the same image",),
        ),
        case(
            "dataset.yaml: classes that are no list",
            2,
            lambda root: describe(root, "classes: {0: low, 1: high}"),
            ("dataset.yaml: classes must be a list",),
        ),
        case(
            "dataset.yaml: an ignore_index that is no whole number",
            2,
            lambda root: describe(root, "classes: [a, b, c]\nignore_index: none"),
            ("dataset.yaml: ignore_index", "none"),
        ),
        case(
            "dataset.yaml: not YAML, or with a Python tag",
            2,
            lambda root: describe(root, "classes: !!python/object/apply:os.mkdir [ran]"),
            ("dataset.yaml", "python/object/apply:os.mkdir"),
        ),
    ],
)
def test_labels_that_are_refused(tmp_path, cached, labelled, vit, status, change, named):
    change(labelled)
    refused(status, "run", write_config(tmp_path, labelled, vit, cached), named=named)


@row("dataset.yaml: cannot be read (permissions)", 1)
def test_an_unreadable_description(tmp_path, cached, labelled, vit, status):
    with locked(labelled / "dataset.yaml"):
        config = write_config(tmp_path, labelled, vit, cached)
        refused(status, "run", config, named=("dataset.yaml cannot be read", "Permission denied"))


@pytest.mark.parametrize(
    ("status", "change", "images"),
    [
        case("labels missing for some images", 0, lambda root: (root / "labels/val/00.png").unlink(), 3),
        case(
            "a label of no image",
            0,
            lambda root: write_label(root / "labels/val/other.png", np.zeros((9, 9), np.uint8)),
            4,
        ),
        case("labels whose pixels are all ignored", 0, lambda root: blank(root / "labels/val"), 4),
    ],
)
def test_labels_that_leave_images_unscored(tmp_path, cached, labelled, vit, status, change, images):
    assert status == 0
    change(labelled)
    result = answer("run", write_config(tmp_path, labelled, vit, cached))
    scores = open_run(cached, result["run"]).artifact("scores").read_json("scores.json")
    assert scores["images"] == images
    pixels = 0
    for path in (labelled / "labels/val").iterdir():
        with Image.open(path) as image:
            pixels += int((np.asarray(image) != 255).sum()) if path.stem != "other" else 0
    assert {int(np.sum(counts)) for counts in scores["confusion"].values()} == {pixels}
    assert (scores["scores"]["cluster"]["accuracy"] is None) == (pixels == 0)


@row("labels of images that cannot be decoded", 0)
def test_labels_of_undecodable_images(tmp_path, labelled, vit, status):
    assert status == 0
    for name in ("train/02.png", "val/01.png"):
        (labelled / "images" / name).write_text("no picture")
    done = run_and_export(tmp_path, labelled, vit, features={"max_failed_fraction": 0.3})
    assert done.failed == ["images/train/02.png", "images/val/01.png"]
    scores = done.run.artifact("scores").read_json("scores.json")
    assert scores["images"] == 4
    wrong = np.asarray(scores["confusion"]["cluster"])[:, len(CLASSES)].sum()
    assert wrong >= 64 * 120  # every pixel of the image that has no mask


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path: Path, corpus: Path, vit: Path, cached: Path) -> Path:
    """The config of the finished run, on a copy of its store."""
    return write_config(tmp_path, corpus, vit, cached)


@pytest.mark.parametrize(
    ("status", "change", "named"),
    [
        case("clusters.k above the number of tokens", 1, "clusters.k=97", ("clusters.k: 97 clusters asked of 96",)),
        case("a seed below 0", 2, "head.seed=-1", ("head.seed", "greater than or equal to 0")),
        case(
            "a field that is NaN or infinite",
            2,
            "head.shift_self=.nan",
            ("head.shift_self",),
        ),
        case(
            "true where a number is asked",
            2,
            "clusters.k=true",
            ("clusters.k",),
        ),
        case(
            "execution.retries below 0",
            2,
            "execution.retries=-1",
            ("execution.retries",),
        ),
        case("an unknown field", 2, "clusters.kk=3", ("clusters.kk", "did you mean k?")),
        case("a field of the wrong type", 2, "masks.splits=val", ("masks.splits", "list")),
        case("a path with a NUL byte", 2, 'dataset.root="a\\0b"', ("dataset.root", "null byte")),
        case("--set with a Python tag", 2, "clusters.k=!!python/name:os.mkdir", ("clusters.k", "YAML")),
    ],
)
def test_a_field_that_is_refused(good, status, change, named):
    refused(status, "run", good, "--set", change, named=named)


@row("a large seed, such as a date", 0)
def test_a_large_seed(good, status):
    assert status == 0
    rows = answer("run", good, "--set", "clusters.seed=20261123", "--set", "masks.crf=false")["stages"]
    assert {line["stage"] for line in rows if line["status"] == "ran"} >= {"clusters", "baseline", "masks"}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """The weights of a backbone, to damage a copy of."""
    torch.manual_seed(0)
    return backbones._make(BACKBONE).state_dict()


def damage(state: dict[str, torch.Tensor], path: Path, value: float) -> Path:
    """Weights that put a value into one channel of every token."""
    changed = {name: tensor.clone() for name, tensor in state.items()}
    changed["norm.bias"][5] = value
    safetensors.torch.save_file(changed, path)
    return path


@pytest.mark.parametrize(
    ("status", "value"),
    [case("a backbone that gives NaN", 1, float("nan")), case("a backbone that gives infinity", 1, float("inf"))],
)
def test_features_that_are_not_finite(tmp_path, corpus, state, status, value):
    weights = damage(state, tmp_path / "w.safetensors", value)
    named = ("NaN or infinite features for images/train/00.png", "execution.precision=fp32", "features.weights")
    refused(status, "run", write_config(tmp_path, corpus, weights), named=named)
    assert not list((tmp_path / "store/artifacts/features").glob("*/manifest.json"))


@row("a backbone whose features pass the range of float16", 0)
def test_features_beyond_float16(tmp_path, state, status):
    assert status == 0
    root = write_corpus(tmp_path / "corpus", train=3, val=1, labels=False)
    done = run_and_export(tmp_path, root, damage(state, tmp_path / "w.safetensors", 1e30))
    features = done.run.artifact("features")
    (part,) = features.markers()
    assert features.marker(part)["clipped"] == features.manifest["shape"][0] * 16
    assert np.isfinite(done.run.artifact("head").read_tensors("head.safetensors")["center"]).all()


# Weights --------------------------------------------------------------------------------------------------------------


class Boom:
    """What runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def other_architecture(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(1000, 512)}, path)


def odd_positions(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({**state, "pos_embed": torch.zeros(3)}, path)


def truncated_pickle(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-4000])


def truncated_safetensors(path: Path, state: dict[str, torch.Tensor]) -> None:
    safetensors.torch.save_file(state, path)
    path.write_bytes(path.read_bytes()[:50_000])


def evil_pickle(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({**state, "boom": Boom(path.parent / "ran")}, path)


@pytest.mark.parametrize(
    ("status", "name", "make", "named"),
    [
        case("weights of another architecture", 2, "w.pth", other_architecture, ("does not fit", "cls_token")),
        case("weights whose positions have another shape", 2, "w.pth", odd_positions, ("pos_embed: (3,) in the file",)),
        case("a truncated .pth", 2, "w.pth", truncated_pickle, ("cannot be read as plain tensors",)),
        case("a truncated .safetensors", 2, "w.safetensors", truncated_safetensors, ("cannot be read as plain",)),
        case("a pickle that runs code", 2, "w.pth", evil_pickle, ("cannot be read as plain tensors", "safetensors")),
        case("weights of zero bytes", 2, "w.pth", lambda path, _: path.touch(), ("cannot be read as plain tensors",)),
        case("weights that are not there", 2, "w.pth", lambda path, _: None, ("weights", "no such file")),
    ],
)
def test_weights_that_are_refused(tmp_path, corpus, state, status, name, make, named):
    make(tmp_path / name, state)
    refused(status, "run", write_config(tmp_path, corpus, tmp_path / name), named=(str(tmp_path / name), *named))
    assert not (tmp_path / "ran").exists()


@row("weights that cannot be read (permissions)", 2)
def test_unreadable_weights(tmp_path, corpus, vit, status):
    weights = Path(shutil.copy(vit, tmp_path / "w.safetensors"))
    with locked(weights):
        config = write_config(tmp_path, corpus, weights)
        refused(status, "run", config, named=("features.weights", str(weights), "Permission denied"))


# Config ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text", "named"),
    [
        case(
            "a config with a Python tag",
            2,
            "dataset: {root: x}\nclusters: !!python/object/apply:os.mkdir [RAN]\n",
            ("config.yaml is not plain YAML: line 2", "a tag or key that plain YAML does not have"),
        ),
        case("a config that is not YAML", 2, "dataset: {root: x\n", ("config.yaml is not plain YAML: line 2",)),
        case(
            "a config nested thousands of levels deep",
            2,
            "[" * 1500,
            ("config.yaml is not plain YAML", "nested too deep"),
        ),
        case("a config that is no mapping", 2, "- dataset\n", ("config.yaml", "mapping")),
        case("a config without dataset.root", 2, "clusters: {k: 3}\n", ("dataset: must be set",)),
        case("an unknown section", 2, "dataset: {root: x}\ncluster: {k: 3}\n", ("cluster: unknown", "clusters?")),
        case("a section that is no mapping", 2, "dataset: {root: x}\nclusters: 3\n", ("clusters: ",)),
    ],
)
def test_a_config_that_is_refused(tmp_path, status, text, named):
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("RAN", str(tmp_path / "ran")))
    refused(status, "run", config, named=named)
    assert not (tmp_path / "ran").exists()


@row("a config that is not there, or a folder", 2)
@pytest.mark.parametrize("name", ["", "none.yaml"])
def test_a_config_that_is_no_file(tmp_path, status, name):
    refused(status, "run", tmp_path / name, named=(str(tmp_path / name), "stegoflow init"))


# Store ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "url", "named"),
    [
        case("a store that is a file", 2, "file", ("is a file, not a folder", "--store")),
        case("a store below a file", 2, "file/below", ("cannot be opened",)),
        case("a store of an unknown scheme", 2, "nonsense://bucket", ("nonsense://bucket cannot be opened",)),
        case("a store that is a link to itself", 2, "circle", ("circle",)),
    ],
)
def test_a_store_that_cannot_be_opened(tmp_path, corpus, vit, status, url, named):
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to("circle")
    store = url if "://" in url else tmp_path / url
    refused(status, "run", write_config(tmp_path, corpus, vit, store), named=named)


@row("export from a store that is a link to itself", 2)
def test_reading_a_store_that_is_a_circle(tmp_path, status):
    (tmp_path / "circle").symlink_to("circle")
    refused(status, "export", "latest", "--out", tmp_path / "out", "--store", tmp_path / "circle", named=("circle",))


@row("a read-only store", 2)
def test_a_read_only_store(tmp_path, corpus, vit, status, monkeypatch):
    store = tmp_path / "read-only"
    store.mkdir(mode=0o500)
    if os.access(store, os.W_OK):  # root may write anywhere

        def refuse(*args: Any, **options: Any) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("pipeline.core.store.obstore.put", refuse)
    config = write_config(tmp_path, corpus, vit, store)
    refused(status, "run", config, named=(str(store), "not usable", "ermission denied"))


@pytest.mark.parametrize(
    ("status", "mark", "named"),
    [
        case(
            "a store of a newer layout",
            2,
            json.dumps({"encoding-type": "stegoflow-store", "encoding-version": ENCODING_VERSION + 1}).encode(),
            (f"has layout {ENCODING_VERSION + 1}", f"reads layout {ENCODING_VERSION}", "--store"),
        ),
        case("a store whose stegoflow.json is damaged", 2, b"{", ("is not a store's mark",)),
        case(
            "a store whose stegoflow.json is something else",
            2,
            b"[]",
            ("stegoflow.json",),
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "status"])
def test_a_store_of_another_layout(tmp_path, corpus, vit, status, mark, named, command):
    store = tmp_path / "store"
    store.mkdir()
    (store / "stegoflow.json").write_bytes(mark)
    config = write_config(tmp_path, corpus, vit)
    args = {"run": ["run", config], "status": ["status", "--store", store]}[command]
    refused(status, *args, named=(str(store), *named))
    assert [path.name for path in store.iterdir()] == ["stegoflow.json"]


@row("a disk that is full during a run", 1)
def test_a_full_disk(tmp_path, corpus, vit, status, monkeypatch):
    put = Store.put

    def full(self: Store, path: str, data: bytes) -> None:
        if "/losses." in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        put(self, path, data)

    monkeypatch.setattr(Store, "put", full)
    refused(status, "run", write_config(tmp_path, corpus, vit), named=("/losses.", "No space left on device"))


@row("export to a file", 1)
def test_export_to_a_file(tmp_path, cached, finished, status):
    (tmp_path / "out").write_text("")
    args = ("export", finished.id, "--out", tmp_path / "out", "--store", cached)
    refused(status, *args, named=(str(tmp_path / "out"),))
