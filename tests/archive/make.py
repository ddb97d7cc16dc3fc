"""Makes the archive of a store that later versions must read: `python tests/archive/make.py`.

Twelve pictures with label maps, their features by the packaged weights, and a finished run. Run it once for each layout
that is released; an archive is never made again.
"""

import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import run
from pipeline.config import PipelineConfig
from pipeline.core.store import ENCODING_VERSION

HERE = Path(__file__).parent
SETTINGS = {
    "features": {"weights": "packaged", "views": {"size": [28, 28]}},
    "head": {"method": "pca", "code": 16},
    "clusters": {"k": 3},
    "masks": {"splits": ["val"]},
    "report": {"images": 1, "patches": 0},
    "execution": {"executor": "serial", "device": "cpu", "precision": "fp32"},
}
"""Of its run, apart from where things lie."""


def write_pictures(root: Path) -> None:
    """ROOT/images and ROOT/labels: rectangles of three kinds."""
    rng = np.random.default_rng(0)
    colours = np.asarray([[200, 60, 40], [40, 160, 60], [50, 70, 200]])
    for number in range(12):
        label = np.kron(rng.integers(0, 3, (2, 3)), np.ones((16, 16), int))
        image = colours[label] + rng.integers(-20, 20, (*label.shape, 1))
        for kind, pixels in (("images", image), ("labels", label)):
            path = root / kind / ("val" if number < 4 else "train") / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    (root / "dataset.yaml").write_text("classes: [red, green, blue]\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pictures(folder / "data")
        run(
            PipelineConfig.model_validate(
                {"store": str(folder / "store"), "dataset": {"root": str(folder / "data")}, **SETTINGS}
            )
        )
        path = HERE / f"layout-{ENCODING_VERSION}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            settings = json.dumps(SETTINGS).encode()
            entry = tarfile.TarInfo("settings.json")
            entry.size = len(settings)
            archive.addfile(entry, io.BytesIO(settings))
            for name in ("data", "store"):
                archive.add(
                    folder / name,
                    name,
                    filter=lambda one: None if "cache" in one.name or one.name == "store/report.html" else one,
                )
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
