"""What `features.codec` saves and costs, for `benchmarks/speed.py`: bytes, mIoU, and how fast random views are read.

On labelled sets of one's own: `python benchmarks/store_codecs.py --data FOLDER --sets a,b`.
"""

import argparse
import copy
import datetime
import time
from pathlib import Path

import numpy as np
from quality import call, chosen, dump, write  # beside this file
from quality_cell import BASE, ROOT, commit, find_sets, machine
from quality_cell import config_of as cell_of
from quality_results import Json
from speed_stages import FEATURES

from pipeline.api import run
from pipeline.artifacts.features import Tokens
from pipeline.config import PipelineConfig, validate
from pipeline.core.artifact import Artifact
from pipeline.datasets.demo import corpus as demo

SEEDS = (0, 1, 2)


def codecs(folder: Path, train: int = 48, val: int = 24) -> Json:
    """Demo pictures with the packaged weights as fp16 and as int8: bytes of int8 for one of fp16; mean mIoU over three
    seeds of clusters of the tokens as they are (`head.method=none`), what int8 loses of it, and the standard deviation
    of that loss over seeds; seconds to read 32 random views with `Tokens`, and those bytes as plain files."""
    root = demo.build(folder / "codecs", train=train, val=val)
    found: dict[str, Json] = {}
    for codec in ("fp16", "int8"):
        scores = []
        for seed in SEEDS:
            config = config_of(folder, root, codec, seed)
            result = run(config, until="scores")
            scores.append(result.scores.cluster.miou)
        artifact = result.artifact("features")
        found[codec] = {"bytes": artifact.manifest["bytes"], "miou": scores, **reading(artifact)}
    lost = np.subtract(found["fp16"]["miou"], found["int8"]["miou"])
    return {
        "codec": "int8",
        "bytes_vs_fp16": found["int8"]["bytes"] / found["fp16"]["bytes"],
        "miou_lost": float(lost.mean()),
        "miou_lost_sd": float(lost.std(ddof=1)),
        "miou_fp16": float(np.mean(found["fp16"]["miou"])),
        **{f"{name}_{codec}": found[codec][name] for codec in found for name in ("random_seconds", "raw_seconds")},
    }


def config_of(folder: Path, root: Path, codec: str, seed: int) -> PipelineConfig:
    """Of one run."""
    sections = {
        "features": FEATURES | {"codec": codec},
        "clusters": {"k": 11, "seed": seed},
        "head": {"method": "none", "seed": seed},
    }
    sections |= {"masks": {"crf": False, "upsampling": "bilinear"}}
    return validate({"store": str(folder / "codecs-store"), "dataset": {"root": str(root)}} | sections)


def reading(artifact: Artifact, count: int = 32) -> Json:
    """Seconds, the median of five, of reading `count` random views one by one, and of their share of the files."""
    tokens = Tokens(artifact)
    files = sorted(Path(artifact.store.path_of(artifact.data("features.zarr/tokens/c"))).rglob("[0-9]*"))
    files = [file for file in files if file.is_file()]
    generator = np.random.default_rng(0)
    views, raw = [], []
    for _ in range(5):
        rows = generator.choice(tokens.shape[0], count, replace=False)
        begin = time.perf_counter()
        tokens.read(rows)
        views.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        size = sum(len(file.read_bytes()) for file in files)
        raw.append((time.perf_counter() - begin) * count / tokens.shape[0])
        assert size
    return {"random_seconds": float(np.median(views)), "raw_seconds": float(np.median(raw))}


FILE = ROOT / "benchmarks/codecs.json"
"""Of labelled sets; speed.json holds the demo's."""


def lost(roots: dict[str, Path], store: str) -> Json:
    """Of each data set the mIoU of k-means on tokens, guided masks, by codec and seed, as `benchmarks/quality.py` has
    it; and what int8 loses: mean and standard deviation over sets and seeds."""
    found: Json = {}
    for name, root in roots.items():
        for codec in ("fp16", "int8"):
            base = copy.deepcopy(BASE)
            base["features"]["codec"] = codec
            for seed in SEEDS:
                result = run(cell_of(base, root, store, "none+guided", seed, False, None), until="scores")
                found.setdefault(name, {}).setdefault(codec, []).append(round(result.scores.cluster.miou, 3))
                print(name, codec, f"seed {seed}:", found[name][codec][-1], flush=True)
    differences = np.concatenate([np.subtract(entry["fp16"], entry["int8"]) for entry in found.values()])
    return {"sets": found, "lost": round(float(differences.mean()), 3), "sd": round(float(differences.std(ddof=1)), 3)}


def on_sets() -> int:
    """Measure, print, write codecs.json."""
    parser = argparse.ArgumentParser(description="What int8 loses on labelled sets; kept in benchmarks/codecs.json.")
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets, as for quality.py")
    parser.add_argument("--sets", help="names, separated by commas; default: all")
    parser.add_argument("--store", default=".quality", help="where artifacts stay for the next call")
    args = parser.parse_args()
    roots = find_sets(args.data)
    found = lost({name: roots[name] for name in chosen("--sets", args.sets, list(roots))}, args.store)
    found |= {"date": datetime.date.today().isoformat(), "machine": machine(), "commit": commit()}
    write(FILE, dump(found) + "\n")
    print(f"int8 loses {found['lost']} ± {found['sd']}")
    return 0


if __name__ == "__main__":
    call(on_sets)
