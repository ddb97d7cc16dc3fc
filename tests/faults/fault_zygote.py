"""A process that has imported everything and forks one child per run, so that a run may be killed many times a minute.

Reads one JSON object per line on standard input, answers each with one line:
{"start": {…}} → {"pid": n}; {"wait": pid} → {"status": exit status, negative for a signal}.
It never touches a store itself: a fork would inherit the threads that obstore starts.
"""

import importlib
import json
import os
import pkgutil
import signal
import sys
import traceback
from pathlib import Path

import fault_child

import pipeline

# What a run imports on its way, imported once.
LIBRARIES = (
    *("faiss", "jinja2", "pyarrow.dataset", "pydensecrf.densecrf", "rich.progress", "safetensors.numpy"),
    *("scipy.cluster.hierarchy", "scipy.ndimage", "scipy.optimize", "sklearn.cluster", "sklearn.metrics"),
    *("tifffile", "timm", "torch", "zarr.codecs", "zarr.storage"),
)
for name in (*LIBRARIES, *(module.name for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."))):
    if not name.endswith("__main__"):
        importlib.import_module(name)


def start(command: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(command.get("env", {}))
        os.dup2(os.open(command["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
        os.dup2(2, 1)
        answer = fault_child.ACTIONS[command["do"]](command)
        Path(command["answer"]).write_text(json.dumps(answer))
        status = 0
    except BaseException as error:
        traceback.print_exc()
        failed = {"error": type(error).__name__, "message": str(error), "stage": getattr(error, "stage", None)}
        Path(command["answer"]).write_text(json.dumps(failed))
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    living = set()
    for line in sys.stdin:
        command = json.loads(line)
        if "start" in command:
            answer = {"pid": start(command["start"])}
            living.add(answer["pid"])
        else:
            _, status = os.waitpid(command["wait"], 0)
            living.discard(command["wait"])
            answer = {"status": os.waitstatus_to_exitcode(status)}
        print(json.dumps(answer), flush=True)
    for pid in living:  # of a test that failed: nobody will tell them to stop
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
