"""Weight files: the layouts that are read, those that must be refused, and the hub with and without a network."""

import argparse
import os
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from random_vits import DINOV2, DINOV3, REGISTERS, TINY, last_tokens, normalised, random_vit, save, shallow_models

from pipeline.backbones import vit as backbones
from pipeline.backbones import weights
from pipeline.backbones.vit import create_backbone
from pipeline.backbones.weights import find_weights
from pipeline.core.errors import ConfigError, render


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    vit = random_vit(TINY)
    return vit, save(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", vit.state_dict())


@pytest.fixture
def shallow(monkeypatch):
    shallow_models(monkeypatch)
    yield
    backbones._on_meta.cache_clear()


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def empty_hub(monkeypatch, tmp_path):
    """No cached file, and an endpoint that refuses connections: the real client, without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "hub"


# ------------------------------------------------------------------ layouts of checkpoints


@torch.no_grad()
def test_official_dino_layout(tiny, tmp_path):
    vit, _ = tiny
    images = torch.rand(1, 3, 64, 64)
    wanted = last_tokens(vit, images)
    bare = vit.state_dict()
    wrong = {name: torch.zeros_like(value) for name, value in bare.items()}
    head = {"module.head.mlp.0.weight": torch.ones(8, 64), "module.head.last_layer.weight_g": torch.ones(8, 1)}
    full = {
        "student": {f"module.backbone.{k}": v for k, v in wrong.items()} | head,
        "teacher": {f"module.backbone.{k}": v for k, v in bare.items()} | head,
        "optimizer": {"state": {}, "param_groups": []},
        "args": argparse.Namespace(arch="vit_small", lr=0.1),
        "epoch": 100,
    }
    classifier = {"state_dict": {f"module.{k}": v for k, v in bare.items()} | {"module.head.weight": torch.ones(2, 64)}}
    flat = {f"teacher.backbone.{k}": v for k, v in bare.items()} | {
        f"student.backbone.{k}": v for k, v in wrong.items()
    }
    flat |= {"teacher.dino_head.mlp.0.weight": torch.ones(2), "teacher.ibot_head.mlp.0.weight": torch.ones(2)}
    for name, content in (("bare.pth", bare), ("full.pth", full), ("head.bin", classifier), ("v2.pt", {"model": flat})):
        backbone = create_backbone(TINY, save(tmp_path / name, content))
        torch.testing.assert_close(backbone(images).flatten(1, 2), wanted)


@torch.no_grad()
def test_official_dinov2_layout_chunked(shallow, tmp_path):
    dinov2 = random_vit(DINOV2)
    state = {}
    for name, value in dinov2.state_dict().items():
        parts = name.split(".")
        state[".".join([parts[0], str(int(parts[1]) // 2), *parts[1:]]) if parts[0] == "blocks" else name] = value
    state["mask_token"] = torch.zeros(1, 384)
    backbone = create_backbone(DINOV2, save(tmp_path / "dinov2.pth", {"teacher": state}))
    images = torch.rand(1, 3, 42, 70)
    torch.testing.assert_close(backbone(images).flatten(1, 2), last_tokens(dinov2, images))
    assert backbone.vit.patch_embed.grid_size == (37, 37)
    torch.testing.assert_close(backbone.vit.pos_embed, dinov2.pos_embed, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("mask", [True, False])
def test_official_dinov2_layout_with_registers(shallow, tmp_path, mask):
    vit = random_vit(REGISTERS)
    state = vit.state_dict()
    state["register_tokens"] = state.pop("reg_token")
    shift = torch.randn(1, 1, 384)  # officially the class token has a position; timm adds it to the token
    state["pos_embed"] = torch.cat([shift, state["pos_embed"]], 1)
    state["cls_token"] = state["cls_token"] - shift
    if mask:
        state["mask_token"] = torch.zeros(1, 384)
    backbone = create_backbone(REGISTERS, save(tmp_path / "reg.pth", state))
    images = torch.rand(1, 3, 42, 70)
    assert backbone.vit.num_prefix_tokens == 5
    torch.testing.assert_close(backbone(images).flatten(1, 2), last_tokens(vit, images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_official_dinov3_layout(shallow, tmp_path, capsys):
    vit = random_vit(DINOV3)
    renamed = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma", "reg_token": "storage_tokens"}
    state = {}
    for name, value in vit.state_dict().items():
        for ours, theirs in renamed.items():
            name = name.replace(ours, theirs)
        state[name] = value
    state |= {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}
    for i in range(3):  # the published small, base and large models hold zero biases
        state[f"blocks.{i}.attn.qkv.bias"] = torch.zeros(3 * 384)
        state[f"blocks.{i}.attn.qkv.bias_mask"] = torch.ones(3 * 384)
    backbone = create_backbone(DINOV3, save(tmp_path / "v3.pth", state), block=1)
    images = torch.rand(1, 3, 48, 80)
    wanted = vit.forward_intermediates(normalised(images, vit), indices=[1], intermediates_only=True)[0]
    torch.testing.assert_close(backbone(images), wanted.permute(0, 2, 3, 1))
    assert capsys.readouterr().out == ""
    state["blocks.2.attn.qkv.bias"][5] = 1.0
    with pytest.raises(ConfigError, match="_qkvb"):
        create_backbone(DINOV3, save(tmp_path / "biased.pth", state))


@torch.no_grad()
def test_the_checkpoints_own_grid_is_kept(tmp_path):
    vit = random_vit(TINY, img_size=320)  # 20×20 positions where the name says 10×10
    backbone = create_backbone(TINY, save(tmp_path / "large.pt", vit.state_dict()))
    assert backbone.vit.patch_embed.grid_size == (20, 20)
    images = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(backbone(images).flatten(1, 2), last_tokens(vit, images))


# ------------------------------------------------------------------ files that must be refused


class Boom:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    path = save(tmp_path / "evil.pth", {"teacher": {"cls_token": torch.ones(1)}, "boom": Boom(tmp_path / "ran")})
    with pytest.raises(ConfigError, match="cannot be read as plain tensors"):
        create_backbone(TINY, path)
    assert not (tmp_path / "ran").exists()


def test_unreadable_files(tmp_path):
    for name in ("junk.pth", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1")
        with pytest.raises(ConfigError, match="cannot be read"):
            create_backbone(TINY, str(tmp_path / name))
    with pytest.raises(ConfigError, match="no state dict"):
        create_backbone(TINY, save(tmp_path / "numbers.pth", {"epoch": 3}))
    with pytest.raises(ConfigError, match="no such file"):
        find_weights(TINY, str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match=r"not one of \.safetensors"):
        find_weights(TINY, str(tmp_path))


def test_impossible_pairs_name_the_first_difference(tiny, tmp_path):
    vit, path = tiny
    dinov2 = random_vit(DINOV2, depth=1)
    with pytest.raises(
        ConfigError, match=r"patch_embed.proj.weight: \(64, 3, 16, 16\) in the file, \(192, 3, 16, 16\)"
    ):
        create_backbone("vit_tiny_patch16_224", path)  # width
    with pytest.raises(ConfigError, match=r"\(384, 3, 14, 14\) in the file, \(384, 3, 16, 16\) in the model"):
        create_backbone("vit_small_patch16_224.dino", save(tmp_path / "patch.safetensors", dinov2.state_dict()))
    deep = vit.state_dict()
    deep |= {k.replace("blocks.5.", "blocks.6."): v.clone() for k, v in deep.items() if k.startswith("blocks.5.")}
    short = {k: v for k, v in vit.state_dict().items() if not k.startswith("blocks.5.")}
    with pytest.raises(ConfigError, match=r"blocks\.6\.[a-z0-9.]+: \(64,\) in the file, absent in the model"):
        create_backbone(TINY, save(tmp_path / "deep.safetensors", deep))
    with pytest.raises(ConfigError, match=r"blocks.5.norm1.weight: absent in the file, \(64,\) in the model"):
        create_backbone(TINY, save(tmp_path / "short.safetensors", short))
    with pytest.raises(ConfigError, match=r"reg_token: absent in the file, \(1, 4, 384\) in the model"):
        create_backbone(REGISTERS, str(tmp_path / "patch.safetensors"))
    with pytest.raises(ConfigError, match=r"absent in the file"):
        create_backbone(DINOV3, save(tmp_path / "else.pth", {"something.weight": torch.ones(3)}))


# ------------------------------------------------------------------ the hub


def test_an_unreachable_hub_fails_within_seconds(empty_hub):
    started = time.monotonic()
    packaged = "--set features.weights=packaged --set features.block=8"
    other = f"--set features.backbone=vit_small_patch14_dinov2 {packaged}"
    for name, way in ((DINOV3, other), (DINOV2, packaged)):
        with pytest.raises(ConfigError, match=f"cannot be had from the hub's timm/{name}") as raised:
            find_weights(name, "hub")
        said = render(raised.value.next)
        assert said.startswith(way)
        assert f"hf download timm/{name} model.safetensors" in said
    assert time.monotonic() - started < 5


def test_a_name_server_that_blocks_is_given_up(empty_hub, monkeypatch):
    monkeypatch.setattr(weights, "HUB_SECONDS", 0.2)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: time.sleep(3))
    started = time.monotonic()
    with pytest.raises(ConfigError, match="no answer within"):
        find_weights(TINY, "hub")
    assert time.monotonic() - started < 2


@torch.no_grad()
def test_a_cached_file_works_offline(empty_hub, tiny):
    vit, path = tiny
    repo = empty_hub / "models--timm--test_vit.r160_in1k"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    (repo / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (repo / "snapshots" / ("0" * 40) / "model.safetensors").write_bytes(Path(path).read_bytes())
    images = torch.rand(1, 3, 32, 48)
    for name in (TINY, "test_vit.r160_in1k"):  # the default tag, or given
        torch.testing.assert_close(create_backbone(name, "hub")(images).flatten(1, 2), last_tokens(vit, images))


def test_a_reachable_hub_is_asked_for_one_file_after_the_other(monkeypatch, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    asked = []

    def probe(url, timeout):
        if url.endswith("model.safetensors"):
            raise RemoteEntryNotFoundError("no such file", response=Response())

    def download(repo, name, *, local_files_only=False, revision=None):
        asked.append((name, local_files_only))
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        assert (repo, name) == ("timm/test_vit.r160_in1k", "pytorch_model.bin")
        return str(path)

    class Response:
        headers: dict[str, str] = {}  # noqa: RUF012
        request = None

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", probe)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert find_weights(TINY, "hub") == path
    assert asked[-1] == ("pytorch_model.bin", False)
    assert [name for name, local in asked if not local] == ["pytorch_model.bin"]


def test_a_model_without_a_hub_entry():
    with pytest.raises(ConfigError, match="no hub entry"):
        find_weights("vit_small_patch16_18x2_224", "hub")
