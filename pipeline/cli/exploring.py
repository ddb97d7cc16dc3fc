"""The command that opens the explorer."""

from pathlib import Path
from typing import Annotated

from pipeline.cli.options import Flag, StoreURL, open_existing
from pipeline.terminal import visible


def explore(
    run: str = "latest",
    /,
    *,
    read_only: Annotated[bool, Flag] = False,
    port: int = 0,
    browser: bool = True,
    out: str | None = None,
    images: int = 60,
    store: StoreURL = None,
) -> int:
    """Say what the groups mean, in a page on this machine.

    Name, merge and split groups, click patches, find similar ones, and take the result along. Ends with Ctrl-C.

        stegoflow explore latest

        stegoflow explore latest --out page.html --images 60

    Parameters
    ----------
    run
        A run's id or name.
    read_only
        Change nothing: neither in the store nor on the page.
    port
        On 127.0.0.1; 0 means any that is free.
    browser
        Open the page in the browser.
    out
        Write the page as one file in place of serving it: naming works in it, and its edits can be downloaded.
    images
        With --out: so many images, evenly spaced.
    """
    from pipeline.core.runs import find_run

    opened = open_existing(store)
    record = find_run(opened, run, "masks")
    if out is not None:
        from pipeline.cli.tables import waiting
        from pipeline.explore.single import write_page

        with waiting("writing the page"):
            facts = write_page(opened, record, Path(out), images)
        print(visible(f"{facts['images']} images, {facts['bytes'] / 1e6:.1f} MB in {out}"))
        return 0
    from pipeline.cli.looking import has_display
    from pipeline.explore.server import Explorer

    page = Explorer(opened, record, port=port, read_only=read_only).start()
    try:
        print(f"{page.url}\nonly this address opens the page; Ctrl-C ends it", flush=True)
        if browser and has_display():
            import webbrowser

            webbrowser.open(page.url)
        page.wait()
    finally:
        page.close()
    return 0
