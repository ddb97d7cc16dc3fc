"""The flows as an operator uses them: server, work pool, deployment and worker are real, on this machine alone."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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
    """A server of its own, a process work pool, both deployments and a worker; records and logs below `home`."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.home, self.api = home, f"http://127.0.0.1:{self.port}/api"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.env = {
            **inherited,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """`prefect WORDS` in the background, its output in a file of `home`."""
        with (self.home / f"{words[0]}-{len(self.started)}.log").open("wb") as log:
            command = [sys.executable, "-m", "prefect", *words]
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[bytes]) -> str:
        """What it printed, once it has ended well."""
        status = process.wait(timeout=200)
        text = (self.home / f"{process.args[3]}-{self.started.index(process)}.log").read_text()  # type: ignore[index]
        assert status == 0, text + self.logs("worker")
        return text

    def logs(self, kind: str) -> str:
        return "".join(path.read_text() for path in self.home.glob(f"{kind}-*.log"))

    def schedule(self, name: str, deployment: str, **parameters: str) -> subprocess.Popen[bytes]:
        """`prefect deployment run`, as README.md and docs/cluster.md have it; `name` is the flow run's."""
        words = [word for key, value in parameters.items() for word in ("-p", f"{key}={value}")]
        return self.start("deployment", "run", deployment, *words, "--flow-run-name", name, "--watch")

    def ask(self, kind: str, filters: dict[str, Any]) -> list[dict[str, Any]]:
        return httpx.post(f"{self.api}/{kind}/filter", json=filters).raise_for_status().json()

    def flow_run(self, name: str) -> dict[str, Any]:
        return self.ask("flow_runs", {"flow_runs": {"name": {"any_": [name]}}})[0]

    def states(self, name: str, count: int) -> dict[str, str]:
        """The final state of each of a flow run's `count` task runs; the server learns of them a little later."""
        for _ in range(100):
            found = self.ask("task_runs", {"flow_runs": {"name": {"any_": [name]}}})
            states = {run["name"]: run["state_name"] for run in found if run["state_type"] == "COMPLETED"}
            if len(states) == count:
                break
            time.sleep(0.1)
        return states

    def artifacts(self, name: str) -> dict[str, Any]:
        """Key → content of what a flow run published."""
        found = self.ask("artifacts", {"flow_runs": {"name": {"any_": [name]}}})
        return {
            made["key"]: json.loads(made["data"]) if made["type"] == "table" else made["data"]
            for made in found
            if made["key"]
        }

    def stop(self) -> None:
        """End everything that was started and all that it started."""
        family = []
        for process in reversed(self.started):  # the server last
            if process.poll() is None:
                family += psutil.Process(process.pid).children(recursive=True)
                process.terminate()
        for process in self.started:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in family:
            if child.is_running():
                child.kill()


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    started = Prefect(tmp_path_factory.mktemp("prefect"))
    try:
        server = started.start("server", "start", "--host", "127.0.0.1", "--port", str(started.port))
        for _ in range(600):
            assert server.poll() is None, started.logs("server")
            try:
                if httpx.get(f"{started.api}/health").is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        started.finish(started.start("work-pool", "create", "local", "--type", "process"))
        started.start("worker", "start", "--pool", "local", "--limit", "2")
        started.finish(started.start("--no-prompt", "deploy", "--all", "--prefect-file", "flows/prefect.yaml"))
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
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def store(config: Path) -> Path:
    return config.parent / "store"


@pytest.fixture(scope="module")
def wrong(prefect: Prefect, config: Path, store: Path) -> subprocess.Popen[bytes]:
    """A run that cannot be done, beside the first one."""
    given = {"config": str(config), "store": str(store)}
    return prefect.schedule("wrong", "stage/local", stage="masks", set='["clusters.kk=3"]', **given)


@pytest.fixture(scope="module")
def first(prefect: Prefect, config: Path, store: Path, wrong: subprocess.Popen[bytes]) -> str:
    """The name of a finished run of every stage."""
    prefect.finish(prefect.schedule("first", "segment/local", config=str(config), store=str(store)))
    return "first"


@pytest.fixture(scope="module")
def later(prefect: Prefect, config: Path, store: Path, first: str) -> dict[str, subprocess.Popen[bytes]]:
    """Two runs after the first, side by side: the same again, and one stage of it."""
    same = {"config": str(config), "store": str(store)}
    return {
        "again": prefect.schedule("again", "segment/local", **same),
        "one": prefect.schedule("one", "stage/local", stage="report", set='["report.images=1"]', **same),
    }


def test_a_deployed_run_makes_every_artifact(prefect: Prefect, store: Path, first: str) -> None:
    assert prefect.states(first, len(NAMES)) == dict.fromkeys(NAMES, "Completed")
    opened = Store(str(store))
    made = find_run(opened, "latest")["stages"]
    assert sorted(made) == sorted(NAMES)
    assert all(Artifact(opened, stage, name).exists for stage, name in made.items())


def test_it_shows_scores_pictures_and_where_the_report_lies(prefect: Prefect, store: Path, first: str) -> None:
    shown = prefect.artifacts(first)
    assert sorted(shown) == ["masks", "report", "scores"]
    assert [row["what"] for row in shown["scores"]][:2] == ["groups", "groups + CRF"]
    assert all(0 <= float(row[key]) <= 100 for row in shown["scores"] for key in ("accuracy", "mIoU"))
    picture, _, names = shown["masks"].partition(")\n\n")
    assert picture.startswith("![masks](data:image/jpeg;base64,")
    assert len(picture) < 500_000
    assert r"\_a\_ \[b\]\(c\) &lt;i&gt;&amp;\`\|\.png" in names
    fingerprint = find_run(Store(str(store)), runs(Store(str(store)))[0])["stages"]["report"]
    assert f"{fingerprint}/data/report." in shown["report"].replace("\\", "")


def test_a_mistake_ends_the_run_as_a_sentence(prefect: Prefect, wrong: subprocess.Popen[bytes]) -> None:
    assert wrong.wait(timeout=200) == 1
    state = prefect.flow_run("wrong")["state"]
    assert state["type"] == "FAILED"
    assert "clusters.kk: unknown field; did you mean k?" in state["message"]
    assert "next: " in state["message"]
    assert "Traceback" not in prefect.logs("worker")


def test_a_second_run_reuses_every_stage(prefect: Prefect, later: dict[str, subprocess.Popen[bytes]]) -> None:
    prefect.finish(later["again"])
    assert prefect.states("again", len(NAMES)) == dict.fromkeys(NAMES, "Reused")
    assert sorted(prefect.artifacts("again")) == ["masks", "report", "scores"]


def test_one_cluster_serves_the_whole_flow(prefect: Prefect, config: Path, store: Path, first: str) -> None:
    """Features, masks and scores of a flow run go to the workers of a cluster by address, over one connection; its
    values are those of worker processes here."""
    from distributed import LocalCluster

    other = store.with_name("store-of-dask")
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        changes = ["execution.executor=dask", f"execution.dask_address={cluster.scheduler_address}"]
        given = {"config": str(config), "store": str(other), "set": json.dumps(changes)}
        prefect.finish(prefect.schedule("spread", "segment/local", **given))
        events = [event for _, event in cluster.scheduler.get_events("all")]
        finished = sum(prefix.state_counts["memory"] for prefix in cluster.scheduler.task_prefixes.values())
    assert [event["action"] for event in events].count("add-client") == 1
    assert prefect.states("spread", len(NAMES)) == dict.fromkeys(NAMES, "Completed")
    # of either store the oldest run: "latest" may be the single stage that runs beside this test
    here, there = (find_run(opened, runs(opened)[0])["stages"] for opened in (Store(str(store)), Store(str(other))))
    assert here == there
    made, spread = ([Artifact(Store(str(folder)), name, here[name]) for name in NAMES] for folder in (store, other))
    in_parts = [artifact for artifact in spread if artifact.stage in ("features", "masks", "scores")]
    assert finished == sum(len(artifact.markers()) for artifact in in_parts) > 0
    at = NAMES.index("scores")
    assert made[at].file("scores.json")["sha256"] == spread[at].file("scores.json")["sha256"]


def test_a_single_stage_runs_alone(prefect: Prefect, later: dict[str, subprocess.Popen[bytes]]) -> None:
    prefect.finish(later["one"])
    assert prefect.states("one", 1) == {"report": "Completed"}
    assert list(prefect.artifacts("one")) == ["report"]


def test_the_menu_of_stages_is_complete_and_checked_before_scheduling(prefect: Prefect) -> None:
    deployment = httpx.get(f"{prefect.api}/deployments/name/stage/local").raise_for_status().json()
    schema = deployment["parameter_openapi_schema"]["properties"]
    assert schema["stage"]["enum"] == ALL
    assert all(field["description"] for field in schema.values())
    wrong = {"parameters": {"stage": "maskz", "config": "x.yaml"}}
    answer = httpx.post(f"{prefect.api}/deployments/{deployment['id']}/create_flow_run", json=wrong)
    assert answer.is_client_error
    assert "maskz" in answer.text
