"""The errors that a user sees as a sentence instead of a traceback."""


class ConfigError(Exception):
    """A config or an input cannot be used as given (exit status 2).

    `next` is the command, or the edit, that mends it.
    """

    def __init__(self, message: str, *, next: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next = next

    def __reduce__(self):  # the keyword must survive the way back from a worker process
        return _rebuild, (type(self), self.message, self.next)

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.next}" if self.next else self.message


class StageError(ConfigError):
    """A stage could not be completed (exit status 1); what it had finished is kept."""


class DamageError(StageError):
    """Something in the store is not what was written: a flipped byte, a lost file. Trying again will not help."""


def _rebuild(kind: type[ConfigError], message: str, next: str) -> ConfigError:
    return kind(message, next=next)
