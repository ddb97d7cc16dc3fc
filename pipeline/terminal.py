"""Text of other people, such as file names, made fit to be printed on a terminal."""

import unicodedata

from pipeline.core.errors import StegoflowError, render


def visible(text: str) -> str:
    """Text as one line that a terminal shows and does not obey.

    Control characters (ESC, line breaks) and marks that hide or turn around what follows stand as escapes like `\\x1b`.
    """
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )


def render_error(error: StegoflowError) -> str:
    """An error as a shell shows it, on one line and one more for the next step: no name can look like a line."""
    return "\n  next: ".join(visible(part) for part in (error.message, render(error.next)) if part)
