"""Write an archive of today's artifacts: a store with a tiny finished run, a named one, and its images.

Run it once for each layout of stores or encoding of a stage, and keep the older archives: `test_archives.py` reads all
of them, so that a change of format has to think of what users have.

    python tests/archives/make.py layout-2
"""

import io
import os
import sys
import tarfile
import tempfile
from pathlib import Path

import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpora import BACKBONE, small, write_corpus

from pipeline.backbones import vit as backbones
from pipeline.config import validate
from pipeline.core.runs import name_run
from pipeline.core.store import Store
from pipeline.session import run


def main(name: str) -> None:
    target = Path(__file__).with_name(f"{name}.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        torch.manual_seed(0)
        safetensors.torch.save_file(backbones._make(BACKBONE).state_dict(), "tiny.safetensors")
        data = small(
            write_corpus(Path("corpus"), train=3, val=2),
            "store",
            Path("tiny.safetensors"),
            features={"views": {"size": [32, 32]}},
            head={"steps": 4, "batch": 2},
            clusters={"k": 3},
            report={"images": 1, "patches": 1},
        )
        (Path("corpus") / "images/val/01.png").write_bytes(b"no picture")  # a hole
        result = run(validate({**data, "execution": {**data["execution"], "max_failed_fraction": 0.5}}))
        name_run(Store("store"), result["run"], "kept")
        with tarfile.open(target, "w:gz") as archive:
            for path in sorted([*Path("store").rglob("*"), *Path("corpus").rglob("*")]):
                if path.is_file() and "cache" not in path.parts:
                    entry = tarfile.TarInfo(path.as_posix())
                    entry.size = path.stat().st_size
                    archive.addfile(entry, io.BytesIO(path.read_bytes()))
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
