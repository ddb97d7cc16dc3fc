"""The configs that come with stegoflow: one to start from (`folder`), the demo's, and those of published data sets."""

from importlib.resources import files
from pathlib import Path

from pipeline.core.errors import ConfigError


def names() -> list[str]:
    """Names of all configs that come with stegoflow, sorted."""
    return sorted(file.name.removesuffix(".yaml") for file in files(__name__).iterdir() if file.name.endswith(".yaml"))


def path(name: str) -> Path:
    """The YAML file of one of them. ConfigError where there is none of that name."""
    if name not in names():
        raise ConfigError(f"no config named {name!r} comes with stegoflow", next=f"one of {', '.join(names())}")
    return Path(str(files(__name__) / f"{name}.yaml"))
