"""PipelineConfig: params per stage, execution, and the store. Defaults are written in the stages, once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from pipeline.artifacts.annotation_versions import NEWEST, NONE
from pipeline.core.errors import Command, ConfigError, Set
from pipeline.core.execution import Execution
from pipeline.core.params import Params, members, nested, role, settable, source_of, unhashed
from pipeline.core.params_text import as_yaml, problems
from pipeline.core.store import local_folder
from pipeline.heads.settings import HeadParams, StegoflowParams
from pipeline.stages.baseline import BaselineParams
from pipeline.stages.classes import ClassesParams
from pipeline.stages.clusters import ClustersParams
from pipeline.stages.dataset import DatasetParams
from pipeline.stages.features import FeaturesParams
from pipeline.stages.labels import LabelsParams
from pipeline.stages.masks import MasksParams
from pipeline.stages.neighbours import NeighboursParams
from pipeline.stages.probe import ProbeParams
from pipeline.stages.reading import ReadingParams
from pipeline.stages.report import ReportParams
from pipeline.stages.scores import ScoresParams
from pipeline.stages.suggestion import SuggestionParams


class PipelineConfig(Params):
    """One YAML file. Only `dataset.root` has no default."""

    store: str = unhashed("./store")
    """Where artifacts live: a folder, or an object-store URL such as s3://bucket/prefix."""
    dataset: DatasetParams
    labels: LabelsParams = LabelsParams()
    reading: ReadingParams = ReadingParams()
    features: FeaturesParams = Field(default_factory=FeaturesParams)  # made when needed: it looks at the backbone
    suggestion: SuggestionParams = SuggestionParams()
    neighbours: NeighboursParams = NeighboursParams()
    head: HeadParams = StegoflowParams()
    """Its fields are those of the method that `head.method` names."""
    clusters: ClustersParams = ClustersParams()
    classes: ClassesParams = ClassesParams()
    probe: ProbeParams = ProbeParams()
    baseline: BaselineParams = BaselineParams()
    masks: MasksParams = MasksParams()
    scores: ScoresParams = ScoresParams()
    report: ReportParams = ReportParams()
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _settable_fields(cls, data: Any) -> Any:
        data = _with_discriminators(cls, data)
        _check_settable(cls, data, "")
        return data


def _with_discriminators(model: type[BaseModel], data: Any) -> Any:
    """Data in which every section that is a union says which model it means: the default's, where it does not."""
    if not isinstance(data, dict):
        return data
    data = dict(data)
    for name, field in model.model_fields.items():
        if isinstance(data.get(name), dict) and isinstance(field.discriminator, str):
            data[name] = {field.discriminator: getattr(field.default, field.discriminator), **data[name]}
    return data


def _check_settable(model: type[BaseModel], data: Any, at: str) -> None:
    """ValueError where data of a section, or of one nested in it, sets a borrowed or a derived field."""
    for name in data if isinstance(data, dict) else ():
        if name not in model.model_fields:
            continue
        if name not in settable(model):
            why = f"it is {source_of(model, name)}; set that" if role(model, name) == "borrowed" else "it is computed"
            raise ValueError(f"{at}{name} cannot be set here: {why}")
        inner = _model(model, name, data[name])
        if inner is not None:
            _check_settable(inner, data[name], f"{at}{name}.")


def _model(model: type[BaseModel], name: str, data: Any) -> type[Params] | None:
    """The model of a section, which of a union its data names; None for a field that holds a value."""
    union = members(model, name)
    if not union:
        return nested(model, name)
    tag = data.get(model.model_fields[name].discriminator) if isinstance(data, dict) else None
    return union.get(tag) if isinstance(tag, str) else None


def load(path: str | Path, set: Sequence[str] | None = None, store: str | None = None) -> PipelineConfig:
    """The config of a YAML file, with `stage.field=VALUE` changes (VALUE is YAML) and another store.

    Relative paths in the file are relative to the folder that the program is started in. ConfigError names the field.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", next=Command("init", "my.yaml")) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not plain YAML: {yaml_problem(error)}", next=f"mend {path}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a config is a mapping of sections", next=Command("init", "my.yaml"))
    for change in sorted(set or (), key=lambda change: _discriminates(change.partition("=")[0].strip()), reverse=True):
        apply(data, change)
    if store is not None:
        data["store"] = store
    return validate(data, str(path))


def apply(data: dict[str, Any], change: str) -> None:
    """Apply one `stage.field=VALUE` to config data in place. Errors leave VALUE out: it may hold a password.

    Another `head.method` keeps of the section what all methods have; the rest were settings of the method before it.
    """
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
        new = yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError) as error:
        problem = yaml_problem(error)
        raise ConfigError(
            f"--set {field}: the value is not plain YAML: {problem}", next=Set("clusters.k", 20)
        ) from None
    if _discriminates(field.strip()):
        section = PipelineConfig.model_fields[names[0]]
        if new != at.get(names[-1], getattr(section.default, names[-1])):
            models = members(PipelineConfig, names[0]).values()
            data[names[0]] = at = {name: at[name] for name in at if all(name in settable(model) for model in models)}
    at[names[-1]] = new


def _discriminates(field: str) -> bool:
    """Whether a field, as "section.field", says which model its section has."""
    section, _, name = field.partition(".")
    return section in PipelineConfig.model_fields and PipelineConfig.model_fields[section].discriminator == name


def yaml_problem(error: Exception) -> str:
    """Where a YAML text is wrong, on one line and without quoting it: it may hold a password."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "it holds characters that YAML cannot"
    if isinstance(error, yaml.constructor.ConstructorError):
        return f"{where}: a tag or key that plain YAML does not have"
    quotes_nothing = isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError)
    return f"{where}: {error.problem}" if quotes_nothing else where  # type: ignore[attr-defined]


def validate(data: dict[str, Any], source: str = "config") -> PipelineConfig:
    """A PipelineConfig from plain data, paths made absolute; ConfigError that names every wrong field."""
    try:
        config = PipelineConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            f"{source}: {problems(error, PipelineConfig)}", next=(Command("params"), " explains every field")
        ) from None
    weights = config.features.weights
    if weights not in ("hub", "packaged"):
        weights = _absolute("features.weights", weights)
    annotation = config.classes.annotation
    if annotation not in (NONE, NEWEST) and not annotation.isdecimal():
        annotation = _absolute("classes.annotation", annotation)
    dataset = {"root": _absolute("dataset.root", config.dataset.root)}
    if isinstance(sizes := config.dataset.pixel_size, str):
        dataset["pixel_size"] = _absolute("dataset.pixel_size", sizes)
    return config.model_copy(
        update={
            "store": _absolute("store", config.store),
            "dataset": config.dataset.model_copy(update=dataset),
            "features": config.features.model_copy(update={"weights": weights}),
            "classes": config.classes.model_copy(update={"annotation": annotation}),
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
    names = list(PipelineConfig.model_fields)
    if section is not None and section not in names:
        raise ConfigError(f"{section}: no such section", next=f"one of {', '.join(names)}")
    sections = (as_yaml(PipelineConfig, [name]) for name in ([section] if section else names))
    return "\n\n".join("\n".join(lines) for lines in sections if lines) or f"# {section} has no fields"
