"""What a training step costs beside its own matrix products: alone, and beside a process that is always busy."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import timm
import torch
from quality_results import Json  # beside this file
from speed_stages import turns

from pipeline.backbones.devices import compute_dtype, keep_freed_memory, pick_device
from pipeline.heads.interface import Batch
from pipeline.heads.settings import CorrespondenceParams, StegoflowParams, StegoParams
from pipeline.heads.stego import Stego
from pipeline.heads.stegoflow import Stegoflow

VIEWS, GRID, CHANNELS = 200, (26, 34), 384
"""Of the table of tokens that steps draw from."""


def head(rounds: int = 30) -> Json:
    """Of a step of `stego` (batch 32, 121 positions) and of the default (64 positions), 384 to 70 channels, on a table
    of tokens in memory: its milliseconds, those of its matrix products alone, and their ratio; the ratio in seconds of
    processor, which other programs disturb less; and that of the two beside one process that is always busy. Seconds
    per anchor of STEGO's own loop, which is the backbone (ViT-S/8, 224 px, fp32) on two images for every anchor: its
    time on the images alone, so a lower bound."""
    keep_freed_memory()
    found: Json = {}
    for name, method in {
        "": Stego(StegoParams(), CHANNELS),
        "default_": Stegoflow(StegoflowParams(), CHANNELS),
    }.items():
        step, floor = stepping(method), products(method.params)
        wall = turns(rounds, step=step, floor=floor)
        cpu = turns(rounds, clock="process_time", step=step, floor=floor)
        with busy():
            beside = turns(rounds, step=step, floor=floor)
        found |= {
            f"{name}ms_per_step": 1000 * wall["step"],
            f"{name}floor_ms": 1000 * wall["floor"],
            f"{name}floor_ratio": wall["floor"] / wall["step"],
            f"{name}floor_ratio_cpu": cpu["floor"] / cpu["step"],
            f"{name}ms_per_step_beside_one": 1000 * beside["step"],
            f"{name}floor_ratio_beside_one": beside["floor"] / beside["step"],
        }
    original = timm.create_model("vit_small_patch8_224", pretrained=False, num_classes=0).to(pick_device("auto")).eval()
    images = torch.rand(2, 3, 224, 224, device=pick_device("auto"))

    def loop() -> None:
        with torch.inference_mode():
            original.forward_features(images)

    anchor, batch = turns(2, loop=loop)["loop"], StegoParams().batch
    each = found["ms_per_step"] / 1000 / batch
    return {**found, "stego_loop_seconds_per_anchor": anchor, "per_anchor_vs_stego_loop": anchor / each}


def stepping(method: Stego) -> Callable[[], None]:
    """A training step of a method, on random tokens."""
    device, params = pick_device("auto"), method.params
    dtype = compute_dtype(device, "auto")
    method = method.to(device)
    optimiser = torch.optim.Adam(method.parameters(), params.learning_rate, fused=True)
    kept = torch.bfloat16 if dtype == torch.bfloat16 else torch.float16
    table = torch.randn(VIEWS * GRID[0] * GRID[1], CHANNELS, device=device).to(kept)
    generator, count = torch.Generator().manual_seed(0), iter(range(10**6))

    def step() -> None:
        rows = torch.randperm(VIEWS, generator=generator)
        batch = Batch(table, GRID, rows[: params.batch], rows[-params.batch :], next(count), 10**6)
        loss, _ = method.loss(batch, dtype, False)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def products(params: CorrespondenceParams) -> Callable[[], None]:
    """The matrix products of a step, on random values of the right shapes."""
    device = pick_device("auto")
    dtype = compute_dtype(device, "auto")
    sizes = [(CHANNELS, params.code), (CHANNELS, CHANNELS), (CHANNELS, params.code)]
    n = params.samples**2
    sampled = torch.randn(3 * params.batch * n, CHANNELS, device=device).to(dtype)
    weights = [torch.randn(a, b, device=device).to(dtype) for a, b in sizes]
    pairs = (2 + params.negatives) * params.batch
    tokens = torch.randn(pairs, n, CHANNELS, device=device).to(dtype)
    codes = torch.randn(pairs, n, params.code, device=device).to(dtype)
    square = torch.randn(pairs, n, n, device=device).to(dtype)

    def floor() -> None:
        for weight in weights:  # forward, and the gradients of weights; of the inner layer's output too
            out = sampled @ weight
            sampled.T @ out
        out[:, : params.code] @ weights[2].T
        torch.bmm(tokens, tokens.transpose(1, 2))  # F; then Z, and its two gradients
        torch.bmm(codes, codes.transpose(1, 2))
        torch.bmm(square, codes)
        torch.bmm(square, codes)

    return floor


@contextmanager
def busy() -> Iterator[None]:
    """With one other process that computes without a pause."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()
