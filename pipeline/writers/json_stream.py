"""JSON files that are larger than memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


def write_object(path: Path, content: dict[str, Any]) -> None:
    """Write an object; values that are iterators become lists, one entry a line."""
    with path.open("w", encoding="utf-8") as file:
        for number, (key, value) in enumerate(content.items()):
            file.write(f"{',' if number else '{'}\n{json.dumps(key)}: ")
            _write(file, value)
        file.write("\n}\n")


def write_list(path: Path, rows: Iterator[Any]) -> None:
    """Write a list, one entry a line."""
    with path.open("w", encoding="utf-8") as file:
        _write(file, rows)


def _write(file: TextIO, value: Any) -> None:
    if not isinstance(value, Iterator):
        file.write(json.dumps(value, ensure_ascii=False))
        return
    file.write("[")
    for number, row in enumerate(value):
        file.write(("," if number else "") + "\n" + json.dumps(row, ensure_ascii=False))
    file.write("]")
