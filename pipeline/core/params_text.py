"""Params in words: every field as YAML with comments, and what is wrong with data that does not fit."""

import difflib
import textwrap

import yaml
from pydantic import ValidationError

from pipeline.core.params import Params, discriminator, members, nested, settable


def as_yaml(model: type[Params], names: list[str], indent: str = "") -> list[str]:
    """Lines of YAML: the fields `names` of a model, with the fields of sections; of a union, its default model's."""
    lines = []
    for name in names:
        union = members(model, name)
        inner = type(model.model_fields[name].default) if union else nested(model, name)
        if inner is None:
            lines += _field(model, name, indent)
        elif settable(inner):
            lines += [f"{indent}{name}:", *as_yaml(inner, settable(inner), indent + "  ")]
            lines += _others(list(union.values()), inner, indent + "  ")
    return lines


def _others(union: list[type[Params]], shown: type[Params], indent: str) -> list[str]:
    """The models of a union but the one shown, as comments: each with the fields that not all of them have."""
    lines = []
    for model in union:
        if model is not shown:
            tag = discriminator(model)
            names = [name for name in settable(model) if name == tag or any(name not in m.model_fields for m in union)]
            lines += ["", *(f"{indent}# {line}".rstrip() for line in as_yaml(model, names))]
    return lines


def _field(model: type[Params], name: str, indent: str) -> list[str]:
    field = model.model_fields[name]
    default = field.get_default(call_default_factory=True)
    value = (
        "   # must be set" if field.is_required() else yaml.safe_dump(default, default_flow_style=True).split("\n")[0]
    )
    text = model.__doc__ if name == discriminator(model) else field.description
    lines = textwrap.wrap(" ".join((text or "").split()), 100)
    return [*(f"{indent}# {line}" for line in lines), f"{indent}{name}: {value}"]


def problems(error: ValidationError, root: type[Params]) -> str:
    """What is wrong with data of the model `root`, field by field, on one line. Values are left out, as they may hold a
    password."""
    lines = []
    for problem in error.errors():
        field, model, union = _place(problem["loc"], root, {})
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = _unknown(field, model, union)
        if problem["type"] == "union_tag_invalid":
            field = f"{field}.{problem['ctx']['discriminator'].strip(chr(39))}"
            message = f"must be one of {problem['ctx']['expected_tags']}"
        if problem["type"] == "missing":
            message = "must be set"
        lines.append(f"{field}: {message}" if field else message)
    return "; ".join(lines)


def _place(
    location: tuple[str | int, ...], model: type[Params], union: dict[str, type[Params]]
) -> tuple[str, type[Params], dict[str, type[Params]]]:
    """Where an error lies below a model, which is one of a union or of none: the field as a config writes it, the model
    that it belongs to, and the union of that."""
    names = [str(step) for step in location]
    if names and names[0] in model.model_fields:
        inner, choices, rest = nested(model, names[0]), members(model, names[0]), location[1:]
        if choices and rest:  # pydantic names the model after the field
            inner, rest = choices[names[1]], rest[1:]
        if inner and rest:
            field, model, union = _place(rest, inner, choices)
            return f"{names[0]}.{field}", model, union
    return ".".join(names), model, union


def _unknown(field: str, model: type[Params], union: dict[str, type[Params]]) -> str:
    """What to do about a field that its model does not have."""
    at, _, name = field.rpartition(".")
    having = [tag for tag, other in union.items() if name in settable(other)]
    if having:
        tag = str(discriminator(model))
        mine = model.model_fields[tag].default
        way = f"--set {at}.{tag}={having[0]} or remove it"
        return f"not a setting of {tag} {mine}; it is one of {', '.join(having)}: {way}"
    close = difflib.get_close_matches(name, settable(model), 1)
    hint = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(settable(model)) or 'none'}"
    return f"unknown field; {hint}"
