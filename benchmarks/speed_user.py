"""What a user waits for: 40 pictures of a third of a megapixel from an empty store to the report, and another cut."""

import resource
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from quality_results import Json  # beside this file

from pipeline.api import open_run
from pipeline.cuts import cut_maps
from pipeline.datasets.demo import corpus

PICTURES, SIZE = 40, (700, 500)
"""How many, and their longer and shorter side in pixels."""
CUT = 12
"""Groups of the other cut."""


def user(folder: Path) -> Json:
    """Minutes of processor and of clock of `stegoflow run` on pictures without labels, with the settings of `stegoflow
    init` but for weights that need no network; and seconds of processor of the masks of 100 of them at another K, which
    trains and clusters nothing."""
    images = pictures(folder)
    config = folder / "my.yaml"
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]
    subprocess.run([*command, "init", config], check=True, capture_output=True)
    more = [f"dataset.root={images}", f"store={folder / 'user'}", "features.weights=packaged", "features.block=8"]
    start, before = time.monotonic(), processor(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*command, "run", config, *(part for one in more for part in ("--set", one))], check=True, capture_output=True
    )
    minutes = (processor(resource.RUSAGE_CHILDREN) - before) / 60
    found = open_run(str(folder / "user"), "latest")
    maps, start_cut = cut_maps(found.store, found.record, CUT), processor(resource.RUSAGE_SELF)
    for row in found.masks.rows:
        maps.read(row)
    seconds = processor(resource.RUSAGE_SELF) - start_cut
    return {
        "pictures": len(found.masks.rows),
        "megapixels": SIZE[0] * SIZE[1] / 1e6,
        "cpu_minutes_to_report": minutes,
        "minutes_to_report": (time.monotonic() - start) / 60,
        "cut_cpu_seconds_of_100": seconds / len(found.masks.rows) * 100,
        "stage_seconds": {row.stage: round(found.artifact(row.stage).manifest["seconds"], 1) for row in found.stages},
    }


def pictures(folder: Path) -> Path:
    """The demo's pictures without their labels, enlarged."""
    root = corpus.build(folder / "user-corpus", seed=1, train=PICTURES, val=1)
    out = folder / "pictures"
    out.mkdir()
    for path in sorted((root / "images/train").glob("*.jpg")):
        with Image.open(path) as picture:
            size = SIZE if picture.width >= picture.height else SIZE[::-1]
            picture.resize(size, Image.Resampling.BICUBIC).save(out / path.name, quality=92)
    return out


def processor(who: int) -> float:
    """Seconds of processor so far, of this process or of its children that have ended."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime
