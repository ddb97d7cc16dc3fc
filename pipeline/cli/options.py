"""Options that several commands share, and what they lead to: a store, a JSON object."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from pipeline.writers import FORMATS

if TYPE_CHECKING:
    from pipeline.core.store import Store

StoreURL = Annotated[
    str | None, Parameter(name="--store", help="Folder or object-store URL; default: the config's, or ./store")
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object on stdout and nothing else")]
Sets = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        negative="",
        help="stage.field=VALUE, VALUE as in YAML; repeatable: --set clusters.k=20 --set masks.crf=false",
    ),
]
Flag = Parameter(negative="")
As = Annotated[
    str | None,
    Parameter(
        name="--as",
        help="Format, and what opens it: "
        + "; ".join(f"{name} ({row.opens_in})" for name, row in FORMATS.items())
        + ". Default: that of the images; of photographs palette",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class Logs:
    """What is written to standard error."""

    log_level: Literal["debug", "info", "warning", "error"] | None = None
    """Default: warning on a terminal, which shows bars; info elsewhere."""
    log_format: Literal["plain", "json"] = "plain"
    """Lines, or one JSON object a line; json shows no bars."""


def open_existing(store: str | None) -> "Store":
    """The store of a command that reads one: ConfigError where there is none."""
    from pipeline.core.store import open_existing as opened

    return opened(store or "./store")


def print_json(value: Any) -> int:
    """Print one JSON object; exit status 0."""
    print(json.dumps(value, ensure_ascii=False), flush=True)
    return 0
