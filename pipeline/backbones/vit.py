"""Frozen vision transformers: any plain ViT of timm, its weights from the hub, from a file or from a package.

Sources: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021); Caron et al., "Emerging Properties in
Self-Supervised Vision Transformers" (DINO, 2021); Oquab et al., "DINOv2" (2023); Darcet et al., "Vision Transformers
Need Registers" (2024); Siméoni et al., "DINOv3" (2025). Models and checkpoint conversion are timm's (Wightman,
https://github.com/huggingface/pytorch-image-models). The facet `key` is STEGO's and Amir et al.'s ("Deep ViT Features
as Dense Visual Descriptors", 2021).
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.layers import AttentionRope, PatchEmbed
from timm.models import eva, get_deprecated_models, vision_transformer
from torch import Tensor, nn

from pipeline.backbones.facts import Shape
from pipeline.backbones.packaged import read_packaged
from pipeline.backbones.weights import find_weights, read_checkpoint
from pipeline.core.errors import ConfigError

_HEADS = re.compile(  # of classifiers, projections and masked training: nothing that a token passes through
    r"^(head|head_dist|dino\w*|ibot\w*|fc_norm|attn_pool|projectors)\.|^(mask_token|masked_embed)$"
)


def shape_of(backbone: str) -> Shape:
    """What `pipeline.backbones.facts.describe` remembers. ConfigError as there."""
    vit = _on_meta(backbone)
    return Shape(vit.patch_embed.patch_size[0], vit.embed_dim, len(vit.blocks))


def pretrained(backbone: str) -> dict[str, Any]:
    """timm's `pretrained_cfg` of a ViT: where its weights are to be had. ConfigError as `shape_of`."""
    found: dict[str, Any] = _on_meta(backbone).pretrained_cfg
    return found


def resolve_block(backbone: str, block: int | None) -> int:
    """0-based index of `block`: None is the last one, negatives count from the end. ConfigError when out of range."""
    blocks = shape_of(backbone).blocks
    if block is None:
        return blocks - 1
    if not -blocks <= block < blocks:
        raise ConfigError(
            f"block {block} is out of range: {backbone} has {blocks} blocks",
            next=f"block: 0 to {blocks - 1}, or -1 for the last",
        )
    return block % blocks


def create_backbone(
    backbone: str,
    weights: str,
    *,
    block: int | None = None,
    facet: Literal["token", "key"] = "token",
    norm: Literal["auto", "always", "never"] = "auto",
) -> Backbone:
    """Frozen backbone with its weights, on the CPU in float32.

    Args:
        backbone: timm name. The tag also chooses the pixel normalisation, so give it (`vit_small_patch16_224.dino`)
            even when the weights are a local file.
        weights: see `find_weights`.
        block: whose output is taken; None is the last, negatives count from the end. Later blocks are not computed.
        facet: `token`, the block's output, or `key`, the keys of its attention: heads joined, before any norm or rope.
        norm: the model's final LayerNorm on the tokens: `auto` only when the last block is taken. Keys never get it.

    Raises:
        ConfigError: unknown or unfit backbone, block, facet or weights.
    """
    taken = resolve_block(backbone, block)
    path = find_weights(backbone, weights)
    state = read_packaged(path) if path.suffix == ".onnx" else read_checkpoint(path)
    vit = _load(backbone, state, path)
    return Backbone(vit, block=taken, facet=facet, norm=norm)


class Backbone(nn.Module):
    """A frozen ViT up to one of its blocks: images to the grid of patch tokens.

    Attributes:
        patch: side of a patch in pixels. channels: of a token. block: 0-based. blocks: of the whole model.
        mean, std: of the pixel normalisation, RGB.
    """

    def __init__(
        self,
        vit: Any,
        *,
        block: int,
        facet: Literal["token", "key"] = "token",
        norm: Literal["auto", "always", "never"] = "auto",
    ) -> None:
        super().__init__()
        self.block, self.blocks = block, len(vit.blocks)
        self.patch: int = vit.patch_embed.patch_size[0]
        self.channels: int = vit.embed_dim
        self.mean: tuple[float, ...] = tuple(vit.pretrained_cfg["mean"])
        self.std: tuple[float, ...] = tuple(vit.pretrained_cfg["std"])
        self.norm: nn.Module = nn.Identity()
        if facet == "key":
            vit.blocks[block] = keys = _Keys(vit.blocks[block])
            self.channels = keys.linear.out_features
        elif norm == "always" or (norm == "auto" and block == self.blocks - 1):
            self.norm = vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm  # models made for mean pooling
        vit.prune_intermediate_layers(indices=[block], prune_norm=True, prune_head=True)
        self.vit = vit
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", torch.tensor(self.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode whatever a surrounding module asks for."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Patch tokens; class and register tokens are dropped.

        Args:
            images: (B, 3, H, W), float, RGB in 0..1, not normalised; H and W multiples of `patch`, of any size:
                position embeddings are interpolated (bicubic, antialiased: timm's).

        Returns:
            (B, H/patch, W/patch, channels), of the weights' dtype. Under autocast tokens stay float32, as the residual
            stream does; keys are of autocast's dtype.
        """
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ConfigError(
                f"images of {height}×{width} are not whole patches of {self.patch} pixels",
                next=f"give a size whose sides are multiples of {self.patch}",
            )
        pixels = (images - self._mean) / self._std
        pixels = pixels.to(self.vit.patch_embed.proj.weight.dtype)
        (tokens,) = self.vit.forward_intermediates(pixels, indices=1, output_fmt="NLC", intermediates_only=True)
        return self.norm(tokens).unflatten(1, (height // self.patch, width // self.patch))


class _Keys(nn.Module):
    """Stands in for a block and gives the keys of its attention: (B, tokens, heads · head channels)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention: Any = getattr(block, "attn", None)
        qkv = getattr(attention, "qkv", None)
        plain = isinstance(block, vision_transformer.Block | eva.EvaBlock) and isinstance(
            attention, vision_transformer.Attention | eva.EvaAttention | AttentionRope
        )
        if not plain or qkv is None or qkv.out_features != 3 * attention.num_heads * attention.head_dim:
            raise ConfigError(
                "facet: key needs an attention with one joint qkv layer; this backbone has none", next="facet: token"
            )
        width = qkv.out_features // 3
        bias = getattr(attention, "k_bias", None) if qkv.bias is None else qkv.bias[width : 2 * width]
        self.norm1 = block.norm1
        self.linear = nn.Linear(qkv.in_features, width, bias=bias is not None)
        with torch.no_grad():
            self.linear.weight.copy_(qkv.weight[width : 2 * width])
            if bias is not None:
                self.linear.bias.copy_(bias)

    def forward(self, tokens: Tensor, **_: Any) -> Tensor:
        return self.linear(self.norm1(tokens))


def _load(backbone: str, state: dict[str, Tensor], path: Path) -> Any:
    """timm model with `state` in it, made on the checkpoint's own grid so that positions are interpolated only once."""
    meta = _on_meta(backbone)

    def misfit(key: str, given: object, wanted: object) -> ConfigError:
        return ConfigError(
            f"{path} does not fit {backbone}: first difference at {key}: {given} in the file, {wanted} in the model",
            next="give the backbone that the checkpoint was made with, or weights: hub",
        )

    key = "patch_embed.proj.weight"  # timm's filter would resample another patch size silently
    wanted = meta.patch_embed.proj.weight.shape
    if key in state and state[key].ndim == 4 and state[key].shape != wanted:
        raise misfit(key, tuple(state[key].shape), tuple(wanted))
    if "storage_tokens" in state and isinstance(meta, eva.Eva) and meta.blocks[0].attn.q_bias is None:  # DINOv3
        for name in [name for name in state if name.endswith("attn.qkv.bias")]:  # timm's filter would drop and print
            if any(part.any() for part in state.pop(name).chunk(3)[::2]):
                raise misfit(name, "not zero", "absent (the model's `_qkvb` variant has it)")
    if "register_tokens" in state:
        state.setdefault("mask_token", torch.zeros(1))  # by which timm's filter knows DINOv2's layout
    vit = _make(backbone, **_own_grid(state, meta))
    with contextlib.suppress(Exception):  # shapes that timm's filter does not expect: named below
        state = sys.modules[timm.models.model_entrypoint(backbone).__module__].checkpoint_filter_fn(dict(state), vit)
    own = vit.state_dict()
    state = {name: value for name, value in state.items() if name in own or not _HEADS.match(name)}
    for name in [*own, *state]:
        given, wanted = (tuple(d[name].shape) if name in d else "absent" for d in (state, own))
        if given != wanted:
            raise misfit(name, given, wanted)
    vit.load_state_dict(state, strict=True)
    return vit


def _own_grid(state: dict[str, Tensor], meta: Any) -> dict[str, int]:
    """`img_size` of the checkpoint's square grid, or nothing where the model's own grid is it."""
    if "pos_embed" not in state or state["pos_embed"].ndim != 3 or meta.pos_embed is None:
        return {}
    tokens = state["pos_embed"].shape[1]
    counts = [tokens - prefix for prefix in (0, 1, meta.num_prefix_tokens)]
    if math.prod(meta.patch_embed.grid_size) in counts:
        return {}
    sides = [math.isqrt(count) for count in counts if count > 0 and math.isqrt(count) ** 2 == count]
    return {"img_size": sides[0] * meta.patch_embed.patch_size[0]} if sides else {}


@lru_cache(maxsize=8)
def _on_meta(backbone: str) -> Any:
    """The timm model without storage; shared, so never to be changed."""
    if not timm.is_model(backbone) or ":" in backbone:
        raise ConfigError(f"timm has no model {backbone}", next=_alike(backbone))
    renamed = get_deprecated_models().get(backbone.split(".")[0], "")
    if renamed != "":
        raise ConfigError(f"timm no longer calls a model {backbone}", next=f"backbone: {renamed or _alike(backbone)}")
    try:
        vit = _make(backbone, device="meta")
    except TypeError as error:  # it does not know dynamic_img_size
        raise _not_plain(backbone) from error
    except RuntimeError as error:  # unknown tag
        raise ConfigError(f"{backbone}: {error}", next=_alike(backbone)) from error
    plain = isinstance(vit, vision_transformer.VisionTransformer | eva.Eva) and type(vit.patch_embed) is PatchEmbed
    if not plain or len(set(vit.patch_embed.patch_size)) != 1:
        raise _not_plain(backbone)
    return vit


def _make(backbone: str, **options: Any) -> Any:
    return timm.create_model(backbone, pretrained=False, num_classes=0, dynamic_img_size=True, **options)


def _not_plain(backbone: str) -> ConfigError:
    return ConfigError(
        f"{backbone} is not a plain vision transformer (one grid of tokens through all blocks)",
        next="backbone: vit_small_patch8_224.dino, vit_small_patch14_dinov2.lvd142m or another vit_* of timm",
    )


def _alike(backbone: str) -> str:
    names = [*timm.list_models(), *timm.list_pretrained()]
    close = difflib.get_close_matches(backbone, names, n=4, cutoff=0.5)
    return f"backbone: {', '.join(close)}" if close else "backbone: a name from timm.list_models('vit*')"
