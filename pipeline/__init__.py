"""stegoflow: unsupervised semantic segmentation from a cache of frozen ViT features."""

import os
from typing import TYPE_CHECKING, Any

# OpenMP threads that spin while they wait cost a factor of six and more per training step on a busy machine (2 cores,
# load 3: 97 ms against 590 and 970). Read when torch is first imported; a value that the user set is kept.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig, load, validate
    from pipeline.open import Features, open_features
    from pipeline.run import plan, run

__all__ = ["Features", "PipelineConfig", "load", "open_features", "plan", "run", "validate"]

_HOME = {
    "PipelineConfig": "pipeline.config",
    "load": "pipeline.config",
    "validate": "pipeline.config",
    "plan": "pipeline.run",
    "run": "pipeline.run",
    "open_features": "pipeline.open",
    "Features": "pipeline.open",
}


def __getattr__(name: str) -> Any:
    """Load on first use: `stegoflow --help` must not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
