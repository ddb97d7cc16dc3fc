"""PipelineConfig: params per stage, execution, and the store. Defaults are written in the stages, once."""

import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from pipeline.core.errors import Command, ConfigError, Set
from pipeline.core.execution import Execution
from pipeline.core.params import Params, chooser, lender, nested, role, settable, unhashed
from pipeline.core.store import local_folder
from pipeline.stages.baseline import BaselineParams
from pipeline.stages.clusters import ClustersParams
from pipeline.stages.dataset import DatasetParams
from pipeline.stages.features import FeaturesParams
from pipeline.stages.head import HeadParams
from pipeline.stages.labels import LabelsParams
from pipeline.stages.masks import MasksParams
from pipeline.stages.neighbours import NeighboursParams
from pipeline.stages.probe import ProbeParams
from pipeline.stages.report import ReportParams
from pipeline.stages.scores import ScoresParams
from pipeline.stages.suggestion import SuggestionParams


class PipelineConfig(Params):
    """One YAML file. Only `dataset.root` has no default."""

    store: str = unhashed("./store")
    """Where artifacts live: a folder, or an object-store URL such as s3://bucket/prefix."""
    dataset: DatasetParams
    labels: LabelsParams = LabelsParams()
    features: FeaturesParams = FeaturesParams()
    suggestion: SuggestionParams = SuggestionParams()
    neighbours: NeighboursParams = NeighboursParams()
    head: HeadParams = HeadParams()
    clusters: ClustersParams = ClustersParams()
    probe: ProbeParams = ProbeParams()
    baseline: BaselineParams = BaselineParams()
    masks: MasksParams = MasksParams()
    scores: ScoresParams = ScoresParams()
    report: ReportParams = ReportParams()
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _only_settable(cls, data: Any) -> Any:
        _refuse_what_is_not_settable(cls, data, "")
        return data


def _refuse_what_is_not_settable(model: type[BaseModel], data: Any, at: str) -> None:
    """ValueError where data of a section, or of one nested in it, sets a borrowed or a derived field."""
    for name in data if isinstance(data, dict) else ():
        if name not in model.model_fields:
            continue
        if name not in settable(model):
            why = f"it is {lender(model, name)}; set that" if role(model, name) == "borrowed" else "it is computed"
            raise ValueError(f"{at}{name} cannot be set here: {why}")
        inner = nested(model, name)
        if inner is not None:
            _refuse_what_is_not_settable(inner, data[name], f"{at}{name}.")


def load(path: str | Path, sets: list[str] | None = None, store: str | None = None) -> PipelineConfig:
    """The config of a YAML file, with `stage.field=VALUE` changes (VALUE is YAML) and another store.

    Relative paths in the file are relative to the folder that the program is started in. ConfigError names the field.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", next="stegoflow init my.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not plain YAML: {yaml_problem(error)}", next=f"mend {path}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a config is a mapping of sections", next="stegoflow init my.yaml")
    for change in sets or []:
        apply(data, change)
    if store is not None:
        data["store"] = store
    return validate(data, str(path))


def apply(data: dict[str, Any], change: str) -> None:
    """Apply one `stage.field=VALUE` to config data in place. Errors leave VALUE out: it may hold a password."""
    field, equals, value = change.partition("=")
    names = field.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set {field}: expected stage.field=VALUE", next=Set("clusters.k", 20))
    at = data
    for name in names[:-1]:
        if at.get(name) is None:
            at[name] = {}
        at = at[name]
        if not isinstance(at, dict):
            raise ConfigError(f"--set {field}: {name} has no fields", next=Set("clusters.k", 20))
    try:
        at[names[-1]] = yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError) as error:
        problem = yaml_problem(error)
        raise ConfigError(
            f"--set {field}: the value is not plain YAML: {problem}", next=Set("clusters.k", 20)
        ) from None


def yaml_problem(error: Exception) -> str:
    """Where a YAML text is wrong, on one line and without quoting it: it may hold a password."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "it holds characters that YAML cannot"
    if isinstance(error, yaml.constructor.ConstructorError):
        return f"{where}: a tag or key that plain YAML does not have"
    told = isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError)
    return f"{where}: {error.problem}" if told else where  # type: ignore[attr-defined]


def validate(data: dict[str, Any], source: str = "config") -> PipelineConfig:
    """A PipelineConfig from plain data, paths made absolute; ConfigError that names every wrong field."""
    try:
        config = PipelineConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            f"{source}: {_explain(error, data)}", next=(Command("params"), " explains every field")
        ) from None
    weights = config.features.weights
    if weights not in ("hub", "packaged"):
        weights = _absolute("features.weights", weights)
    root = _absolute("dataset.root", config.dataset.root)
    return config.model_copy(
        update={
            "store": _absolute("store", config.store),
            "dataset": config.dataset.model_copy(update={"root": root}),
            "features": config.features.model_copy(update={"weights": weights}),
        }
    )


def _absolute(field: str, path: str) -> str:
    """The absolute path of a local path, other URLs as they are; ConfigError for links in a circle and NUL bytes."""
    try:
        return str(local_folder(path) or path)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{field}: {path!r} cannot be used: {error}", next=Set(field, "PATH")) from error


def reference(section: str | None = None) -> str:
    """Every field that a config may set, with its default and what it means, as YAML that a config can begin with."""
    models: dict[str, Any] = {name: field.annotation for name, field in PipelineConfig.model_fields.items()}
    if section is not None and section not in models:
        raise ConfigError(f"{section}: no such section", next=f"one of {', '.join(models)}")
    lines: list[str] = []
    for name in [section] if section else models:
        if isinstance(models[name], type) and issubclass(models[name], Params):
            if settable(models[name]):
                lines += [f"{name}:", *_reference(models[name], "  "), ""]
        else:
            lines += [*_field(PipelineConfig, name, ""), ""]
    return "\n".join(lines).rstrip()


def _reference(model: type[Params], indent: str) -> list[str]:
    lines = []
    for name in settable(model):
        inner = nested(model, name)
        if inner is None:
            lines += _field(model, name, indent)
        elif settable(inner):
            if role(model, name) == "variant":
                lines.append(f"{indent}# Counts only where {chooser(model, name)} is {name}.")
            lines += [f"{indent}{name}:", *_reference(inner, indent + "  ")]
    return lines


def _field(model: type[Params], name: str, indent: str) -> list[str]:
    field = model.model_fields[name]
    default = field.get_default(call_default_factory=True)
    value = (
        "   # must be set" if field.is_required() else yaml.safe_dump(default, default_flow_style=True).split("\n")[0]
    )
    text = textwrap.wrap(" ".join((field.description or "").split()), 100)
    return [*(f"{indent}# {line}" for line in text), f"{indent}{name}: {value}"]


def _explain(error: ValidationError, data: dict[str, Any]) -> str:
    lines = []
    for problem in error.errors():
        field = ".".join(str(step) for step in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown field{_nearest(problem['loc'], data)}"
        if problem["type"] == "missing":
            message = "must be set"
        lines.append(f"{field}: {message}" if field else message)
    return "; ".join(lines)


def _nearest(location: tuple[str | int, ...], data: Any) -> str:
    """What an unknown field may have been meant to be: one of a variant beside it, or of a similar name."""
    import difflib

    model: Any = PipelineConfig
    for step in location[:-1]:
        model, data = model.model_fields[step].annotation, data[step]
    name = str(location[-1])
    at = ".".join(str(step) for step in location[:-1])
    places: dict[str, dict[str, str]] = {}  # of each field inside a variant: {variant: where a config sets it}
    for one in settable(model):
        section = nested(model, one) if role(model, one) == "variant" else None
        for field in settable(section) if section else ():
            places.setdefault(field, {})[one] = f"{at}.{one}.{field}"
    close = difflib.get_close_matches(name, [*settable(model), *places], 1)
    if close and close[0] in places:
        found = places[close[0]]
        by = chooser(model, next(iter(found)))
        chosen = data.get(by, model.model_fields[by].default)
        wanted = found[chosen] if chosen in found else " or ".join(found.values())
        return f"; it is {wanted}" if close[0] == name else f"; did you mean {wanted}?"
    return f"; did you mean {close[0]}?" if close else f"; the fields are {', '.join(settable(model)) or 'none'}"
