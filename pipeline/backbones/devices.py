"""Which device, which arithmetic: decided once, from what the hardware does fast."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.core.errors import Command, ConfigError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where torch sees it, else the CPU; other names as torch understands them."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"execution.device: {name} cannot be used: {error}", next=Command("doctor")) from error
    return device


def compute_dtype(device: torch.device, precision: str) -> torch.dtype:
    """The dtype of matrix products for `auto`, `fp32`, `bf16` or `fp16`."""
    import torch

    if precision == "auto":
        return torch.bfloat16 if _fast_bf16(device.type) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision for a block; no effect in fp32."""
    import torch

    dtype = compute_dtype(device, precision)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


@lru_cache
def _fast_bf16(kind: str) -> bool:
    import torch

    if kind == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if kind == "cpu":
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return False


def keep_freed_memory() -> None:
    """Ask glibc not to hand freed memory back to the kernel; no effect elsewhere.

    A training step allocates and frees the same few megabytes hundreds of times; giving them back each time costs a
    page fault per 4 KiB (measured on 2 cores: 57 ms a step with, 42 without).
    """
    import ctypes

    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)
