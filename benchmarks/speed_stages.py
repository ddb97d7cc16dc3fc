"""What `benchmarks/speed.py` times: of each stage the work itself, its floor, and what a user would otherwise do.

Every function returns plain numbers. What is compared is timed in turns, a round of each, so that a machine that is
busy now and free then disturbs them alike; a figure is the median over rounds.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from quality_cell import BASE  # beside this file
from quality_results import Json
from torch.nn import functional as F

from pipeline.api import run
from pipeline.backbones.devices import compute_dtype, pick_device
from pipeline.backbones.facts import describe
from pipeline.backbones.vit import create_backbone
from pipeline.config import PipelineConfig, validate
from pipeline.core.engine import silent
from pipeline.core.execution import Execution
from pipeline.core.executors import open_executor
from pipeline.datasets.demo import corpus as demo
from pipeline.numerics.crf import dense_crf
from pipeline.numerics.kmeans import cosine_kmeans, normalise
from pipeline.stages.neighbours import build_index, search_others

SIZE = (280, 336)
"""Of a view of the demo, in pixels."""
FEATURES: Json = BASE["features"] | {"views": {"size": list(SIZE)}, "mirror": "none"}
BACKBONE, BLOCK = FEATURES["backbone"], FEATURES["block"]
BATCH = Execution().batch_size


def turns(rounds: int, clock: str = "perf_counter", **tasks: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of each task over `rounds` in which all of them run once, in turn; one more, first, is not
    counted. `clock`: a clock of the module `time`."""
    now = getattr(time, clock)
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            synchronise()
            start = now()
            task()
            synchronise()
            seconds[name].append(now() - start)
    return {name: float(np.median(values[1:])) for name, values in seconds.items()}


def efficiency(function: Callable[[Any], None], warm: list[Any], tasks: list[Any]) -> float:
    """How much faster two worker processes are than one, over 2: on `tasks`, after both have done two of `warm`."""
    seconds = {}
    for workers in (1, 2):
        with open_executor(Execution(executor="processes", workers=workers)) as executor:
            list(executor.run(function, warm))  # workers start
            begin = time.perf_counter()
            list(executor.run(function, tasks))
            seconds[workers] = time.perf_counter() - begin
    return seconds[1] / seconds[2] / 2


def synchronise() -> None:
    """Wait for CUDA, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def corpus(folder: Path, seed: int, count: int) -> Path:
    """`count` training pictures of the demo and one for validation; those of another seed are others."""
    return demo.build(folder / f"corpus-{seed}-{count}", seed=seed, train=count, val=1)


def config_of(folder: Path, root: Path, execution: Json) -> PipelineConfig:
    """A config of the demo's backbone on a corpus."""
    data = {"store": str(folder / "store"), "dataset": {"root": str(root)}, "execution": execution}
    return validate(data | {"features": FEATURES, "clusters": {"k": 11}, "head": {"method": "none"}})


# features -------------------------------------------------------------------------------------------------------------


def features(folder: Path, views: int = 32, rounds: int = 3) -> Json:
    """Seconds per view of the stage `features`, JPEG to store, in this process; of the floor, which is the matrix
    products and the attention of the executed blocks, alone; and of the backbone in fp32, image by image. How much
    faster two worker processes are than one, each with one thread, over 2."""
    device = pick_device("auto")
    dtype = compute_dtype(device, "auto")
    backbone = create_backbone(BACKBONE, "packaged", block=BLOCK).to(device)
    single = torch.rand(1, 3, *SIZE, device=device)
    roots = [corpus(folder, seed, views) for seed in range(1, rounds + 2)]
    corpora = iter(roots)

    def stage() -> None:
        run(config_of(folder, next(corpora), {"executor": "serial"}), until="features", progress=silent)

    def plain() -> None:
        with torch.inference_mode():
            backbone(single)

    found = turns(rounds, stage=stage, floor=products(BATCH, dtype, device), plain=plain)
    each, floor = found["stage"] / (views + 1), found["floor"] / BATCH
    return {
        "seconds_per_view": each,
        "floor_seconds_per_view": floor,
        "floor_ratio": floor / each,
        "precision": str(dtype).removeprefix("torch."),
        "fp32_one_by_one_seconds": found["plain"],
        "speedup": found["plain"] / each,
        "efficiency_of_2_workers": efficiency(embed, roots[:2], roots),
    }


def embed(root: Path) -> None:
    """The stage `features` of a corpus, JPEG to a store that is removed, in a worker process on one thread."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        run(config_of(Path(folder), root, {"executor": "serial"}), until="features", progress=silent)


def products(batch: int, dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """The four matrix products and the attention of every executed block, on random values of the right shapes."""
    patch, channels, _ = describe(BACKBONE)
    tokens = SIZE[0] // patch * (SIZE[1] // patch) + 1
    heads, hidden = channels // 64, 4 * channels

    def values(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, dtype=dtype, device=device)

    narrow, wide = values(batch * tokens, channels), values(batch * tokens, hidden)
    joined = values(batch, heads, tokens, 64)
    weights = [values(rows, columns) for rows, columns in ((3 * channels, channels), (channels, channels))]
    weights += [values(hidden, channels), values(channels, hidden)]

    def go() -> None:
        with torch.inference_mode():
            for _ in range(BLOCK + 1):
                F.linear(narrow, weights[0])
                F.scaled_dot_product_attention(joined, joined, joined)
                F.linear(narrow, weights[1])
                F.linear(narrow, weights[2])
                F.linear(wide, weights[3])

    return go


# neighbours, clusters -------------------------------------------------------------------------------------------------


def groups(n: int, channels: int, count: int) -> np.ndarray:
    """n unit vectors around `count` directions, float32."""
    generator = np.random.default_rng(0)
    directions = normalise(generator.normal(size=(count, channels)))
    noise = generator.normal(size=(n, channels)).astype(np.float32) / np.sqrt(channels)
    return normalise(directions[generator.integers(count, size=n)] + noise)


def neighbours(n: int = 20_000) -> Json:
    """Seven neighbours of n pooled features, all of them: exact, by IVF, and with torch's top-k; recall of IVF."""
    vectors = groups(n, 384, n // 50)
    images, tensor, facts = np.arange(n), torch.from_numpy(vectors), {}

    def search(exact_below: int) -> np.ndarray:
        index, facts[exact_below] = build_index(vectors, exact_below)
        return search_others(index, vectors, images, 7, 1)[0]

    def topk() -> None:
        for block in tensor.split(2000):
            (block @ tensor.T).topk(8)

    exact, close = search(n), search(0)
    recall = float(np.mean([len(set(a) & set(b)) / 7 for a, b in zip(exact, close, strict=True)]))
    found = turns(1, exact=lambda: search(n), ivf=lambda: search(0), torch=topk)
    return {"views": n, "recall": recall, "index": facts[0], **{f"{k}_seconds": v for k, v in found.items()}}


def clusters(n: int = 50_000) -> Json:
    """K = 27 clusters of n codes of 70 channels: this stage's k-means of 11 starts, and scikit-learn's of as many; the
    mean cosine to the nearest centre of each."""
    from sklearn.cluster import KMeans

    vectors, objective = groups(n, 70, 27), {}

    def ours() -> None:
        centres = cosine_kmeans(vectors, 27, restarts=10, iterations=30, seed=0)[0]
        objective["cosine"] = float((vectors @ centres.T).max(1).mean())

    def theirs() -> None:
        centres = normalise(KMeans(27, n_init=11, max_iter=30, random_state=0).fit(vectors).cluster_centers_)
        objective["sklearn"] = float((vectors @ centres.T).max(1).mean())

    found = turns(1, cosine=ours, sklearn=theirs)
    return {name: {"seconds": seconds, "mean_cosine": objective[name]} for name, seconds in found.items()}


# masks ----------------------------------------------------------------------------------------------------------------


def crf(folder: Path, images: int = 4, k: int = 27) -> Json:
    """Seconds per image on one core of the CRF as `masks` calls it, and of a plain pydensecrf on all K classes with the
    same pictures; the share of equal pixels; and how much faster two worker processes are than one, over 2."""
    from PIL import Image

    paths = sorted((corpus(folder, 1, 32) / "images/train").glob("*.jpg"))[:images]
    pictures = [np.array(Image.open(path)) for path in paths]
    generator, tasks = torch.Generator().manual_seed(0), []
    for picture in pictures:
        coarse = torch.randn(1, k, 20, 24, generator=generator)
        logits = F.interpolate(coarse, picture.shape[:2], mode="bilinear")[0]
        tasks.append((picture, torch.log_softmax(2 * logits, 0).numpy()))

    same = [np.mean(dense_crf(*task) == plain_crf(*task)) for task in tasks]
    found = turns(1, ours=lambda: [dense_crf(*t) for t in tasks], plain=lambda: [plain_crf(*t) for t in tasks])
    return {
        "seconds_per_image": found["ours"] / images,
        "speedup_per_core": found["plain"] / found["ours"],
        "same_pixels": float(np.mean(same)),
        "efficiency_of_2_workers": efficiency(refine, list(enumerate(tasks)), list(enumerate(tasks * 2))),
    }


def refine(task: tuple[int, tuple[np.ndarray, np.ndarray]]) -> None:
    """One picture, in a worker process."""
    dense_crf(*task[1])


def plain_crf(image: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """As in pydensecrf's own examples, with STEGO's values."""
    import pydensecrf.densecrf as dcrf

    model = dcrf.DenseCRF2D(image.shape[1], image.shape[0], len(log_probs))
    model.setUnaryEnergy(np.ascontiguousarray(-log_probs.reshape(len(log_probs), -1)))
    model.addPairwiseGaussian(sxy=1, compat=3)
    model.addPairwiseBilateral(sxy=67, srgb=3, rgbim=np.ascontiguousarray(image), compat=4)
    return np.argmax(model.inference(10), 0).reshape(image.shape[:2])
