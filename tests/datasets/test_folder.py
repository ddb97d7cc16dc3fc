"""Listing a folder of images: what is found, what it is called, and that only content counts."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import encode

from pipeline.core.errors import ConfigError, StageError, render
from pipeline.core.store import Store
from pipeline.datasets import folder
from pipeline.datasets.folder import Item, predicted_splits, training_splits
from pipeline.images import files

OLD = 1_500_000_000
"""A time of change long past: files written this second are never remembered."""


def picture(value: int = 0, shape: tuple[int, int] = (4, 6)) -> bytes:
    return encode(np.full((*shape, 3), value, np.uint8), "PNG")


def put(root: Path, *names: str, content: bytes | None = None) -> Path:
    """Write a picture of its own under each name, with an old time of change."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number) if content is None else content)
        os.utime(path, (OLD, OLD))
    return root


def scan(root: str, kind: str, *args: Any) -> list[Item]:
    """What is listed, without the notes."""
    return folder.scan(root, kind, *args).items


def ids(root: Path | str, kind: str = "images") -> list[tuple[str, str]]:
    return [(item.split, item.id) for item in scan(str(root), kind)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files whose bytes were read."""
    paths: list[str] = []
    read_file = files.read_file
    monkeypatch.setattr(files, "read_file", lambda root, path: paths.append(path) or read_file(root, path))
    return paths


# Layouts --------------------------------------------------------------------------------------------------------------


def test_splits_below_images(tmp_path: Path):
    put(tmp_path, "images/val/b.png", "images/train/a/x.png", "images/train/b.png", "other/c.png", "images/train/n.txt")
    assert ids(tmp_path) == [("train", "a/x.png"), ("train", "b.png"), ("val", "b.png")]
    item = scan(str(tmp_path), "images")[0]
    assert (item.path, item.height, item.width, item.error) == ("images/train/a/x.png", 4, 6, "")
    assert item.size == len(picture(1))


def test_splits_without_an_images_folder(tmp_path: Path):
    put(tmp_path, "train/a.png", "val/a.png", "test/deep/er/a.png")
    assert ids(tmp_path) == [("test", "deep/er/a.png"), ("train", "a.png"), ("val", "a.png")]


def test_a_plain_folder_is_one_split(tmp_path: Path):
    put(tmp_path, "b.png", "a.png", "sub/c.png", "val/d.png")
    assert ids(tmp_path) == [("all", "a.png"), ("all", "b.png"), ("all", "sub/c.png"), ("all", "val/d.png")]


def test_a_file_beside_the_splits(tmp_path: Path):
    put(tmp_path, "images/train/a.png", "images/cover.png")
    assert ids(tmp_path) == [("all", "cover.png"), ("train", "a.png")]


def test_one_image(tmp_path: Path):
    put(tmp_path, "only.png")
    assert ids(tmp_path) == [("all", "only.png")]


def test_label_maps_are_never_images(tmp_path: Path):
    """ROOT/labels is read for labels, so it is not read for images where those have no folder of their own."""
    put(tmp_path, "train/a.png", "labels/train/a.png")
    assert ids(tmp_path) == [("train", "a.png")]
    assert ids(tmp_path, "labels") == [("train", "a.png")]
    assert folder.has_labels(str(tmp_path))


def test_suffixes(tmp_path: Path):
    put(
        tmp_path, "a.JPG", "b.jpeg", "c.PnG", "d.tif", "e.TIFF", "f.webp", "g.bmp", "h.gif", "i.txt", "j.png.bak", "png"
    )
    assert [name for _, name in ids(tmp_path)] == [
        "a.JPG",
        "b.jpeg",
        "c.PnG",
        "d.tif",
        "e.TIFF",
        "f.webp",
        "g.bmp",
        "h.gif",
    ]


def test_labels(tmp_path: Path):
    put(tmp_path, "images/train/a.jpg", "labels/train/a.png", "labels/train/b.jpg")
    assert ids(tmp_path, "labels") == [("train", "a.png")]
    assert [(i.height, i.width) for i in scan(str(tmp_path), "labels")] == [(0, 0)]


@pytest.mark.parametrize("inside", [None, "labels/notes.txt", "labels/train/.hidden.png"])
def test_a_folder_without_label_maps_is_unlabelled(inside: str | None, tmp_path: Path):
    put(tmp_path, "images/a.png")
    if inside:
        put(tmp_path, inside)
    (tmp_path / "labels").mkdir(exist_ok=True)
    assert not folder.has_labels(str(tmp_path))


@pytest.mark.parametrize("made", ["", "images", "images/train"])
def test_no_images(made: str, tmp_path: Path):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    put(tmp_path, "readme.txt")
    with pytest.raises(ConfigError, match="no image under") as caught:
        scan(str(tmp_path), "images")
    assert str(tmp_path) in caught.value.message
    assert "dataset.root=" in render(caught.value.next)


@pytest.mark.parametrize("name", ["missing", "file.png"])
def test_a_root_that_is_no_folder(name: str, tmp_path: Path):
    put(tmp_path, "file.png")
    with pytest.raises(ConfigError, match="is not a folder"):
        scan(str(tmp_path / name), "images")


# Names ----------------------------------------------------------------------------------------------------------------

ODD = [
    "with space.png",
    'it\'s "quoted".png',
    "new\nline.png",
    "tab\t.png",
    "Füße–東京–🦊.png",
    "percent%20#hash?.png",
    "back\\slash.png",
    "-dash.png",
    "a.b.c.png",
    f"{'long' * 60}.png",
    "dir.png/inside.png",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names(name: str, tmp_path: Path):
    put(tmp_path / "root", f"images/train/{name}", content=picture(7))
    cache = Store(tmp_path / "store")
    for _ in range(2):  # the second time from the cache
        (item,) = scan(str(tmp_path / "root"), "images", cache)
        assert (item.split, item.id) == ("train", name)
        assert files.read_file(str(tmp_path / "root"), item.path) == picture(7)


def test_a_deep_path(tmp_path: Path):
    deep = "/".join(["directory"] * 60)
    put(tmp_path, f"{deep}/x.png")
    assert ids(tmp_path) == [("all", f"{deep}/x.png")]


def test_a_name_that_is_no_utf8_is_named(tmp_path: Path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(name)).write_bytes(picture())
    with pytest.raises(ConfigError, match=r"caf\\udce9\.png is not UTF-8"):
        scan(str(tmp_path), "images")


def test_hidden_files_are_ignored(tmp_path: Path):
    put(tmp_path, "a.png", ".hidden.png", "._a.png", ".cache/b.png", "sub/.thumbs/c.png")
    assert ids(tmp_path) == [("all", "a.png")]


def test_a_root_below_a_hidden_folder(tmp_path: Path):
    put(tmp_path / ".data/root", "a.png")
    assert ids(tmp_path / ".data/root") == [("all", "a.png")]


@pytest.mark.timeout(20)
def test_links(tmp_path: Path):
    """A link to a file is a file; links to folders, to themselves and to nothing are passed over."""
    put(tmp_path / "root", "real/a.png")
    put(tmp_path / "elsewhere", "b.png")
    links = {"link.png": "real/a.png", "loop": ".", "real/up": "..", "self.png": "self.png", "gone.png": "nowhere.png"}
    for name, target in links.items():
        (tmp_path / "root" / name).symlink_to(target)
    (tmp_path / "root/far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "alias").symlink_to(tmp_path / "root")
    assert ids(tmp_path / "root") == [("all", "link.png"), ("all", "real/a.png")]
    assert ids(tmp_path / "alias") == ids(tmp_path / "root")


def test_an_unreadable_header_is_listed(tmp_path: Path):
    put(tmp_path, "a.png")
    put(tmp_path, "bad.png", content=b"no picture at all")
    put(tmp_path, "empty.jpg", content=b"")
    cache = Store(tmp_path / "store")
    for _ in range(2):
        good, bad, empty = scan(str(tmp_path), "images", cache)
        assert (good.height, good.error) == (4, "")
        for item in (bad, empty):
            assert (item.height, item.width) == (0, 0)
            assert item.id in item.error


# Content --------------------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_content(tmp_path: Path):
    names = ["images/train/a.png", "images/train/b.png", "images/val/a.png"]
    put(tmp_path / "here", *names)
    shutil.copytree(tmp_path / "here/images", tmp_path / "there/below/images")  # other times of change, other place
    cache = Store(tmp_path / "store")

    def digest(root: str, cache: Store | None = None) -> str:
        return folder.scan(str(tmp_path / root), "images", cache).digest()

    first = digest("here")
    assert digest("there/below") == digest("here", cache) == digest("here", cache) == first
    put(tmp_path / "there/below", "images/train/a.png", content=picture(99))
    put(tmp_path / "more", *names, "images/val/b.png")
    put(tmp_path / "renamed", "images/train/a.png", "images/train/c.png", "images/val/a.png")
    put(tmp_path / "moved", "images/train/a.png", "images/val/b.png", "images/val/a.png")
    others = [digest(root) for root in ("there/below", "more", "renamed", "moved")]
    assert len({first, *others}) == 5
    assert folder.scan(str(tmp_path / "here"), "images").digest({"classes": ["a"]}) != first


def test_the_split_folders_name_is_not_in_the_id(tmp_path: Path):
    put(tmp_path / "one", "images/train/a.png")
    put(tmp_path / "two", "train/a.png")
    first, second = (scan(str(tmp_path / root), "images") for root in ("one", "two"))
    assert [item.id for item in first] == [item.id for item in second] == ["a.png"]


def test_another_layout_below_the_root_is_another_dataset(tmp_path: Path):
    """The artifacts hold paths below the root: with the same name, they would look for files that are not there."""
    put(tmp_path / "one", "images/train/a.png")
    put(tmp_path / "two", "train/a.png")
    put(tmp_path / "moved", "images/train/a.png")
    digests = [folder.scan(str(tmp_path / root), "images").digest() for root in ("one", "two", "moved")]
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]


def test_files_are_read_once(tmp_path: Path, reads: list[str]):
    put(tmp_path / "root", "a.png", "b.png", "c.png")
    cache = Store(tmp_path / "store")
    first = scan(str(tmp_path / "root"), "images", cache)
    assert sorted(reads) == ["a.png", "b.png", "c.png"]
    reads.clear()
    assert scan(str(tmp_path / "root"), "images", cache) == first
    assert reads == []


def test_a_changed_file_is_read_again(tmp_path: Path, reads: list[str]):
    root, cache = put(tmp_path / "root", "a.png", "b.png", "c.png"), Store(tmp_path / "store")
    before = {item.id: item.sha256 for item in scan(str(root), "images", cache)}
    reads.clear()
    (root / "b.png").write_bytes(picture(50))
    os.utime(root / "b.png", (OLD + 1, OLD + 1))
    put(root, "new.png")
    (root / "c.png").unlink()
    after = {item.id: item.sha256 for item in scan(str(root), "images", cache)}
    assert sorted(reads) == ["b.png", "new.png"]
    assert after["a.png"] == before["a.png"]
    assert after["b.png"] != before["b.png"]
    assert "c.png" not in after


def test_a_file_of_the_same_size_and_second_is_read_again(tmp_path: Path):
    """Nanoseconds of the time of change count."""
    root, cache = put(tmp_path / "root", "a.png"), Store(tmp_path / "store")
    os.utime(root / "a.png", ns=(OLD * 10**9 + 5, OLD * 10**9 + 5))
    before = scan(str(root), "images", cache)[0].sha256
    content = bytearray((root / "a.png").read_bytes())
    content[-1] ^= 1
    (root / "a.png").write_bytes(bytes(content))
    os.utime(root / "a.png", ns=(OLD * 10**9 + 6, OLD * 10**9 + 6))
    assert scan(str(root), "images", cache)[0].sha256 != before


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path, reads: list[str]):
    """It may change again within the grain of its time stamp, at the same size: git calls such entries racy."""
    root, cache = put(tmp_path / "root", "a.png", "b.png"), Store(tmp_path / "store")
    (root / "b.png").write_bytes(content := picture(1))
    stamp = (root / "b.png").stat()
    scan(str(root), "images", cache)
    (root / "b.png").write_bytes(content[:-1] + b"?")
    os.utime(root / "b.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    reads.clear()
    again = scan(str(root), "images", cache)
    assert reads == ["b.png"]
    assert again[1].sha256 == scan(str(root), "images")[1].sha256


@pytest.mark.parametrize("damage", [b"", b"no parquet"])
def test_a_damaged_cache_is_made_anew(damage: bytes, tmp_path: Path):
    root, cache = put(tmp_path / "root", "a.png"), Store(tmp_path / "store")
    first = scan(str(root), "images", cache)
    index, piece = sorted(cache.entries("cache"), key=lambda entry: "index" not in entry.path)
    cache.put(index.path, damage)
    assert scan(str(root), "images", cache) == first
    assert len(cache.get(index.path)) > 100
    cache.put(piece.path, damage)
    with pytest.raises(StageError, match="gone or damaged"):
        scan(str(root), "images", cache)
    assert scan(str(root), "images", cache) == first


def test_each_root_has_a_cache_of_its_own(tmp_path: Path):
    cache = Store(tmp_path / "store")
    one, two = put(tmp_path / "one", "a.png"), put(tmp_path / "two", "a.png", content=picture(9, (8, 8)))
    assert scan(str(one), "images", cache)[0].sha256 != scan(str(two), "images", cache)[0].sha256
    assert scan(str(two), "images", cache)[0].height == 8


def test_a_file_that_changed_since_is_refused(tmp_path: Path):
    root = str(put(tmp_path, "a.png"))
    (item,) = scan(root, "images")
    assert files.open_file(root, item.path, item.sha256, item.size).content() == picture(0)
    put(tmp_path, "a.png", content=picture(9))
    with pytest.raises(StageError, match=r"a\.png changed since it was listed"):
        files.open_file(root, item.path, item.sha256, item.size)
    with pytest.raises(FileNotFoundError):
        files.open_file(root, "gone.png", item.sha256, item.size)


def test_progress_counts_what_is_read(tmp_path: Path):
    root, cache = put(tmp_path / "root", "a.png", "b.png"), Store(tmp_path / "store")
    calls: list[tuple[int, int]] = []
    scan(str(root), "images", cache, lambda *at: calls.append(at))
    assert calls == [(1, 2), (2, 2)]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files in a piece on average."""
    monkeypatch.setattr("pipeline.datasets.remembered.MEAN", 2)


def test_a_new_file_changes_one_piece(tmp_path: Path, small_pieces: None):
    names = [f"{split}/{n:03d}.png" for split in ("train", "val") for n in range(40)]
    root, cache = put(tmp_path / "root", *names), Store(tmp_path / "store")
    before = folder.scan(str(root), "images", cache)
    assert len(before.pieces) > 20
    assert [(item.split, item.id) for item in before.items] == [tuple(name.split("/")) for name in names]
    kept = {entry.path for entry in cache.entries("cache")}
    put(root, "train/020a.png")
    after = folder.scan(str(root), "images", cache)
    assert len({piece.digest for piece in after.pieces} - {piece.digest for piece in before.pieces}) <= 2
    assert len({entry.path for entry in cache.entries("cache")} - kept) <= 2
    assert after.digest() == folder.scan(str(root), "images").digest() != before.digest()
    (root / "train/020a.png").unlink()
    assert folder.scan(str(root), "images", cache).digest() == before.digest()
    assert {entry.path for entry in cache.entries("cache")} == kept, "what is no longer there is not kept"


def test_known_pieces_are_not_read_again(tmp_path: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch):
    root, cache = put(tmp_path / "root", *(f"{n:03d}.png" for n in range(30))), Store(tmp_path / "store")
    first = folder.scan(str(root), "images", cache).digest()
    gets, get = [], Store.get
    monkeypatch.setattr(Store, "get", lambda self, path: gets.append(path) or get(self, path))
    assert folder.scan(str(root), "images", cache).digest() == first
    assert [path.rsplit("/", 1)[1] for path in gets] == ["index.parquet"]


TREES = st.sets(
    st.lists(st.sampled_from(["a", "a-b", "a.b", "b", "train", "val", "train-2", "Ä"]), min_size=1, max_size=4).map(
        lambda names: "/".join(names) + ".png"
    ),
    min_size=1,
    max_size=30,
)


@given(names=TREES)
def test_the_order_is_that_of_split_and_id(names: set[str], small_pieces_once: None, tmp_path_factory):
    """Whatever lies beside the folders, and however names of files and folders sort."""
    root = put(tmp_path_factory.mktemp("tree"), *names, content=picture())
    listed = folder.scan(str(root), "images")
    found = [(item.split, item.id) for item in listed.items]
    split = any(name.startswith("train/") for name in names)
    wanted = [tuple(name.split("/", 1)) if split and "/" in name else ("all", name) for name in names]
    assert found == sorted(wanted)
    assert [piece.items for piece in listed.pieces] == [len(items) for items in listed.each()]


@pytest.fixture(scope="module")
def small_pieces_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.datasets.remembered.MEAN", 2)
        patch.setattr("pipeline.datasets.remembered.MOST", 6)
        yield


# URLs -----------------------------------------------------------------------------------------------------------------


def test_a_file_url_is_a_folder(tmp_path: Path):
    put(tmp_path / "a b", "images/train/x.png", "labels/train/x.png")
    url = f"file://{tmp_path}/a%20b"
    assert scan(url, "images") == scan(str(tmp_path / "a b"), "images")
    assert folder.has_labels(url)


def test_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The way through obstore instead of the file system, here on a local folder, gives the same listing."""
    root = put(
        tmp_path / "root", "images/train/a b.png", "images/val/deep/c.png", "labels/train/a b.png", "images/.h.png"
    )
    (root / "dataset.yaml").write_text("classes: [x, y]\nignore_index: 3\n")
    wanted = scan(str(root), "images")
    monkeypatch.setattr(files, "local_folder", lambda url: None)
    assert scan(str(root), "images") == wanted
    assert folder.has_labels(str(root))
    assert ids(root, "labels") == [("train", "a b.png")]
    assert folder.read_description(str(root)) == {"classes": ["x", "y"], "ignore_index": 3}
    cache = Store(tmp_path / "store")
    assert scan(str(root), "images", cache) == scan(str(root), "images", cache) == wanted


# Splits and class names -----------------------------------------------------------------------------------------------


def test_which_splits_are_trained_on():
    assert training_splits({"train", "val", "test"}) == ["train"]
    assert training_splits({"all"}) == ["all"]


def test_which_splits_are_predicted():
    assert predicted_splits({"train", "val"}, ["val"]) == ["val"]
    assert predicted_splits({"train", "val", "test"}, ["val", "test", "none"]) == ["test", "val"]
    assert predicted_splits({"all"}, ["val"]) == ["all"]
    with pytest.raises(ConfigError, match=r"masks\.splits: none of val is in the dataset, which has test, train"):
        predicted_splits({"train", "test"}, ["val"])


def test_a_description(tmp_path: Path):
    assert folder.read_description(str(tmp_path)) == {"classes": [], "ignore_index": 255}
    (tmp_path / "dataset.yaml").write_text("classes: [road, 7, null]\n")
    assert folder.read_description(str(tmp_path)) == {"classes": ["road", "7", "None"], "ignore_index": 255}
    for text in ("classes: [", "- a\n- b", "classes: 3", "ignore_index: high"):
        (tmp_path / "dataset.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"dataset\.yaml"):
            folder.read_description(str(tmp_path))


def test_a_store_among_the_images_is_no_image(tmp_path: Path):
    put(tmp_path, "a.png", "deep/b.png")
    Store(tmp_path / "deep/store").mark()
    put(tmp_path, "deep/store/artifacts/features/x/data/features.zarr/zarr.json", "deep/store/cache/c.png")
    assert [name for _, name in ids(tmp_path)] == ["a.png", "deep/b.png"]
