"""stegoflow: unsupervised semantic segmentation from a cache of frozen ViT features."""

import os
from typing import TYPE_CHECKING, Any

# GNU OpenMP's threads spin for milliseconds while they wait, which ruins small operations on a busy machine: a training
# step took 517 ms instead of 45 beside one other process, and 156 with this shorter spin (2 cores; 50 when alone). Read
# when torch is first imported; what the user set is kept.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if TYPE_CHECKING:
    from pipeline.api import open_features, open_run, run
    from pipeline.artifacts.feature_table import Features
    from pipeline.config import PipelineConfig, load, validate
    from pipeline.core.engine import silent
    from pipeline.exporting import export
    from pipeline.planning import plan
    from pipeline.results import Run
    from pipeline.segmenting import segment

_HOME = {
    "Features": "pipeline.artifacts.feature_table",
    "PipelineConfig": "pipeline.config",
    "Run": "pipeline.results",
    "export": "pipeline.exporting",
    "load": "pipeline.config",
    "open_features": "pipeline.api",
    "open_run": "pipeline.api",
    "plan": "pipeline.planning",
    "run": "pipeline.api",
    "segment": "pipeline.segmenting",
    "silent": "pipeline.core.engine",
    "validate": "pipeline.config",
}

__all__ = [
    "Features",
    "PipelineConfig",
    "Run",
    "export",
    "load",
    "open_features",
    "open_run",
    "plan",
    "run",
    "segment",
    "silent",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Load on first use: `stegoflow --help` must not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    from importlib import import_module  # noqa: TID251 (the names of _HOME alone)

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
