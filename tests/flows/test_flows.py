"""The flows as an operator uses them: server, work pool, deployment and worker are real, on this machine alone."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from pipeline.core.artifact import Artifact
from pipeline.core.runs import find_run, runs
from pipeline.core.store import Store
from pipeline.planning import STAGES

ROOT = Path(__file__).parents[2]
ALL = [stage.name for stage in STAGES]
NAMES = [name for name in ALL if name not in ("reading", "suggestion", "classes")]  # K is given
ODD = "_a_ [b](c) <i>&`|.png"
"""An image's name that would be markup."""


class Prefect:
    """Server, work pool, automations, deployments and worker, started by the lines of docs/cluster.md themselves, in a
    folder that holds flows/ and configs; records and logs below `home`."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self.folder = home, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.api = f"http://127.0.0.1:{self.port}/api"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.env = {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_UI_ENABLED": "false",
            "COLUMNS": "500",  # no line of a log is broken in two
            "STEGOFLOW_STORE_LINK": "https://store.example/a",
        }
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, line: str) -> subprocess.Popen[bytes]:
        """A line of bash in the background, its output in a file of `home`."""
        line = line.replace("4200", self.port)
        with (self.home / f"{name}.log").open("wb") as log:
            self.started[name] = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", line],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.started[name]

    def finish(self, name: str, status: int = 0) -> str:
        """What a line printed, once it has ended."""
        found = self.started[name].wait()
        assert found == status, self.log(name) + self.log("set up")
        return self.log(name)

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text()

    def worker(self) -> psutil.Process:
        """The process of `prefect worker start`."""
        family = psutil.Process(self.started["set up"].pid).children(recursive=True)
        return next(process for process in reversed(family) if {"worker", "start"} <= set(process.cmdline()))

    def ask(self, kind: str, filters: dict[str, Any]) -> list[dict[str, Any]]:
        return httpx.post(f"{self.api}/{kind}/filter", json=filters).raise_for_status().json()

    def flow_run(self, name: str) -> dict[str, Any]:
        """The flow run that a line scheduled."""
        for _ in range(600):
            if found := re.search(r"UUID: (\S+)", self.log(name)):
                return httpx.get(f"{self.api}/flow_runs/{found[1]}").raise_for_status().json()
            time.sleep(0.1)
        raise AssertionError(self.log(name))

    def says(self, name: str, text: str) -> None:
        """Wait until the log of a flow run, as the server keeps it, says this; `--watch` may lose lines of it."""
        id = self.flow_run(name)["id"]
        until = time.monotonic() + 150
        while time.monotonic() < until:
            lines = [line["message"] for line in self.ask("logs", {"logs": {"flow_run_id": {"any_": [id]}}})]
            if any(text in line for line in lines):
                return
            time.sleep(0.1)
        raise AssertionError("\n".join([f"{text!r} is not in the log of {name}:", *lines]))

    def states(self, name: str, count: int) -> dict[str, str]:
        """The final state of each of a flow run's `count` task runs; the server learns of them a little later."""
        id = self.flow_run(name)["id"]
        for _ in range(100):
            found = self.ask("task_runs", {"flow_runs": {"id": {"any_": [id]}}})
            states = {run["name"]: run["state_name"] for run in found if run["state_type"] == "COMPLETED"}
            if len(states) == count:
                break
            time.sleep(0.1)
        return states

    def working(self, name: str) -> tuple[str, str]:
        """When a flow run began its first stage, and when it ended its last."""
        found = self.ask("task_runs", {"flow_runs": {"id": {"any_": [self.flow_run(name)["id"]]}}})
        return min(run["start_time"] for run in found), max(run["end_time"] for run in found)

    def artifacts(self, name: str) -> dict[str, Any]:
        """Key → content of what a flow run published."""
        found = self.ask("artifacts", {"flow_runs": {"id": {"any_": [self.flow_run(name)["id"]]}}})
        return {
            made["key"]: json.loads(made["data"]) if made["type"] == "table" else made["data"]
            for made in found
            if made["key"]
        }

    def stop(self) -> None:
        """End everything that was started and all that it started."""
        family = [
            child
            for process in self.started.values()
            if process.poll() is None
            for child in psutil.Process(process.pid).children(recursive=True)
        ]
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        psutil.wait_procs(family, timeout=10)
        for process in self.started.values():
            process.kill()
            process.wait()
        for child in family:
            if child.is_running():
                child.kill()


def blocks(page: Path, section: str) -> list[str]:
    """The bash blocks of a section of a page."""
    text = page.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [text[found.end() :].partition("```")[0] for found in re.finditer("```bash\n", text)]


SET_UP, RUNS = blocks(ROOT / "docs/cluster.md", "Prefect")
ALL_STAGES, ONE_STAGE = RUNS.splitlines()


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Iterator[Prefect]:
    started = Prefect(tmp_path_factory.mktemp("prefect"), config.parent)
    ready = started.home / "ready"
    try:
        process = started.start("set up", f"{SET_UP}\ntouch {ready}\nwait")
        while not ready.exists():
            assert process.poll() is None, started.log("set up")
            time.sleep(0.1)
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, corpus: Path, vit: Path) -> Path:
    """A config file of a run that takes seconds."""
    folder = tmp_path_factory.mktemp("config")
    shutil.copytree(corpus, folder / "corpus")
    for kind in ("images", "labels"):
        first = sorted((folder / "corpus" / kind / "val").iterdir())[0]
        first.rename(first.with_name(ODD))
    content = {
        "dataset": {"root": str(folder / "corpus")},
        "features": {"backbone": "test_vit", "weights": str(vit), "views": {"size": [64, 64]}},
        "head": {"steps": 20, "batch": 4, "code": 8, "samples": 3, "negatives": 2},
        "clusters": {"k": 4, "restarts": 2, "iterations": 10},
        "masks": {"crf": True, "crf_params": {"iterations": 2}},
        "report": {"images": 2, "patches": 2},
        "execution": {"executor": "processes", "workers": 1, "device": "cpu", "precision": "fp32"},
    }
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump(content))
    (folder / "flows").symlink_to(ROOT / "flows")
    return path


@pytest.fixture(scope="module")
def store(config: Path) -> Path:
    return config.parent / "store"


@pytest.fixture(scope="module")
def lost(prefect: Prefect) -> str:
    """A run that cannot be done, beside the first one."""
    data = json.dumps({"dataset": {"root": "/no/such"}, "store": "other"})
    prefect.start("lost", f"prefect deployment run segment/local -p config='{data}' --watch")
    return "lost"


@pytest.fixture(scope="module")
def first(prefect: Prefect, lost: str) -> str:
    """The name of a finished run of every stage."""
    prefect.start("first", ALL_STAGES)
    prefect.finish("first")
    return "first"


@pytest.fixture(scope="module")
def later(prefect: Prefect, first: str) -> None:
    """Two runs after the first: the same again, and one stage of it. Both come while another holds the store's turn."""
    (name,) = {limit["name"] for limit in prefect.ask("v2/concurrency_limits", {}) if "config0-store-" in limit["name"]}
    turn = {"names": [name], "slots": 1, "mode": "concurrency"}
    while httpx.post(f"{prefect.api}/v2/concurrency_limits/increment", json=turn).status_code == httpx.codes.LOCKED:
        time.sleep(0.1)  # the first run has not given its turn back yet
    prefect.start("again", ALL_STAGES)
    prefect.start("one", ONE_STAGE)
    for waiting in ("again", "one"):
        prefect.says(waiting, "waiting for another run in this store")
        tasks = {"flow_runs": {"id": {"any_": [prefect.flow_run(waiting)["id"]]}}}
        assert prefect.ask("task_runs", tasks) == [], "it has a turn that another holds"
    httpx.post(f"{prefect.api}/v2/concurrency_limits/decrement", json=turn).raise_for_status()


def test_a_deployed_run_makes_every_artifact(prefect: Prefect, store: Path, first: str) -> None:
    assert prefect.states(first, len(NAMES)) == dict.fromkeys(NAMES, "Completed")
    opened = Store(str(store))
    made = find_run(opened, "latest")["stages"]
    assert sorted(made) == sorted(NAMES)
    assert all(Artifact(opened, stage, name).exists for stage, name in made.items())


def test_flow_run_and_run_know_each_other(prefect: Prefect, store: Path, first: str) -> None:
    found = prefect.flow_run(first)
    record = find_run(Store(str(store)), runs(Store(str(store)))[0])
    assert found["name"] == "corpus K=4 stegoflow"
    assert record["flow_run"] == {"id": found["id"], "name": found["name"]}
    assert {"stegoflow", "data:corpus", "k:4", "head:stegoflow", f"run:{record['run']}"} <= set(found["tags"])


def test_it_shows_scores_pictures_and_the_report(prefect: Prefect, store: Path, first: str) -> None:
    shown = prefect.artifacts(first)
    assert sorted(shown) == ["masks", "report", "scores"]
    assert [row["what"] for row in shown["scores"]][:2] == ["groups", "groups + CRF"]
    assert all(0 <= float(row[key]) <= 100 for row in shown["scores"] for key in ("accuracy", "mIoU"))
    picture, _, names = shown["masks"].partition(")\n\n")
    assert picture.startswith("![masks](data:image/jpeg;base64,")
    assert len(picture) < 500_000
    assert r"\_a\_ \[b\]\(c\) &lt;i&gt;&amp;\`\|\.png" in names
    link = re.fullmatch(r"\[Open the report\]\(https://store.example/a/(.*)\)", shown["report"])
    assert link is not None
    assert (store / link[1]).read_bytes() == (store / "report.html").read_bytes()


def test_a_mistake_ends_the_run_as_a_sentence(prefect: Prefect, lost: str, first: str) -> None:
    prefect.finish(lost, 1)
    prefect.says(lost, "is not a folder")
    state = prefect.flow_run(lost)["state"]
    assert state["type"] == "FAILED"
    assert "/no/such" in state["message"]
    assert "next: " in state["message"]
    assert "Traceback" not in prefect.log(lost)


def test_a_second_run_reuses_every_stage(prefect: Prefect, later: None) -> None:
    prefect.finish("again")
    assert prefect.states("again", len(NAMES)) == dict.fromkeys(NAMES, "Reused")
    assert sorted(prefect.artifacts("again")) == ["masks", "report", "scores"]


def test_a_single_stage_runs_alone(prefect: Prefect, later: None) -> None:
    prefect.finish("one")
    assert prefect.states("one", 1) == {"report": "Completed"}
    assert list(prefect.artifacts("one")) == ["report"]
    assert prefect.flow_run("one")["name"] == "corpus K=4 stegoflow: report"


def test_runs_in_a_store_take_turns(prefect: Prefect, later: None) -> None:
    for name in ("again", "one"):
        prefect.finish(name)
    one, other = sorted((prefect.working(name) for name in ("again", "one")), key=lambda span: span[0])
    assert one[1] <= other[0]


def test_one_cluster_serves_the_whole_flow(prefect: Prefect, config: Path, store: Path, first: str) -> None:
    """Features, masks and scores of a flow run go to the workers of a cluster by address, over one connection; its
    values are those of worker processes here."""
    from distributed import LocalCluster

    other = store.with_name("store-of-dask")
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        changes = (
            f"--store {other} --set execution.executor=dask --set execution.dask_address={cluster.scheduler_address}"
        )
        prefect.start("spread", ALL_STAGES.replace("my.yaml", f"my.yaml {changes}"))
        prefect.finish("spread")
        events = [event for _, event in cluster.scheduler.get_events("all")]
        finished = sum(prefix.state_counts["memory"] for prefix in cluster.scheduler.task_prefixes.values())
    assert [event["action"] for event in events].count("add-client") == 1
    assert prefect.states("spread", len(NAMES)) == dict.fromkeys(NAMES, "Completed")
    # of either store the oldest run: "latest" may be the single stage that runs beside this test
    here, there = (find_run(opened, runs(opened)[0])["stages"] for opened in (Store(str(store)), Store(str(other))))
    assert here == there
    made, apart = ([Artifact(Store(str(folder)), name, here[name]) for name in NAMES] for folder in (store, other))
    in_parts = [artifact for artifact in apart if artifact.stage in ("features", "masks", "scores")]
    assert finished == sum(len(artifact.markers()) for artifact in in_parts) > 0
    at = NAMES.index("scores")
    assert made[at].file("scores.json")["sha256"] == apart[at].file("scores.json")["sha256"]


def test_a_wrong_config_is_refused_before_scheduling(prefect: Prefect) -> None:
    """By the client that reads a file, and by the server for whoever asks it otherwise; its form has every field."""
    deployments = {name: f"{prefect.api}/deployments/name/{name}/local" for name in ("segment", "stage")}
    made = {name: httpx.get(url).raise_for_status().json() for name, url in deployments.items()}
    prefect.start("wrong", ALL_STAGES.replace("my.yaml", "my.yaml --set clusters.kk=3"))
    assert "clusters.kk: unknown field; did you mean k?" in prefect.finish("wrong", 1)
    good = {"dataset": {"root": "/data"}}
    for wrong, flow, parameters in (
        ("kk", "segment", {"config": {**good, "clusters": {"kk": 3}}}),
        ("dataset", "segment", {"config": {}}),
        ("maskz", "stage", {"config": good, "stage": "maskz"}),
    ):
        url = f"{prefect.api}/deployments/{made[flow]['id']}/create_flow_run"
        answer = httpx.post(url, json={"parameters": parameters})
        assert answer.is_client_error
        assert wrong in answer.text
    schema = made["stage"]["parameter_openapi_schema"]
    assert schema["properties"]["stage"]["enum"] == ALL
    assert all(field["description"] for field in schema["properties"].values())
    assert "restarts" in schema["definitions"]["ClustersParams"]["properties"]
    assert "predicted" not in schema["definitions"]["FeaturesParams"]["properties"], "it is borrowed"


def test_a_run_ends_with_its_worker_and_is_tried_again(prefect: Prefect, later: None) -> None:
    """SIGKILL of the worker in the middle of a stage: nobody is left to stop the run or to report it."""
    for name in ("again", "one"):
        prefect.finish(name)
    prefect.start("killed", ALL_STAGES.replace("my.yaml", "my.yaml --set head.steps=1500"))
    head = {"task_runs": {"name": {"any_": ["head"]}, "state": {"type": {"any_": ["RUNNING"]}}}}
    while not prefect.ask("task_runs", head):
        assert prefect.started["killed"].poll() is None, prefect.log("killed")
        time.sleep(0.2)
    worker = prefect.worker()
    (run,) = worker.children()
    worker.kill()
    run.wait(timeout=30)
    prefect.says("killed", "the worker that started this run is gone")
    for limit in prefect.ask("v2/concurrency_limits", {}):  # a killed run holds its turn for a minute
        httpx.delete(f"{prefect.api}/v2/concurrency_limits/{limit['id']}").raise_for_status()
    prefect.start("worker", SET_UP.splitlines()[-1].replace("&", ""))
    while (found := prefect.flow_run("killed"))["state"]["type"] != "COMPLETED":
        assert found["state"]["type"] != "FAILED", found["state"]["message"]
        time.sleep(0.5)
    assert found["run_count"] == 2
