"""Backbones with random weights: names, blocks, facets, norms, sizes, number formats."""

import pytest
import torch
from random_vits import DINOV3, REGISTERS, TINY, last_tokens, normalised, random_vit, save, shallow_models
from timm.models import vision_transformer
from torch.nn.functional import layer_norm

from pipeline.backbones import vit as backbones
from pipeline.backbones.facts import describe
from pipeline.backbones.vit import Backbone, create_backbone, resolve_block
from pipeline.core.errors import ConfigError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    vit = random_vit(TINY)
    return vit, save(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", vit.state_dict())


@pytest.fixture
def shallow(monkeypatch):
    shallow_models(monkeypatch)
    yield
    backbones._on_meta.cache_clear()


# ------------------------------------------------------------------ what a name says


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vit_small_patch8_224.dino", (8, 384, 12)),
        ("vit_small_patch16_224.dino", (16, 384, 12)),
        ("vit_base_patch8_224.dino", (8, 768, 12)),
        ("vit_base_patch16_224.dino", (16, 768, 12)),
        ("vit_small_patch14_dinov2", (14, 384, 12)),
        (REGISTERS, (14, 384, 12)),
        (DINOV3, (16, 384, 12)),
        ("vit_7b_patch16_dinov3", (16, 4096, 40)),
    ],
)
def test_describe_needs_no_weights(name, shape):
    assert describe(name) == shape


def test_unknown_names_come_with_close_matches():
    with pytest.raises(ConfigError, match=r"no model vit_smal_patch8_224\.dino") as raised:
        describe("vit_smal_patch8_224.dino")
    assert "vit_small_patch8_224.dino" in raised.value.next
    with pytest.raises(ConfigError, match="Invalid pretrained tag") as raised:
        describe("vit_small_patch8_224.dinoo")
    assert "vit_small_patch8_224.dino" in raised.value.next
    with pytest.raises(ConfigError, match="no longer") as raised:
        describe("vit_small_patch8_224_dino")
    assert raised.value.next == "backbone: vit_small_patch8_224.dino"
    for name in ("", "hf-hub:someone/something", "local-dir:/tmp"):
        with pytest.raises(ConfigError, match="timm has no model"):
            describe(name)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_base_r50_s16_224", "cait_xxs24_224"])
def test_models_that_are_no_plain_vit_are_refused(name):
    with pytest.raises(ConfigError, match="not a plain vision transformer"):
        describe(name)


def test_block_numbers():
    assert [resolve_block(TINY, block) for block in (None, 0, 5, -1, -6)] == [5, 0, 5, 5, 0]
    for block in (6, -7):
        with pytest.raises(ConfigError, match="has 6 blocks"):
            resolve_block(TINY, block)


# ------------------------------------------------------------------ what a backbone gives


@torch.no_grad()
def test_last_block_is_timms_forward_features_on_any_grid(tiny):
    vit, path = tiny
    backbone = create_backbone(TINY, path)
    assert (backbone.patch, backbone.channels, backbone.block, backbone.blocks) == (16, 64, 5, 6)
    for height, width in ((160, 160), (48, 112), (224, 80), (16, 16)):
        images = torch.rand(2, 3, height, width)
        tokens = backbone(images)
        assert tokens.shape == (2, height // 16, width // 16, 64)
        torch.testing.assert_close(tokens.flatten(1, 2), last_tokens(vit, images))
    with pytest.raises(ConfigError, match="whole patches"):
        backbone(torch.rand(1, 3, 160, 150))


@torch.no_grad()
@pytest.mark.parametrize(("block", "index"), [(0, 0), (3, 3), (-2, 4)])
def test_an_earlier_block_is_the_truncated_model(tiny, block, index):
    vit, path = tiny
    images = torch.rand(1, 3, 64, 96)
    tokens = vit._pos_embed(vit.patch_embed(normalised(images, vit)))
    for layer in vit.blocks[: index + 1]:
        tokens = layer(tokens)
    wanted = tokens[:, 1:].unflatten(1, (4, 6))
    backbone = create_backbone(TINY, path, block=block)
    assert (backbone.block, len(backbone.vit.blocks)) == (index, index + 1)  # later blocks are gone
    torch.testing.assert_close(backbone(images), wanted)
    torch.testing.assert_close(create_backbone(TINY, path, block=block, norm="never")(images), wanted)
    normed = layer_norm(wanted, (64,), vit.norm.weight, vit.norm.bias, vit.norm.eps)
    torch.testing.assert_close(create_backbone(TINY, path, block=block, norm="always")(images), normed)


@torch.no_grad()
def test_norm_never_on_the_last_block(tiny):
    vit, path = tiny
    images = torch.rand(1, 3, 32, 32)
    tokens = create_backbone(TINY, path, norm="never")(images)
    normed = layer_norm(tokens, (64,), vit.norm.weight, vit.norm.bias, vit.norm.eps)
    torch.testing.assert_close(create_backbone(TINY, path)(images), normed)


@torch.no_grad()
@pytest.mark.parametrize("name", [TINY, DINOV3, "vit_small_patch16_dinov3_qkvb"])
def test_keys_are_the_attentions_own(shallow, name, tmp_path):
    vit = random_vit(name)
    path = save(tmp_path / "vit.safetensors", vit.state_dict())
    images = torch.rand(1, 3, 48, 80)
    seen = {}
    attention = vit.blocks[2].attn
    handle = attention.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    vit.forward_features(normalised(images, vit))
    handle.remove()
    qkv = seen["x"] @ attention.qkv.weight.T
    if name == TINY:
        qkv = qkv + attention.qkv.bias
    elif attention.q_bias is not None:
        qkv = qkv + torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
    heads = qkv.unflatten(2, (3, attention.num_heads, -1))[:, :, 1]  # (B, N, heads, head channels)
    wanted = heads.flatten(2)[:, vit.num_prefix_tokens :].unflatten(1, (3, 5))
    backbone = create_backbone(name, path, block=2, facet="key", norm="always")
    assert backbone.channels == wanted.shape[-1]
    torch.testing.assert_close(backbone(images), wanted)


def test_keys_need_a_joint_qkv():
    separate = backbones._make("eva02_tiny_patch14_224", depth=1, qkv_fused=False)
    parallel = backbones._make(TINY, block_fn=vision_transformer.ParallelScalingBlock)
    for vit in (separate, parallel):
        with pytest.raises(ConfigError, match="joint qkv"):
            Backbone(vit, block=0, facet="key")


def test_frozen_and_never_training(tiny):
    backbone = create_backbone(TINY, tiny[1])
    torch.nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone(torch.rand(1, 3, 32, 32)).requires_grad


@torch.no_grad()
@pytest.mark.parametrize("facet", ["token", "key"])
def test_autocast_and_bfloat16_weights_stay_close(tiny, facet):
    backbone = create_backbone(TINY, tiny[1], facet=facet)
    images = torch.rand(2, 3, 64, 96)
    exact = backbone(images)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = backbone(images)
    assert mixed.dtype == (torch.float32 if facet == "token" else torch.bfloat16)
    low = backbone.to(torch.bfloat16)(images)
    for tokens in (mixed, low):
        assert (tokens.float() - exact).norm() < 0.03 * exact.norm()


@torch.no_grad()
def test_dinov3_with_its_rope(shallow, tmp_path):
    vit = random_vit(DINOV3)
    backbone = create_backbone(DINOV3, save(tmp_path / "v3.safetensors", vit.state_dict()))
    for height, width in ((64, 64), (48, 80)):
        images = torch.rand(1, 3, height, width)
        torch.testing.assert_close(backbone(images).flatten(1, 2), last_tokens(vit, images))


@torch.no_grad()
@pytest.mark.parametrize("name", [TINY, DINOV3])
@pytest.mark.parametrize("facet", ["token", "key"])
def test_nothing_is_left_on_the_cpu_when_moved(shallow, name, facet):
    backbone = Backbone(backbones._make(name), block=1, facet=facet).to("meta")  # refuses operands of two devices
    tokens = backbone(torch.empty(2, 3, 64, 96, device="meta"))
    assert tokens.device.type == "meta"
    assert tokens.shape == (2, 4, 6, backbone.channels)
