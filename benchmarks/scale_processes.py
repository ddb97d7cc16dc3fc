"""What a stegoflow command takes, all of its processes together, read from /proc while it runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

POLL = 0.5
"""Seconds between two looks at the processes of a command."""


def command(words: list[str], until: Callable[[], bool] | None = None) -> dict[str, Any]:
    """{"seconds", "cpu", "memory" (MiB of the largest process), "processes"} of a stegoflow command. `until`: it is
    killed with SIGKILL, all of its processes, once that is true. CalledProcessError where it fails."""
    code = "from pipeline.cli.main import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *words], process_group=0, stdout=subprocess.DEVNULL, env=environment
    )
    peaks: dict[int, float] = {}
    cpu: dict[int, float] = {}
    killed = False
    while child.poll() is None:
        for pid in members(child.pid):
            look(pid, peaks, cpu)
        if until is not None and until():
            for pid in list(members(child.pid)):
                with_no_error(os.kill, pid, signal.SIGKILL)
            child.wait()
            killed = True
            break
        time.sleep(POLL)
    seconds = time.monotonic() - started
    if child.returncode and not killed:
        raise subprocess.CalledProcessError(child.returncode, words)
    return {
        "seconds": round(seconds, 2),
        "cpu": round(sum(cpu.values()), 2),
        "memory": round(max(peaks.values(), default=0.0), 1),
        "processes": len(peaks),
        **({"killed": True} if killed else {}),
    }


def members(leader: int) -> Iterator[int]:
    """The processes of a group."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.getpgid(int(name)) == leader:
                    yield int(name)
            except ProcessLookupError:
                continue


def look(pid: int, peaks: dict[int, float], cpu: dict[int, float]) -> None:
    """Note the peak memory in MiB and the CPU seconds of a process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return
    if "VmHWM:" in status:
        peaks[pid] = int(status.split("VmHWM:")[1].split()[0]) / 1024
        cpu[pid] = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")


def with_no_error(function: Callable[..., Any], *args: Any) -> None:
    try:
        function(*args)
    except ProcessLookupError:
        return
