"""Text of other people, such as file names, made fit to be printed on a terminal."""

import unicodedata

from pipeline.core.errors import ConfigError


def visible(text: str) -> str:
    """Text as one line that a terminal shows and does not obey.

    Control characters (ESC, line breaks) and marks that hide or turn around what follows stand as escapes like `\\x1b`.
    """
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )


def told(error: ConfigError) -> str:
    """What `str(error)` says, made visible: no name in it can look like a line of its own."""
    return "\n  next: ".join(visible(part) for part in (error.message, error.next) if part)
