"""The explorer's page as one file: no server, no network; what is said in it comes back as a file."""

import re
from pathlib import Path

import pytest

from pipeline import annotations
from pipeline.artifacts.annotation import Annotation, check, parse
from pipeline.artifacts.images import Images
from pipeline.explore.single import bundle, single_file, write_page


@pytest.fixture(scope="module")
def file(explored, tmp_path_factory) -> Path:
    annotations.save(explored.store, explored.record, Annotation())  # whatever other tests have left
    path = tmp_path_factory.mktemp("single") / "page.html"
    facts = write_page(explored.store, explored.record, path, 6)
    assert facts["images"] == 6
    assert facts["bytes"] == path.stat().st_size < 2**20
    return path


def test_naming_and_search_work_without_a_server(file, explored, chromium, open_page):
    page = open_page(url=file.as_uri(), offline=True)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    assert page.locator(".tile").count() == 6
    page.keyboard.press("n")
    page.locator("dialog input").fill("thing")
    page.keyboard.press("Enter")
    page.wait_for_selector(".unit.class")
    page.goto(file.as_uri() + "#/image/2")
    page.wait_for_selector("canvas.picture")
    page.wait_for_timeout(200)
    box = page.locator("canvas.picture").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator("#find").click()
    page.wait_for_selector(".result")
    assert page.locator(".result").count() == 6
    page.keyboard.press("e")
    with page.expect_download() as download:
        page.get_by_text("Download annotation.yaml").click()
    said = parse(Path(download.value.path()).read_text(), "file")
    assert (said.names, list(said.groups.values())) == (["thing"], ["thing"])
    clusters = explored.artifact("clusters")
    check(said, explored.clusters.tree, Images(explored.artifact("dataset")), clusters.fingerprint)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_content_cannot_leave_its_element():
    page = single_file({"name": "</script><script>alert(1)</script><!--"})
    assert page.count("</script>") == 2
    assert "<!--" not in page


def test_modules_become_one_script_in_the_order_of_their_imports():
    script = bundle("single")
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    assert script.index("const module_dom") < script.index("const module_groups") < script.index("const module_main")
