"""FiftyOne: `labels/NAME.png`, class + 1, because 0 is the background and not drawn; `mask_targets.json`; `load.py`."""

import json
from collections.abc import Iterable

from pipeline.writers.folder import Folder
from pipeline.writers.interface import Done, ImageFacts, LabelMap, Legend, Writer, whole
from pipeline.writers.raster import png

LOAD = '''"""Open these masks in FiftyOne: python load.py FOLDER_OF_THE_IMAGES"""

import json
import sys
from pathlib import Path

import fiftyone as fo

here = Path(__file__).resolve().parent
targets = json.loads((here / "mask_targets.json").read_text(encoding="utf-8"))
dataset = fo.Dataset.from_dir(
    dataset_type=fo.types.ImageSegmentationDirectory, data_path=sys.argv[1], labels_path=str(here / "labels")
)
dataset.default_mask_targets = {int(value): name for value, name in targets.items()}
dataset.save()
fo.launch_app(dataset).wait()
'''


def one(out: Folder, legend: Legend, image: ImageFacts, ids: LabelMap) -> None:
    out.write(f"labels/{image.name}.png", png(legend.from_one(whole(ids))))


def finish(out: Folder, legend: Legend, done: Iterable[Done]) -> None:
    targets = {str(number): name for number, name in enumerate(legend.names, 1)}
    out.write("mask_targets.json", json.dumps(targets, indent=1, ensure_ascii=False))
    out.write("load.py", LOAD)


WRITER = Writer(one, finish, suffix=".png", first=1)
