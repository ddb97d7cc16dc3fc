"""Text for a terminal: of other people, such as file names, made fit to be printed; numbers, made fit to be read."""

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


def duration(seconds: float) -> str:
    """A time that a person can take in: 0.4 s, 12 s, 3.4 h, 2.0 years."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48), ("days", 86400, 730)):
        if seconds < most * length:
            return f"{seconds / length:.{0 if unit == 's' else 1}f} {unit}"
    return f"{seconds / 86400 / 365.25:,.0f} years"


def size(bytes: float) -> str:
    """Bytes as kB, MB, GB, TB, PB, of 1000 each."""
    value, units = bytes / 1e3, ["kB", "MB", "GB", "TB"]
    while value >= 1000 and units[1:]:
        value, units = value / 1000, units[1:]
    return f"{value:,.1f} {units[0]}" if value < 1000 else f"{value / 1000:,.1f} PB"
