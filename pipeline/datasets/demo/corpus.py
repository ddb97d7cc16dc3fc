"""The demo corpus: small composed photographs with pixel-exact labels, made on this machine without a network.

No Python package ships labelled photographs, so a scene is painted back to front in layers: a landscape, a table top
or a warped patchwork, then objects that overlap it and cast soft shadows. Each layer is filled with one material from
a real photograph, varied in scale, rotation, light and colour temperature; the outline that blends it into the picture
also writes its label. Training and validation scenes are filled from disjoint parts of the sources.

`demo_scene` paints; the sources and their provenance are in `demo_sources`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import yaml
from PIL import Image

from pipeline.core.errors import ConfigError
from pipeline.core.extras import require
from pipeline.datasets.demo.scene import IGNORE, SPLITS, scene
from pipeline.datasets.demo.sources import CLASSES

VERSION = 1  # of the recipe: a corpus that another version made is made again
HEADER = "# The demo corpus of stegoflow: made by pipeline.datasets.demo.corpus, and made again by it.\n"
NOTES = "Composed scenes, filled from photographs that scikit-image ships; train and val from disjoint parts of them."


def build(
    root: Path, *, seed: int = 0, train: int = 120, val: int = 40, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write the corpus under `root` and return `root`; at once if the same arguments have made it there before.

    images/{train,val}/NNN.jpg   RGB, uint8, 240 to 480 pixels a side, both orientations
    labels/{train,val}/NNN.png   uint8, of the same size: positions in `CLASSES`
    dataset.yaml                 name, num_classes, classes, ignore_index, notes
    .complete                    last: what it was made with; without it the corpus is made again

    The same arguments give the same bytes. `progress` is called with (pictures done, pictures in all).
    """
    stamp, card = root / ".complete", root / "dataset.yaml"
    made = json.dumps({"corpus": "demo", "version": VERSION, "seed": seed, "train": train, "val": val})
    if stamp.is_file() and stamp.read_text() == made:
        return root
    require("skimage", "the demo corpus")
    if root.exists() and any(root.iterdir()) and not (card.is_file() and card.read_text().startswith(HEADER)):
        raise ConfigError(f"{root} holds files that are not the demo corpus", next="name an empty folder")
    stamp.unlink(missing_ok=True)
    for split in SPLITS:
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
    facts = {"name": "demo", "num_classes": len(CLASSES), "classes": list(CLASSES), "ignore_index": IGNORE}
    card.write_text(HEADER + yaml.safe_dump(facts | {"notes": NOTES}, sort_keys=False, width=120))
    jobs = [(split, number) for split, count in zip(SPLITS, (train, val), strict=True) for number in range(count)]
    for done, (split, number) in enumerate(jobs, start=1):
        picture, labels = scene(seed, split, number)
        Image.fromarray(picture).save(root / "images" / split / f"{number:03d}.jpg", quality=92)
        Image.fromarray(labels).save(root / "labels" / split / f"{number:03d}.png")
        if progress:
            progress(done, len(jobs))
    wanted = {(split, f"{number:03d}") for split, number in jobs}
    for path in (*root.glob("images/*/*.jpg"), *root.glob("labels/*/*.png")):
        if (path.parent.name, path.stem) not in wanted:  # a larger corpus was here
            path.unlink()
    part = root / ".complete.part"
    part.write_text(made)
    os.replace(part, stamp)
    return root
