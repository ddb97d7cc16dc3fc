"""What computed something: recorded with runs and artifacts, never hashed."""

import json
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.metadata import version as installed
from pathlib import Path

PACKAGES = (
    *("stegoflow", "torch", "timm", "numpy", "scikit-learn", "zarr", "pyarrow", "obstore"),
    *("faiss-cpu", "faiss-gpu", "pydensecrf2"),
)
"""Those whose version may show in values or files; of faiss one of the two is installed."""
COMMIT = "STEGOFLOW_COMMIT"
"""The environment variable by which an image says of which commit it was built."""
SOURCE = Path(__file__).parents[2]
DRIVER = Path("/proc/driver/nvidia/gpus")


def environment() -> dict[str, str]:
    """Versions of what is installed, the commit, host, cores and GPUs of this process."""
    facts = {**_versions(), "commit": commit(), "host": platform.node(), "gpu": _gpus()}
    known = {name: value for name, value in facts.items() if value}
    return {**known, "python": platform.python_version(), "machine": platform.machine(), "cores": str(os.cpu_count())}


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {name: version for name in PACKAGES if (version := _version(name))}


def _version(package: str) -> str:
    try:
        return installed(package)
    except PackageNotFoundError:
        return ""


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of the program: of its image, of the checkout that it runs from ("-dirty" behind it where files are
    changed), or of the one that pip installed; empty where none of them says."""
    if named := os.environ.get(COMMIT):
        return named
    if (SOURCE / ".git").exists():
        command = ["git", "-C", str(SOURCE), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):  # without git
            return ""
    return _installed_commit()


def _installed_commit() -> str:
    try:
        origin = json.loads(distribution("stegoflow").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return ""
    return str(origin.get("vcs_info", {}).get("commit_id", ""))


def _gpus() -> str:
    """Names of the GPUs: of torch where it is loaded (it may see fewer), else of NVIDIA's driver."""
    torch = sys.modules.get("torch")
    if torch is not None:
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    else:
        files = sorted(DRIVER.glob("*/information"))
        lines = [line for file in files for line in file.read_text().splitlines()]
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return ", ".join(names)
