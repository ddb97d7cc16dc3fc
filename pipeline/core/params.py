"""Params: frozen pydantic models whose hashed fields name an artifact.

A field is one of
- plain: part of the fingerprint; a model of its own (a nested section) is looked into;
- `unhashed(...)`: left out of the fingerprint, such as where a file lies, because only its content counts;
- `later()`: plain, and hashed only where it is set: a field that came when there were artifacts;
- `suggested("stage")`: plain; where a config leaves it None, the artifact of that stage holds the value;
- `borrowed("stage.field")`: hashed here, but written once, in another section of the config;
- `borrowed("stage.field", optional=True)`: the same, and hashed only where it is set: a field that came later;
- `derived(resolver)`: hashed, and computed from its section when a run is planned (a digest of weights, say).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError


class Params(BaseModel):
    """Base of every config section: frozen, unknown fields refused, attribute docstrings are the descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, data: Any) -> Any:
        numbers = [name for name, field in cls.model_fields.items() if field.annotation in (int, float, int | None)]
        wrong = [name for name in numbers if isinstance(data, dict) and isinstance(data.get(name), bool)]
        if wrong:
            kind = PydanticCustomError("number", "expected a number, not true or false")
            found = [InitErrorDetails(type=kind, loc=(name,), input=data[name]) for name in wrong]
            raise ValidationError.from_exception_data(cls.__name__, found)
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema of what a config may say here, for forms and for whoever checks a config before it is run."""
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        fields = {name: schema["properties"][name] for name in settable(cls)}
        for field in fields.values():
            if "oneOf" in field:  # a section that does not say which of its models it means may fit several
                field["anyOf"] = field.pop("oneOf")
                del field["discriminator"]
            if isinstance(field.get("default"), dict):  # the fields have their own
                del field["default"]
        schema["properties"] = fields
        return reference

    def packages(self) -> dict[str, str]:
        """The optional packages that these values need: import name → the setting that asks for it."""
        return {}


@dataclass(frozen=True)
class _Facts:
    """What a field is, beside its type. Callable, since pydantic writes all else into JSON schemas."""

    role: str = "plain"
    path: str = ""
    optional: bool = False
    resolver: Callable[[Any], Any] | None = None
    suggested_by: str | None = None

    def __call__(self, schema: dict[str, Any]) -> None:
        pass


def unhashed(default: Any = ..., **limits: Any) -> Any:
    """A field that never enters a fingerprint. `limits` are those of pydantic (`ge`, `le`)."""
    return Field(default, json_schema_extra=_Facts("unhashed"), **limits)


def later(**limits: Any) -> Any:
    """A plain field, None by default, that is hashed where it is set: artifacts keep the names that they had before
    there was such a field."""
    return Field(None, json_schema_extra=_Facts(optional=True), **limits)


def suggested(by: str, **limits: Any) -> Any:
    """A field, None by default, whose value the artifact of stage `by` holds where a config gives none."""
    return Field(None, json_schema_extra=_Facts(suggested_by=by), **limits)


def borrowed(path: str, *, optional: bool = False) -> Any:
    """A field that takes its value from `path` ("stage.field") of the config and is hashed here too; an `optional` one
    where it is not None, so that artifacts keep the names that they had before there was such a field."""
    return Field(None, json_schema_extra=_Facts("borrowed", path, optional))


def derived(resolver: Callable[[Any], Any]) -> Any:
    """A field that `resolver(section)` computes when a run is planned; a config cannot set it."""
    return Field(None, json_schema_extra=_Facts("derived", resolver=resolver))


def role(model: type[BaseModel], field: str) -> str:
    """'plain', 'unhashed', 'borrowed' or 'derived'."""
    return _facts(model, field).role


def _facts(model: type[BaseModel], field: str) -> _Facts:
    extra = model.model_fields[field].json_schema_extra
    return extra if isinstance(extra, _Facts) else _Facts()


def source_of(model: type[BaseModel], field: str) -> str:
    """Where a config sets a borrowed field: "stage.field"."""
    return _facts(model, field).path


def borrowed_from(model: type[BaseModel], path: str) -> list[str]:
    """The fields of a model, those of nested sections left out, that are borrowed from `path`."""
    return [name for name in model.model_fields if role(model, name) == "borrowed" and source_of(model, name) == path]


def discriminator(model: type[BaseModel]) -> str | None:
    """The field that says which model of a union this one is: a Literal of one value."""
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
            return name
    return None


def members(model: type[BaseModel], field: str) -> dict[str, type[Params]]:
    """The models of a section that is a discriminated union, by the value of the discriminator; else none."""
    info = model.model_fields[field]
    tag = info.discriminator
    return {one.model_fields[tag].default: one for one in get_args(info.annotation)} if isinstance(tag, str) else {}


def nested(model: type[BaseModel], field: str) -> type[Params] | None:
    """The model of a nested section; None for a field that holds a value."""
    inner = model.model_fields[field].annotation
    return inner if isinstance(inner, type) and issubclass(inner, Params) else None


def written_as(stage: str, model: type[BaseModel], field: str) -> str:
    """Where a config says what a hashed field is: "stage.field", or the place that it is borrowed from. A field of a
    nested section is named with dots."""
    at: type[BaseModel] | None = model
    for name in field.split("."):
        if at is None or name not in at.model_fields:
            break
        if role(at, name) == "borrowed":
            return source_of(at, name)
        at = nested(at, name)
    return f"{stage}.{field}"


def settable(model: type[BaseModel]) -> list[str]:
    """The fields that a config may set."""
    return [name for name in model.model_fields if role(model, name) in ("plain", "unhashed")]


def settings(params: Params) -> dict[str, Any]:
    """What a config would say to mean these params, JSON-ready: every field that it may set, with its value."""
    return _dump(params, settable(type(params)), settings)


def _dump(params: Params, names: list[str], inner: Callable[[Params], dict[str, Any]]) -> dict[str, Any]:
    """Some fields as JSON-ready data; `inner` makes that of nested sections."""
    sections = {name: value for name in names if isinstance(value := getattr(params, name), Params)}
    plain = params.model_dump(mode="json", include=set(names) - set(sections))
    return {name: inner(sections[name]) if name in sections else plain[name] for name in names}


def resolve(section: Params, config: BaseModel) -> Params:
    """`section` with its borrowed fields read from `config` and its derived ones computed, in nested sections too."""
    update: dict[str, Any] = {}
    model = type(section)
    for name in model.model_fields:
        kind = role(model, name)
        if kind == "borrowed":
            owner, field = _owner(config, source_of(model, name))
            update[name] = getattr(owner, field)
        elif kind == "derived":
            update[name] = _facts(model, name).resolver(section)  # type: ignore[misc]  # a derived field has one
        elif isinstance(inner := getattr(section, name), Params):
            update[name] = resolve(inner, config)
    return section.model_copy(update=update)


def _owner(config: BaseModel, path: str) -> tuple[Any, str]:
    """The section of a config that holds the field at `path` ("stage.field"), and the field's name."""
    *steps, field = path.split(".")
    owner: Any = config
    for step in steps:
        owner = getattr(owner, step)
    return owner, field


def suggestions(params: Params, config: BaseModel) -> dict[str, bool]:
    """{stage: whether a value is missing} for each stage that may suggest a value of these resolved params, which may
    be borrowed."""
    found: dict[str, bool] = {}
    model = type(params)
    for name in model.model_fields:
        value = getattr(params, name)
        if isinstance(value, Params):
            missing = suggestions(value, config)
        else:
            owner, field = _owner(config, source_of(model, name)) if role(model, name) == "borrowed" else (params, name)
            by = _facts(type(owner), field).suggested_by
            missing = {by: value is None} if by else {}
        for stage in missing:
            found[stage] = found.get(stage, False) or missing[stage]
    return found


def hashed(params: Params) -> dict[str, Any]:
    """The JSON-ready fields that decide an artifact's values, defaults included."""
    model = type(params)
    names = [name for name in model.model_fields if role(model, name) != "unhashed"]
    there = [name for name in names if not _facts(model, name).optional or getattr(params, name) is not None]
    return _dump(params, there, hashed)
