"""The explorer on a small run, in the system's Chromium: one server and one browser for all tests of a module."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from corpora import small

from pipeline import annotations
from pipeline.api import run
from pipeline.artifacts.annotation import Annotation
from pipeline.config import validate
from pipeline.explore.server import Explorer
from pipeline.results import Run

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory, corpus: Path, vit: Path) -> Run:
    """A run whose tree has twelve prototypes, 4 groups by default. Its annotation is what a test leaves."""
    sections: dict[str, Any] = {"clusters": {"k": 4, "prototypes": 12}, "masks": {"crf": False}}
    store = tmp_path_factory.mktemp("explored") / "store"
    return run(validate(small(corpus, store, vit, **sections)), until="masks")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser. Tests without it are skipped: they would say nothing."""
    if CHROMIUM is None:
        pytest.skip("the explorer's page is driven in Chromium, which is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def explorer(explored: Run) -> Iterator[Explorer]:
    """The server, its index complete."""
    found = Explorer(explored.store, explored.record).start()
    found.service.corpus.indexing.wait()
    yield found
    found.close()


@pytest.fixture
def said(explored: Run) -> Callable[[], Annotation]:
    """Nothing is said before a test, and nothing opened; called, this gives what the store holds."""
    explored.store.put(f"cache/explore/{explored.record['stages']['clusters']}.json", b"null")
    annotations.save(explored.store, explored.record, Annotation())

    def newest() -> Annotation:
        found = annotations.newest(explored.store, explored.record)
        assert found is not None
        return found[1]

    return newest


@pytest.fixture
def open_page(chromium: Any, explorer: Explorer, said: Any) -> Iterator[Callable[..., Any]]:
    """open_page("#/image/3"): a page of its own in the browser. Whatever it reports as an error fails the test."""
    contexts, errors = [], []

    def opened(hash: str = "#/", url: str | None = None, **options: Any) -> Any:
        explorer.service.view = None  # whatever another test has opened
        context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
        context.set_default_timeout(8000)
        contexts.append(context)
        page = context.new_page()
        page.errors = errors
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto((url or explorer.url) + hash)
        page.wait_for_selector("html[data-ready]", state="attached")
        page.wait_for_selector(".unit .patch")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
