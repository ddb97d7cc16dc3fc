"""The errors that a user sees as a sentence instead of a traceback.

StegoflowError                  what is wrong, and the next step                                      exit status 1
├── ConfigError                 a config, an option or an input cannot be used as given               exit status 2
│   ├── NotFoundError           a run, name, artifact, store or image that does not exist             exit status 2
│   └── ConflictError           somebody else wrote a version meanwhile; both are kept                exit status 2
├── StageError                  a stage could not be completed; what it had finished is kept          exit status 1
├── DamageError                 the store does not hold what was written; trying again will not help  exit status 1
└── StoreError (also OSError)   a store could not be read or written; trying again may help           exit status 1

The next step is a sentence, `Set` or `Command`, or a tuple of these that is read as one sentence.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Set:
    """The next step is another value of a config field."""

    field: str
    """"stage.field"."""
    value: Any
    """The value, or what stands for it in capitals (`FILE`, `K`)."""

    @property
    def _change(self) -> str:
        return f"{self.field}={self.value if isinstance(self.value, str) else json.dumps(self.value)}"

    def __str__(self) -> str:
        return f"--set {shlex.quote(self._change)}"

    @property
    def python(self) -> str:
        return f"load(…, set={[self._change]})"


@dataclass(frozen=True, init=False)
class Command:
    """The next step is a command of the program: Command("retract", "1f3a", downstream=True, store="./store")."""

    words: tuple[str, ...]

    def __init__(self, name: str, *args: str, **options: str | bool) -> None:
        given = [[f"--{option}"] if value is True else [f"--{option}", str(value)] for option, value in options.items()]
        object.__setattr__(self, "words", ("stegoflow", name, *args, *(word for words in given for word in words)))

    def __str__(self) -> str:
        return shlex.join(self.words)


Step = str | Set | Command


def render(next: Step | tuple[Step, ...], *, python: bool = False) -> str:
    """A next step as a user types it in a shell, or in Python."""
    pieces = next if isinstance(next, tuple) else (next,)
    return "".join(piece.python if python and isinstance(piece, Set) else str(piece) for piece in pieces)


class StegoflowError(Exception):
    """The root of the tree above."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, next: Step | tuple[Step, ...] = "") -> None:
        super().__init__(message)
        self.message = message
        self.next = next
        self.stage: str | None = None
        """The stage that raised it, where a session ran one."""

    def __reduce__(self) -> tuple[Any, ...]:  # keywords must survive the way back from a worker process
        return _rebuild, (type(self), self.message, self.__dict__)

    def __str__(self) -> str:
        return f"{self.message}\n  next: {render(self.next, python=True)}" if self.next else self.message


class ConfigError(StegoflowError):
    """A config, an option or an input cannot be used as given."""

    exit_status = 2


class NotFoundError(ConfigError):
    """A run, name, artifact, store or image that does not exist."""


class ConflictError(ConfigError):
    """Somebody else wrote a version meanwhile; both are kept."""

    def __init__(self, message: str, *, next: Step | tuple[Step, ...] = "", stored: int = 0, other: int = 0) -> None:
        super().__init__(message, next=next)
        self.stored = stored
        """The number that the version got."""
        self.other = other
        """The number of the newest version before it, which it was not made from."""


class StageError(StegoflowError):
    """A stage could not be completed; what it had finished is kept."""


class DamageError(StegoflowError):
    """The store does not hold what was written: a flipped byte, a lost file. Trying again will not help."""


class StoreError(StegoflowError, OSError):
    """A store could not be read or written: which one, what, how many bytes. Trying again may help."""


def _rebuild(kind: type[StegoflowError], message: str, facts: dict[str, Any]) -> Any:
    error = kind(message)
    error.__dict__.update(facts)
    return error
