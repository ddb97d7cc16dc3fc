"""docker/: the manifests against Kubernetes' own schemas, and every command in them against the programs."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.utilities.templating import apply_values

DOCKER = Path(__file__).parents[2] / "docker"
FOLDER = DOCKER / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
RELEASE = "1.37"
OBJECTS: list[dict[str, Any]] = [
    found for name in KUSTOMIZATION["resources"] for found in yaml.safe_load_all((FOLDER / name).read_text())
]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == kind}


def flow_job() -> dict[str, Any]:
    """The Job of a flow run, as Prefect's worker makes it of the pool's template and the deployment's variables."""
    template = json.loads((FOLDER / "job-template.json").read_text())
    prefect = yaml.safe_load((FOLDER.parents[1] / "flows/prefect.yaml").read_text())
    deployment = next(found for found in prefect["deployments"] if found["name"] == "kubernetes")
    given = {"name": "a", "command": ["prefect", "flow-run", "execute"], "labels": {"a": "b"}}
    variables = template["variables"]["properties"]
    assert set(deployment["work_pool"]["job_variables"]) <= set(variables)
    values = {name: field["default"] for name, field in variables.items() if "default" in field}
    job = apply_values(template["job_configuration"], {**values, **deployment["work_pool"]["job_variables"], **given})
    job = job["job_manifest"]
    for container in job["spec"]["template"]["spec"]["containers"]:  # what the worker does with a mapping
        container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    return job


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for found in [*OBJECTS, flow_job()]:
        if "template" in found.get("spec", {}):
            yield f"{found['kind']} {found['metadata'].get('name')}", found["spec"]["template"]


PODS = dict(pods())


@pytest.mark.parametrize(
    "object", [*OBJECTS, flow_job()], ids=lambda found: f"{found['kind']}-{found['metadata']}"[:40]
)
def test_it_is_what_kubernetes_takes(object: dict[str, Any]) -> None:
    kubernetes_validate.validate(object, RELEASE, strict=True)


def test_a_mistake_would_be_found() -> None:
    wrong = json.loads(json.dumps(of_kind("Deployment")["dask-gpu"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, RELEASE, strict=True)


def test_every_file_is_one_of_the_kustomization() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    assert of_kind("Namespace").keys() == {KUSTOMIZATION["namespace"]}


def test_what_is_referred_to_is_there() -> None:
    """Services find pods by their labels and ports, pods their accounts, claims and images."""
    for name, service in of_kind("Service").items():
        wanted = service["spec"]["selector"].items()
        chosen = [pod for pod in PODS.values() if wanted <= pod.get("metadata", {}).get("labels", {}).items()]
        assert len(chosen) == 1, name
        ports = {port["name"]: port["containerPort"] for port in chosen[0]["spec"]["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["name"]] == port["port"]
    accounts, claims = of_kind("ServiceAccount"), of_kind("PersistentVolumeClaim")
    images = {image["name"] for image in KUSTOMIZATION["images"]} | {"postgres:17.6-bookworm"}
    images |= {f"{image['newName']}:{image['newTag']}" for image in KUSTOMIZATION["images"]}
    for name, pod in PODS.items():
        assert pod["spec"].get("serviceAccountName", "stegoflow") in accounts, name
        assert all(volume["persistentVolumeClaim"]["claimName"] in claims for volume in pod["spec"].get("volumes", []))
        assert {container["image"] for container in pod["spec"]["containers"]} <= images
    for binding in of_kind("RoleBinding").values():
        assert binding["roleRef"]["name"] in of_kind("Role")
        assert all(subject["name"] in accounts for subject in binding["subjects"])


@pytest.mark.parametrize("name", PODS)
def test_no_pod_has_more_rights_than_it_needs(name: str) -> None:
    """What the namespace's label `restricted` demands; and no token of the API but the worker's."""
    pod = PODS[name]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert (pod.get("automountServiceAccountToken") is False) == ("prefect-worker" not in name)


def test_secrets_are_referred_to_and_nowhere_written() -> None:
    assert not of_kind("Secret")
    texts = "".join(path.read_text() for path in FOLDER.iterdir())
    named = set(re.findall(r"secretKeyRef: {name: (\w+)", texts)) | set(
        re.findall(r'secretRef"?: {"?name"?: "?(\w+)', texts)
    )
    page = (FOLDER.parents[1] / "docs/cluster.md").read_text()
    assert named == set(re.findall(r"create secret generic (\w+)", page))


def test_gpus_are_asked_for_by_those_that_compute() -> None:
    asked = {
        name: pod["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        for name, pod in PODS.items()
        if "resources" in pod["spec"]["containers"][0]
    }
    assert {name for name, number in asked.items() if number} == {"Deployment dask-gpu", "Job None"}


def commands() -> set[tuple[str, ...]]:
    """Every command of this image, in manifests and in the compose file."""
    found = {tuple(pod["spec"]["containers"][0].get("args", ())) for pod in PODS.values()}
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    for service in services.values():
        words = service.get("command", [])
        if words[:1] == ["sh"]:
            found |= {tuple(shlex.split(line)) for line in words[-1].splitlines()}
        elif str(service["image"]).startswith("stegoflow"):
            found.add(tuple(words))
    return {words for words in found if words}


def subcommand(words: tuple[str, ...]) -> tuple[str, ...]:
    plain = takewhile(re.compile("[a-z-]+").fullmatch, (word for word in words if word != "--no-prompt"))
    return tuple(takewhile(lambda word: word[0] != "-", plain))


@pytest.mark.parametrize(
    "called", sorted({subcommand(words) for words in commands() if words[0] != "python"}), ids=" ".join
)
def test_every_command_is_there_with_its_options(called: tuple[str, ...]) -> None:
    program = Path(sys.executable).parent / called[0]
    shown = subprocess.run([program, *called[1:], "--help"], capture_output=True, text=True, check=True).stdout
    for words in commands():
        if subcommand(words) == called:
            options = [word for word in words if word.startswith("--") and word != "--no-prompt"]
            assert all(option in shown for option in options), words


def test_readmes_lines_are_those_that_are_run() -> None:
    """test_flows.py runs the section Prefect of docs/cluster.md."""
    top = DOCKER.parent
    lines = (top / "README.md").read_text().partition("## On a cluster")[2].split("```bash\n")[1].partition("```")[0]
    prefect = (top / "docs/cluster.md").read_text().partition("## Prefect")[2].partition("## Dask")[0]
    assert lines.splitlines()
    assert all(line in prefect for line in lines.splitlines())
