"""The store: create-only puts, what is missing, what is refused, and what may be shown."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.core.errors import ConfigError
from pipeline.core.store import Store, local_folder, open_store, redact

RACER = """
import sys, time
from pathlib import Path
from pipeline.core.store import Store
name, root, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = Store(root)
Path(root, f"ready-{name}").touch()
while not Path(root, "go").exists():
    time.sleep(0.001)
print(" ".join(str(n) for n in range(rounds) if store.create(f"race/{n}.json", f"{name}".encode() * 2000)))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_of_eight_racing_writers_one_wins(store: Store):
    rounds, racers = 30, "abcdefgh"
    command = [sys.executable, "-c", RACER]
    processes = [
        subprocess.Popen([*command, name, store.url, str(rounds)], stdout=subprocess.PIPE, text=True) for name in racers
    ]
    deadline = time.monotonic() + 60
    while len(list(Path(store.url).glob("ready-*"))) < len(racers) and time.monotonic() < deadline:
        time.sleep(0.01)
    Path(store.url, "go").touch()
    won = {name: process.communicate(timeout=60)[0].split() for name, process in zip(racers, processes, strict=True)}
    assert all(process.returncode == 0 for process in processes)
    assert sorted(int(n) for numbers in won.values() for n in numbers) == list(range(rounds)), "one winner each"
    for name, numbers in won.items():
        for n in numbers:
            assert store.get(f"race/{n}.json") == name.encode() * 2000, "the loser left the winner's bytes alone"


def test_create_keeps_what_is_there_and_put_replaces_it(store: Store):
    assert store.create("a/b.json", b"first")
    assert not store.create("a/b.json", b"second")
    assert store.get("a/b.json") == b"first"
    store.put("a/b.json", b"third")
    assert store.get("a/b.json") == b"third"


def test_what_is_missing(store: Store):
    with pytest.raises(FileNotFoundError):
        store.get("no/such/object")
    assert not store.exists("no/such/object")
    assert list(store.entries("no/such")) == []
    assert store.folders("no") == []
    store.delete("no/such/object")


def test_listing(store: Store):
    before = time.time()
    for path in ("a/x/1.json", "a/x/2.json", "a/y/1.json", "ab/z.json"):
        store.put(path, b"12345")
    assert {entry.path for entry in store.entries("a")} == {"a/x/1.json", "a/x/2.json", "a/y/1.json"}
    assert store.folders("a") == ["x", "y"]
    entry = next(store.entries("ab"))
    assert (entry.path, entry.size) == ("ab/z.json", 5)
    assert abs(entry.modified - before) < 60
    store.delete("a/x/1.json")
    assert not store.exists("a/x/1.json")


def test_an_unfinished_write_is_not_listed(store: Store, tmp_path: Path):
    """obstore stages a write beside its target as NAME#NUMBER: what a killed process leaves is no marker."""
    store.put("parts/1.json", b"{}")
    (tmp_path / "store/parts/2.json#1").write_bytes(b"half")
    assert [entry.path for entry in store.entries("parts")] == ["parts/1.json"]


def test_a_store_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        Store(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Store(tmp_path / "file" / "below")


def test_an_unknown_scheme():
    with pytest.raises(ConfigError, match="nonsense://bucket cannot be opened"):
        Store("nonsense://bucket")


def test_a_store_that_was_never_made(tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no store"):
        Store(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_another_layout_is_refused(store: Store):
    store.mark()
    store.mark()
    store.put("stegoflow.json", b'{"encoding-type": "stegoflow-store", "encoding-version": 99}')
    with pytest.raises(ConfigError, match="has layout 99; this program reads layout 4"):
        store.mark()
    store.put("stegoflow.json", b"{broken")
    with pytest.raises(ConfigError, match=r"is not a store's mark"):
        store.mark()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="is not usable"):
        Store(tmp_path / "store").mark()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://KEY:SECRET@bucket/prefix?token=SECRET#SECRET", "s3://bucket/prefix"),
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("https://user:p%40ss@host:9000/bucket", "https://host:9000/bucket"),
        ("https://a@b:SECRET@host/x", "https://host/x"),
        ("/folder/with?query@and#hash", "/folder/with?query@and#hash"),
    ],
)
def test_credentials_are_not_shown(url: str, shown: str):
    assert redact(url) == shown


def test_errors_and_paths_hide_credentials():
    assert Store("s3://bucket/prefix").path_of("a/b") == "s3://bucket/prefix/a/b"
    with pytest.raises(ConfigError) as caught:
        Store("nonsense://KEY:SECRET@bucket")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["a b", "Füße", "100%", "a#1", "it's", "a%20b"])
def test_folders_with_odd_names(name: str, tmp_path: Path):
    store = Store(tmp_path / name)
    store.put("a/b", b"x")
    assert (tmp_path / name / "a/b").read_bytes() == b"x"
    assert [entry.path for entry in store.entries("a")] == ["a/b"]
    assert Path(store.path_of("a/b")).read_bytes() == b"x"


def test_urls_of_local_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_folder("store") == local_folder("./x/../store") == local_folder("~/store") == tmp_path / "store"
    assert local_folder(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert local_folder("s3://bucket/x") is None


def test_a_store_travels_as_its_url(store: Store):
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert copy is open_store(store.url), "a worker opens each store once"
    assert len(pickle.dumps(store)) < 500


def test_zarr_sees_the_same_objects(store: Store):
    import zarr

    zarr.create_array(store.zarr("a/b"), shape=(2,), dtype="f4", fill_value=float("nan"))
    assert store.exists("a/b/zarr.json")
