"""What is known of a backbone and its weights without importing timm, which takes seconds: found once, then remembered.

The memory is a JSON file of the user, `$XDG_CACHE_HOME/stegoflow/facts.json` (`~/.cache` without that variable). It
saves time and nothing else: one that is missing, damaged or not writable is ignored.
"""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

KEPT = 256
"""Facts that the file holds at most, the newest ones."""
HUB_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")
"""What the place of the model hub's cache depends on."""


class Shape(NamedTuple):
    """Patch side in pixels, channels of a token, number of blocks."""

    patch: int
    channels: int
    blocks: int


def describe(backbone: str) -> Shape:
    """(patch, channels, blocks) of a timm ViT, without weights, memory or network.

    Raises:
        ConfigError: no such model in timm, or not a plain ViT.
    """

    def find() -> list[int]:
        from pipeline.backbones.vit import shape_of

        return list(shape_of(backbone))

    def fits(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(isinstance(one, int) and one > 0 for one in value)

    return Shape(*remembered(["shape", version("timm"), backbone], find, fits))


def hub_file(backbone: str) -> Path:
    """File of timm's hub entry in the hub's cache, downloaded where it is not there yet. ConfigError as `from_hub`."""

    def find() -> str:
        from pipeline.backbones.vit import pretrained
        from pipeline.backbones.weights import from_hub

        return str(from_hub(backbone, pretrained(backbone)))

    def fits(value: Any) -> bool:
        """Whether it is still the file of the revision that the cache holds: REPO/snapshots/COMMIT/FILE."""
        path = Path(str(value))
        refs = path.parents[2] / "refs" if len(path.parents) > 2 else path
        with suppress(OSError):
            return path.is_file() and any(ref.read_text() == path.parent.name for ref in refs.iterdir())
        return False

    places = [os.environ.get(name) for name in HUB_VARIABLES]
    return Path(remembered(["hub", version("timm"), backbone, *places], find, fits))


def file_sha256(path: Path, read: Callable[[Path], str]) -> str:
    """The digest of a file, read again where its size or its time of change is another. OSError where it is not there.

    read: the function that computes it.
    """
    stat = path.stat()
    key = ["sha256", str(path.absolute()), stat.st_size, stat.st_mtime_ns]
    return str(remembered(key, lambda: read(path), lambda value: isinstance(value, str) and len(value) == 64))


def remembered(key: list[Any], find: Callable[[], Any], fits: Callable[[Any], bool]) -> Any:
    """The fact that is remembered under a key where it `fits`, else what `find` gives, which is remembered."""
    name = json.dumps(key)
    value = _read().get(name)
    if not fits(value):
        value = find()
        _write(name, value)
    return value


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stegoflow/facts.json"


def _read() -> dict[str, Any]:
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: nobody knows the home folder
        facts = json.loads(_file().read_text(encoding="utf-8"))
        return facts if isinstance(facts, dict) else {}
    return {}


def _write(name: str, value: Any) -> None:
    with suppress(OSError, RuntimeError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        facts = {key: known for key, known in _read().items() if key != name} | {name: value}
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".new", delete=False, encoding="utf-8") as new:
            json.dump(dict(list(facts.items())[-KEPT:]), new)
        os.replace(new.name, file)
