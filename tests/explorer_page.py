"""What tests do on the explorer's page: its list, its canvas, and waiting until something is so."""

import time


def unit(page, place: int = 0):
    """A class or group of the list."""
    return page.locator(".unit").nth(place)


def name(page, text: str, place: int = 0) -> None:
    unit(page, place).click(position={"x": 60, "y": 12})
    page.keyboard.press("n")
    page.locator("dialog input").fill(text)
    page.keyboard.press("Enter")


def until(page, expression: str, seconds: float = 8) -> None:
    """Wait until an expression is true. (Playwright's own way of waiting evaluates text, which the page forbids.)"""
    limit = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < limit, expression
        time.sleep(0.02)


def saved(page) -> None:
    """Wait until the page says that everything is stored."""
    until(page, "document.querySelector('.saved').textContent.startsWith('Saved')")


def listed(page) -> list[str]:
    return page.locator(".unit .line .name").all_text_contents()


def pixel(page, x: float, y: float) -> list[int]:
    """The colour of the image view's canvas at a share of its width and height."""
    return page.evaluate(
        """([x, y]) => { const c = document.querySelector('canvas.picture');
        return [...c.getContext('2d').getImageData(Math.floor(x * c.width), Math.floor(y * c.height), 1, 1).data] }""",
        [x, y],
    )
