"""How a run is carried out: what a config's section `execution` may say."""

import os
from typing import Any, Literal

from pydantic import Field

from pipeline.core.params import Params


class Execution(Params):
    """How a run is carried out. None of these fields enters a fingerprint."""

    device: str = "auto"
    """`auto` (CUDA if torch sees it, else the CPU) or a torch device such as `cpu` or `cuda:1`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of backbone and head: `auto` is bf16 where the hardware multiplies it fast, else fp32."""
    batch_size: int = Field(8, ge=1)
    """Views per call of the backbone. 8 stay in the caches of a CPU (6 % faster than 16, measured in bf16)."""
    executor: Literal["serial", "processes", "dask"] = "processes"
    """Where parts run."""
    workers: int | None = Field(None, ge=1)
    """Worker processes; by default one per core."""
    dask_address: str | None = None
    """A running scheduler, such as `tcp://scheduler:8786`; without it a cluster is started for the run."""
    dask_cluster: str = "distributed.LocalCluster"
    """The class of cluster to start, such as `dask_jobqueue.SLURMCluster` or `dask_cuda.LocalCUDACluster`."""
    dask_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of that class."""
    wait_for_workers: float | None = Field(None, gt=0)
    """Seconds that a run waits for the first Dask worker; by default without end, since a job may queue for days. The
    log says each 30 seconds that it waits."""
    retries: int = Field(3, ge=0)
    """How often a part is tried again after an I/O error (1, 5, then 25 seconds later) or the loss of its worker."""

    def worker_count(self) -> int:
        """The number of worker processes that this run will use."""
        return max(1, self.workers or cores())


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
