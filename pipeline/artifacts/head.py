"""A trained head: from tokens to codes."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from pipeline.artifacts.features import BLOCK
from pipeline.backbones.devices import pick_device
from pipeline.core.artifact import Artifact
from pipeline.heads import network
from pipeline.heads.settings import HeadParams, MethodParams
from pipeline.numerics.codes import Codes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COLLAPSED = 1.5
"""Fewer effective groups: more than four fifths of the tokens lie in one direction (0.82² = 1 / 1.5)."""


def collapse(method: str) -> str:
    """What is wrong with codes of fewer than `COLLAPSED` effective groups, and what to do."""
    way = "raise head.shift_random, or choose" if method == "stego" else "choose another head.method, such as"
    return f"the codes are nearly all alike, clusters of them are noise; {way} head.method=stegoflow"


class TrainedHead:
    """A head artifact applied to raw tokens."""

    def __init__(self, artifact: Artifact, device: torch.device | None = None) -> None:
        import torch

        found = tensors(artifact, "head.safetensors")
        self.device = device or torch.device("cpu")
        self.center = found.pop("center").to(self.device)
        facts = artifact.read_facts("head.safetensors")
        params: MethodParams = TypeAdapter(HeadParams).validate_python(json.loads(facts["params"]))
        self.method = network(params)(params, len(self.center)).eval().to(self.device)
        self.method.load_state_dict(found)

    def __call__(self, tokens: np.ndarray) -> Codes:
        """Codes (view, row, column, ·) float32 of the raw tokens of whole views, (view, row, column, channel) of any
        float dtype; NaN for views that are NaN. A code may depend on all tokens of its view and on no other view."""
        if tokens.ndim != 4:
            raise ValueError(f"whole views are wanted, (view, row, column, channel), not {tokens.shape}")
        blocks = [self._encode(tokens[start : start + BLOCK]) for start in range(0, max(1, len(tokens)), BLOCK)]
        if len(blocks) == 1:
            return blocks[0]
        return Codes(*(None if parts[0] is None else np.concatenate(parts) for parts in zip(*blocks, strict=True)))

    def _encode(self, tokens: np.ndarray) -> Codes:
        import torch

        lost = ~np.isfinite(tokens[:, 0, 0, 0])
        with torch.inference_mode():
            values = torch.from_numpy(np.ascontiguousarray(tokens)).to(self.device).float()
            values = values - self.center
            if lost.any():  # an eigenvalue solver, say, would not take NaN
                values[torch.from_numpy(lost)] = 0
            codes = self.method.encode(values).each(lambda part: part.float().cpu().numpy())
        for part in codes:
            if part is not None:
                part[lost] = np.nan
        return codes

    def prototypes(self) -> np.ndarray | None:
        """(K, D) float32 unit vectors: the clusters that the method itself has found, where it does."""
        import torch

        with torch.inference_mode():
            found = self.method.prototypes()
            return None if found is None else found.float().cpu().numpy()


@lru_cache(maxsize=2)
def open_head(artifact: Artifact, device: str) -> TrainedHead:
    """The head of an artifact on `execution.device`, loaded once per process."""
    return TrainedHead(artifact, pick_device(device))


def tensors(artifact: Artifact, name: str) -> dict[str, Tensor]:
    import torch

    return {key: torch.from_numpy(value.copy()) for key, value in artifact.read_tensors(name).items()}
