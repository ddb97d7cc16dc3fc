"""The methods of the `head` stage: settings in `settings.py`, the network and loss of each in a file of its own."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.heads.interface import Method
    from pipeline.heads.settings import MethodParams


def network(params: MethodParams) -> type[Method]:
    """The class that a method's settings name. It is imported here, and torch with it."""
    found: type[Method] = pkgutil.resolve_name(params.network)
    return found
