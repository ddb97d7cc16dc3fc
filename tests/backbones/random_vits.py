"""Random timm ViTs, their checkpoints, and what timm itself makes of an image."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from pipeline.backbones import vit as backbones

TINY = "test_vit"  # timm's own: patch 16, 64 channels, 6 blocks, 2 heads
DINOV2 = "vit_small_patch14_dinov2.lvd142m"
REGISTERS = "vit_small_patch14_reg4_dinov2.lvd142m"
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"


def shallow_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three blocks instead of twelve wherever a backbone is made: the same code on a quarter of the numbers."""
    make = backbones._make
    backbones._on_meta.cache_clear()
    monkeypatch.setattr(backbones, "_make", lambda name, **options: make(name, depth=3, **options))


def random_vit(name: str, **options):
    torch.manual_seed(0)
    vit = backbones._make(name, **options).eval()
    with torch.no_grad():
        for value in vit.parameters():  # some start at zero or one, which would hide a wrong name
            value.add_(torch.randn_like(value) * 0.02)
    return vit


def save(path: Path, content) -> str:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return str(path)


def normalised(images, vit):
    mean, std = (torch.tensor(vit.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (images - mean) / std


def last_tokens(vit, images):
    """Patch tokens behind the final norm by timm's own `forward_features`: (B, N, C)."""
    return vit.forward_features(normalised(images, vit))[:, vit.num_prefix_tokens :]
