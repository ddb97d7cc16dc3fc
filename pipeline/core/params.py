"""Params: frozen pydantic models whose hashed fields name an artifact.

A field is one of
- plain: part of the fingerprint;
- `location(...)`: where something lies (a folder, a file); never hashed, because only content counts;
- `borrowed("stage.field")`: hashed here, but written once, in another section of the config;
- `derived(...)`: hashed, and filled in when a run is planned (a digest of weights, say).
"""

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


def location(default: Any = ...) -> Any:
    """A field that says where something lies and never enters a fingerprint."""
    return Field(default, json_schema_extra={"role": "location"})


def borrowed(path: str) -> Any:
    """A field that takes its value from `path` ("stage.field") of the config and is hashed here too."""
    return Field(None, json_schema_extra={"role": "borrowed", "path": path})


def derived() -> Any:
    """A field that planning fills in; a config cannot set it."""
    return Field(None, json_schema_extra={"role": "derived"})


def role(model: type[BaseModel], field: str) -> str:
    """'plain', 'location', 'borrowed' or 'derived'."""
    extra = model.model_fields[field].json_schema_extra
    return str(extra["role"]) if isinstance(extra, dict) and "role" in extra else "plain"


def written_as(stage: str, model: type[BaseModel], field: str) -> str:
    """Where a config says what a hashed field is: "stage.field", or the place that it is borrowed from."""
    if field in model.model_fields and role(model, field) == "borrowed":
        return str(model.model_fields[field].json_schema_extra["path"])  # type: ignore[index]
    return f"{stage}.{field}"


def settable(model: type[BaseModel]) -> list[str]:
    """The fields that a config may set."""
    return [name for name in model.model_fields if role(model, name) in ("plain", "location")]


def resolve(section: Params, config: BaseModel, **found: Any) -> Params:
    """`section` with its borrowed fields read from `config` and its derived fields taken from `found`."""
    update = dict(found)
    for name, field in type(section).model_fields.items():
        if role(type(section), name) == "borrowed":
            value: Any = config
            for step in str(field.json_schema_extra["path"]).split("."):  # type: ignore[index]
                value = getattr(value, step)
            update[name] = value
    return section.model_copy(update=update)


def hashed(params: Params) -> dict[str, Any]:
    """The JSON-ready fields that decide an artifact's values, defaults included."""
    keep = {name for name in type(params).model_fields if role(type(params), name) != "location"}
    return params.model_dump(mode="json", include=keep)
