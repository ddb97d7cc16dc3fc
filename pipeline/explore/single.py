"""The explorer's page as one file: some images with their tokens, and the page's own modules inside."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts.search import Index
from pipeline.core.errors import ConfigError
from pipeline.core.store import Store
from pipeline.explore.corpus import COMPONENTS, STATIC
from pipeline.explore.packing import packed_tokens
from pipeline.explore.service import Service
from pipeline.images.pixels import DecodeError

SIDE = 480
"""Pixels of the longer side of a picture."""
TYPICAL = 6
"""Patches of every prototype."""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="content-security-policy" content="{policy}">
<title>stegoflow</title>
<style>{style}</style>
</head>
<body>
<div id="page" class="loading"><p>Reading the run…</p></div>
<script type="application/json" id="content">{content}</script>
<script type="module">{script}</script>
</body>
</html>
"""
IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([\w-]+)\.js";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (async function|function|class|const) ([\w$]+)", re.MULTILINE)
LIST = re.compile(r"^export \{ ?([\w$, ]+?) ?\};\n", re.MULTILINE)


def write_page(store: Store, record: dict[str, Any], out: Path, images: int) -> dict[str, Any]:
    """Write the page of a run with at most so many images, evenly spaced: {"images", "bytes", "out"}. Nothing is
    written to the store. ConfigError where the file cannot be written, or no image can be shown."""
    if images < 1:
        raise ConfigError(f"--images {images}: a page has one at least", next="--images 60")
    service = Service(store, record, read_only=True)
    chosen = np.unique(np.linspace(0, service.corpus.count - 1, min(images, service.corpus.count)).round().astype(int))
    content = _content(service, chosen.tolist())
    page = single_file(content)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}", next="name a file in a folder that can be written") from None
    return {"images": len(content["images"]), "bytes": len(page.encode()), "out": str(out)}


def _content(service: Service, rows: list[int]) -> dict[str, Any]:
    """What the page knows. Images have the numbers 0 … n − 1 in it."""
    corpus, indexing = service.corpus, service.corpus.indexing
    indexing.begin()
    inside = Index(indexing.index.basis, indexing.index.center, len(corpus.clusters.vectors))
    images: list[dict[str, Any]] = []
    for row in rows:
        try:
            picture = corpus.picture(row, None, SIDE)
            plane = corpus.plane(row)
        except DecodeError:
            continue
        if not len(plane["scale"]):
            continue
        split, id = corpus.images.name(row)
        height, width = corpus.images.size(row)
        inside.add(len(images), {**plane, "shape": plane["shape"][None]})
        facts = {"split": split, "id": id, "height": height, "width": width}
        images.append({**facts, "picture": _coded(picture), "tokens": _coded(packed_tokens(plane, COMPONENTS))})
    if not images:
        raise ConfigError("no image of this run can be shown", next="look at `stegoflow show RUN`")
    table = inside.table
    places = [
        [list(one.place) for one in table.typical(np.array([p]), TYPICAL)] for p in range(len(corpus.clusters.vectors))
    ]
    facts = service.facts()
    facts |= {"read_only": False, "count": len(images), "splits": {}}
    return {"facts": facts, "images": images, "typical": places, "counts": table.counts().tolist()}


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def single_file(content: dict[str, Any]) -> str:
    """The page with `content`, its style and its modules inside. Its own policy lets no other script run."""
    script = bundle("single")
    style = (STATIC / "page.css").read_text(encoding="utf-8")
    digests = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("script", script), ("style", style))
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{digests['script']}'; style-src 'sha256-{digests['style']}'; "
        "img-src blob: data:; base-uri 'none'; form-action 'none'"
    )
    # What a name could close the element with, or open a comment, is written as an escape of JSON.
    data = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
    return PAGE.format(policy=policy, style=style, script=script, content=data)


def bundle(entry: str) -> str:
    """A module and those it imports as one script. Each becomes a function that returns what it exports."""
    done: dict[str, str] = {}

    def take(name: str) -> None:
        if name in done:
            return
        done[name] = ""
        text = (STATIC / f"{name}.js").read_text(encoding="utf-8")
        for _, other in IMPORT.findall(text):
            take(other)
        exported = [found for _, found in EXPORT.findall(text)]
        exported += [found.strip() for line in LIST.findall(text) for found in line.split(",")]
        body = IMPORT.sub(lambda found: f"const {found[1].replace(' as ', ': ')} = {_variable(found[2])};\n", text)
        body = LIST.sub("", EXPORT.sub(r"\1 \2", body))
        del done[name]  # after what it imports
        done[name] = f"const {_variable(name)} = (() => {{\n{body}\nreturn {{ {', '.join(exported)} }};\n}})();\n"

    take(entry)
    return "".join(done.values())


def _variable(name: str) -> str:
    return f"module_{name}"
