"""Params: frozen pydantic models whose hashed fields name an artifact.

A field is one of
- plain: part of the fingerprint; a model of its own (a nested section) is looked into;
- `location(...)`: where something lies (a folder, a file); never hashed, because only content counts;
- `borrowed("stage.field")`: hashed here, but written once, in another section of the config;
- `derived(...)`: hashed, and filled in when a run is planned (a digest of weights, say);
- `variant("method", ...)`: a nested section, hashed only where the field `method` beside it has the section's name.
"""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Params(BaseModel):
    """Base of every config section: frozen, unknown fields refused, attribute docstrings are the descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float, int | None):
            raise ValueError("expected a number, not true or false")
        return value

    def packages(self) -> dict[str, str]:
        """The optional packages that these values need: import name → the setting that asks for it."""
        return {}


def location(default: Any = ...) -> Any:
    """A field that says where something lies and never enters a fingerprint."""
    return Field(default, json_schema_extra={"role": "location"})


def borrowed(path: str) -> Any:
    """A field that takes its value from `path` ("stage.field") of the config and is hashed here too."""
    return Field(None, json_schema_extra={"role": "borrowed", "path": path})


def derived() -> Any:
    """A field that planning fills in; a config cannot set it."""
    return Field(None, json_schema_extra={"role": "derived"})


def variant(by: str, default: Params) -> Any:
    """A nested section that is hashed only where the field `by` beside it holds this field's name."""
    return Field(default, json_schema_extra={"role": "variant", "by": by})


def role(model: type[BaseModel], field: str) -> str:
    """'plain', 'location', 'borrowed', 'derived' or 'variant'."""
    return str(_facts(model, field).get("role", "plain"))


def _facts(model: type[BaseModel], field: str) -> dict[str, Any]:
    extra = model.model_fields[field].json_schema_extra
    return extra if isinstance(extra, dict) else {}


def lender(model: type[BaseModel], field: str) -> str:
    """Where a config sets a borrowed field: "stage.field"."""
    return str(_facts(model, field)["path"])


def chooser(model: type[BaseModel], field: str) -> str:
    """The field beside a variant that decides whether it counts."""
    return str(_facts(model, field)["by"])


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
            return lender(at, name)
        at = nested(at, name)
    return f"{stage}.{field}"


def settable(model: type[BaseModel]) -> list[str]:
    """The fields that a config may set."""
    return [name for name in model.model_fields if role(model, name) in ("plain", "location", "variant")]


def settings(params: Params) -> dict[str, Any]:
    """What a config would say to mean these params, JSON-ready: every field that it may set, with its value."""
    return _dump(params, settable(type(params)), settings)


def _dump(params: Params, names: list[str], inner: Callable[[Params], dict[str, Any]]) -> dict[str, Any]:
    """Some fields as JSON-ready data; `inner` makes that of nested sections."""
    sections = {name: value for name in names if isinstance(value := getattr(params, name), Params)}
    plain = params.model_dump(mode="json", include=set(names) - set(sections))
    return {name: inner(sections[name]) if name in sections else plain[name] for name in names}


def resolve(section: Params, config: BaseModel, **found: Any) -> Params:
    """`section` with its borrowed fields, those of nested sections too, read from `config` and its derived fields
    taken from `found`."""
    update = dict(found)
    model = type(section)
    for name in model.model_fields:
        if role(model, name) == "borrowed":
            value: Any = config
            for step in lender(model, name).split("."):
                value = getattr(value, step)
            update[name] = value
        elif isinstance(inner := getattr(section, name), Params):
            update[name] = resolve(inner, config)
    return section.model_copy(update=update)


def hashed(params: Params) -> dict[str, Any]:
    """The JSON-ready fields that decide an artifact's values, defaults included; of variants, the chosen one."""
    model = type(params)

    def counts(name: str) -> bool:
        kind = role(model, name)
        return kind != "location" and (kind != "variant" or getattr(params, chooser(model, name)) == name)

    return _dump(params, [name for name in model.model_fields if counts(name)], hashed)
