"""flows/stegoflow.sbatch and dask-jobqueue's own scripts, as docs/cluster.md has them, by a stand-in for SLURM."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from corpora import small

from pipeline.api import open_run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/cluster.md").read_text().partition("\n## SLURM\n")[2].partition("\n## ")[0]
OPTIONS, COMMANDS = (re.findall(f"```{kind}\n(.*?)```", PAGE, re.DOTALL)[0] for kind in ("yaml", "bash"))
SBATCH = r"""#!/bin/bash
# Runs a job at once, here: the options of the script are read as SLURM reads them, its output goes where they say.
set -eu
while [[ $1 == --* ]]; do echo "$1" >> "$JOBS/given"; shift; done
script=$1; shift
id=$(date +%s%N); name=$(sed -n 's/^#SBATCH \(--job-name=\|-J \)//p' "$script")
out=$(sed -n 's/^#SBATCH \(--output=\|-o \)//p' "$script"); out=${out//%x/$name}; out=${out//%j/$id}
cp "$script" "$JOBS/$id.sh"
setsid bash "$JOBS/$id.sh" "$@" > "$out" 2>&1 < /dev/null &
echo $! > "$JOBS/$id.pid"
echo "Submitted batch job $id"
"""
SCANCEL = """#!/bin/bash
echo "$1" >> "$JOBS/cancelled"
kill -- -"$(cat "$JOBS/$1.pid")" || true
"""


@pytest.fixture
def folder(tmp_path: Path, corpus: Path, vit: Path):
    """A folder as a user of a cluster has it: my.yaml, flows/, an environment, and SLURM's two programs."""
    options = yaml.safe_load(OPTIONS)
    options["execution"]["dask_options"] |= {"n_workers": 1, "interface": "lo", "memory": "2GB"}
    data = small(corpus, tmp_path / "store", vit)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(data | {"execution": data["execution"] | options["execution"]}))
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / "bin").mkdir()
    (tmp_path / "jobs").mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    yield tmp_path
    for path in (tmp_path / "jobs").glob("*.pid"):
        if psutil.pid_exists(int(path.read_text())):
            psutil.Process(int(path.read_text())).kill()


@pytest.mark.skipif(shutil.which("setsid") is None, reason="the stand-in needs util-linux")
def test_a_run_and_its_workers_are_jobs(folder: Path):
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "JOBS": str(folder / "jobs"), "PYTHONPATH": str(ROOT)}
    command = ["bash", "-euc", COMMANDS.replace("k=20", "k=4")]
    said = subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout
    job = re.fullmatch(r"Submitted batch job (\d+)\n", said)[1]  # type: ignore[index]
    head = psutil.Process(int((folder / "jobs" / f"{job}.pid").read_text()))
    log = folder / "logs" / f"stegoflow-{job}.log"
    psutil.wait_procs([head], timeout=200)
    deadline = time.monotonic() + 10
    while not (folder / "jobs/cancelled").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert open_run(str(folder / "store")).has("report"), log.read_text()
    worker = next(path for path in (folder / "jobs").glob("*.sh") if path.stem != job)
    script = worker.read_text()
    for line in ("-p gpu", "-A ACCOUNT", "--cpus-per-task=8", "-t 04:00:00", "--gres=gpu:1"):
        assert f"#SBATCH {line}" in script
    assert (folder / "jobs/cancelled").read_text().split() == [worker.stem], "its workers end with a run"
    assert (folder / "jobs/given").read_text().split() == ["--account=ACCOUNT", "--partition=gpu"]
