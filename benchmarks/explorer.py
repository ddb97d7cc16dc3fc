"""How fast the explorer answers, in Chromium: `python benchmarks/explorer.py --data FOLDER` → benchmarks/explorer.json.

Makes a corpus of `--images` pictures from those below FOLDER (cut, mirrored, brightened), runs it up to the masks, and
measures in the page what a person waits for. `--store` and `--run` take a run that is there.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from quality_cell import BASE  # beside this file

from pipeline.api import open_run, run
from pipeline.artifacts.planes import Views
from pipeline.artifacts.search import Place
from pipeline.config import validate
from pipeline.core.store import open_store

GOALS = {
    "page usable, s": 2.0,
    "hover to heat, ms": 16,
    "name to masks, ms": 200,
    "merge to masks, ms": 200,
    "split to masks, ms": 200,
    "click to masks, ms": 500,
    "find similar, ms": 300,
    "recall at 50": 0.95,
    "server memory, MiB": 1536,
}
SERVE = """
import sys
from pipeline.core.runs import find_run
from pipeline.core.store import open_existing
from pipeline.explore.server import Explorer
store = open_existing(sys.argv[1])
page = Explorer(store, find_run(store, sys.argv[2])).start()
print(page.url, flush=True)
page.service.corpus.indexing.wait()
print("ready", flush=True)
page.wait()
"""
MODULES = """
const module = name => import(new URL(`static/${name}.js`, document.baseURI));
const [{ state }, { images }, { source }] = await Promise.all(['state', 'images', 'source'].map(module));
const frame = () => new Promise(done => requestAnimationFrame(done));
const median = values => values.sort((a, b) => a - b)[values.length >> 1];
"""
HOVER = """
const canvas = document.querySelector('canvas.picture');
const box = canvas.getBoundingClientRect(), found = [];
for (let move = 0; move < 60; move++) {
  const [x, y] = [box.width * (0.3 + 0.4 * Math.random()), box.height * (0.3 + 0.4 * Math.random())];
  let start = 0;
  requestAnimationFrame(() => (start = performance.now()));
  const before = performance.now();
  canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
  const asked = performance.now() - before;
  await frame();
  found.push(asked + performance.now() - start);
}
return median(found);
"""
EDIT = """
const found = [];
for (let turn = 0; turn < 9; turn++) {
  const groups = state.units.filter(unit => unit.kind === 'group' && unit.nodes[0] >= state.tree.leaves);
  const start = performance.now();
  if (value === 'name') state.name(groups[0], `name ${turn}`);
  if (value === 'merge') state.merge(groups[1], groups[0]);
  if (value === 'split') state.split(groups[0]);
  await frame();
  found.push(performance.now() - start);
  state.undo();
  while (state.saving !== 'saved') await frame();
}
return median(found);
"""
CLICK = """
const image = await images.of(value), found = [];
for (let turn = 0; turn < 9; turn++) {
  const start = performance.now();
  const point = { split: image.split, image: image.id, y: 5 + turn, x: (turn * 37) % image.width };
  state.chosen = state.newClass(`class ${turn % 3}`);
  state.points([{ ...point, class: state.chosen }]);
  while (images.classes.get(value)?.said !== state.said) await frame();
  await frame();
  found.push(performance.now() - start);
}
return median(found.slice(1));
"""
FIND = """
const found = [];
for (let turn = 0; turn < 20; turn++) {
  const start = performance.now();
  await source.find(Math.floor(Math.random() * state.facts.count), turn % 20, (7 * turn) % 20);
  found.push(performance.now() - start);
}
return median(found.slice(3));
"""


def write_corpus(data: Path, root: Path, count: int) -> None:
    """So many pictures of 320 × 320 pixels, each a part of one below `data`."""
    known = sorted(path for path in data.rglob("images/**/*") if path.suffix.lower() in (".jpg", ".png"))
    rng = np.random.default_rng(0)
    for number in range(count):
        with Image.open(known[number % len(known)]) as found:
            image = found.convert("RGB")
        side = int(min(image.size) * rng.uniform(0.6, 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        image = image.crop((left, top, left + side, top + side)).resize((320, 320))
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.integers(2) else image
        image = image.point(
            [min(255, round(value * factor)) for factor in [rng.uniform(0.8, 1.2)] for value in range(256)] * 3
        )
        path = root / "images" / ("train" if number % 5 else "val") / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)


def make_run(data: Path, folder: Path, count: int) -> tuple[str, str]:
    """(store, run) of a corpus made from `data`."""
    write_corpus(data, folder / "corpus", count)
    settings = {
        "store": str(folder / "store"),
        "dataset": {"root": str(folder / "corpus")},
        "features": BASE["features"],
        "head": {"method": "stegoflow", "steps": 100},
        "clusters": {"k": 12},
        "masks": {"crf": False},
        "execution": {"device": "cpu"},
    }
    return str(folder / "store"), run(validate(settings), until="masks").id


def recall(store: str, ref: str, url: str, page: Any, count: int = 40) -> float:
    """The share of the 50 images with the most similar token, by all channels, that a search of the page finds."""
    opened = open_run(store, ref)
    views, center = Views(opened.artifact("features")), opened.features.center
    planes = [views.plane(row, lambda tokens: tokens.astype(np.float32)) for row in range(len(opened.images))]
    units = [(p - center) / np.linalg.norm(p - center, axis=-1, keepdims=True) for p in planes if p is not None]
    rng, found = np.random.default_rng(1), []
    for _ in range(count):
        row = int(rng.integers(len(units)))
        place = Place(row, int(rng.integers(len(units[row]))), int(rng.integers(units[row].shape[1])))
        exact = np.array([(unit @ units[row][place.y, place.x]).max() for unit in units])
        listed = page.evaluate(f"async value => {{ {MODULES} return source.find(...value) }}", list(place))
        found.append(len(set(np.argsort(-exact)[:50].tolist()) & {one["row"] for one in listed}) / 50)
    return float(np.mean(found))


def measure(store: str, ref: str, exact: bool) -> dict[str, float]:
    """What `GOALS` names, of a run."""
    from playwright.sync_api import sync_playwright

    server = subprocess.Popen([sys.executable, "-c", SERVE, store, ref], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        started = time.monotonic()
        url = server.stdout.readline().strip()
        found: dict[str, float] = {"server up, s": time.monotonic() - started}
        assert server.stdout.readline().strip() == "ready"
        found["index ready, s"] = time.monotonic() - started
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            started = time.monotonic()
            page.goto(url)
            page.wait_for_selector("html[data-ready]", state="attached")
            page.wait_for_selector(".tile canvas")
            found["page usable, s"] = time.monotonic() - started
            page.wait_for_timeout(3000)

            def ask(script: str, value: Any = None) -> float:
                return page.evaluate(f"async value => {{ {MODULES} {script} }}", value)

            for edit in ("name", "merge", "split"):
                found[f"{edit} to masks, ms"] = ask(EDIT, edit)
            page.goto(url + "#/image/3")
            page.wait_for_timeout(3000)
            found["hover to heat, ms"] = ask(HOVER)
            found["click to masks, ms"] = ask(CLICK, 3)
            found["find similar, ms"] = ask(FIND)
            if exact:
                found["recall at 50"] = recall(store, ref, url, page)
            browser.close()
        status = Path(f"/proc/{server.pid}/status").read_text()
        found["server memory, MiB"] = int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024
    finally:
        server.terminate()
        server.wait()
    return {name: round(value, 3) for name, value in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of data sets, images below images/")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--store")
    parser.add_argument("--run", default="latest")
    parser.add_argument("--no-exact", action="store_true", help="without the recall, which reads every token")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder, "store")
        if args.store:  # what is said here is not to stay in it
            shutil.copytree(open_store(args.store).folder or args.store, copied)
            store, ref = str(copied), args.run
        else:
            store, ref = make_run(args.data, Path(folder), args.images)
        found = {"images": len(open_run(store, ref).images), **measure(store, ref, not args.no_exact)}
    for name, value in found.items():
        goal = GOALS.get(name)
        print(f"{name:<22}{value:>10g}" + (f"   goal {goal:g}" if goal else ""))
    args.out.write_text(json.dumps({"measured": found, "goals": GOALS}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
