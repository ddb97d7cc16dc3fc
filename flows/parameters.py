"""The parameter that both flows take, and what a flow run is called by it."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from prefect.runtime import flow_run
from pydantic import SkipValidation

from pipeline.config import PipelineConfig
from pipeline.terminal import visible

Config = Annotated[PipelineConfig, SkipValidation]
"""A config by value, as `stegoflow config my.yaml` prints it: a mapping. Prefect shows its schema as a form and checks
that before scheduling; the flow checks the rest, with the messages of the command line."""


def run_name() -> str:
    """The name of the current flow run: "street K=20 stegoflow", with ": clusters" behind it for one stage."""
    parameters = flow_run.parameters
    facts = described(parameters["config"])
    name = f"{facts['data']} K={facts['k']} {facts['head']}"
    return visible(f"{name}: {parameters['stage']}" if "stage" in parameters else name)


def described(config: Any) -> dict[str, str]:
    """{"data", "k", "head"} of a config's data, which may be wrong."""
    data = str(_value(config, "dataset", "root") or "?")
    k = _value(config, "clusters", "k") or "suggested"
    head = _value(config, "head", "method") or PipelineConfig.model_fields["head"].default.method
    return {"data": PurePosixPath(data).name or data, "k": str(k), "head": str(head)}


def _value(config: Any, section: str, field: str) -> Any:
    fields = config.get(section) if isinstance(config, dict) else None
    return fields.get(field) if isinstance(fields, dict) else None
