"""What is said on the explorer's page is kept, and taken along."""

import json
import zipfile
from pathlib import Path

import numpy as np
from explorer_page import listed, name, saved, until
from PIL import Image

from pipeline.artifacts.annotation import parse
from pipeline.exporting import export


def test_what_was_said_is_taken_along(open_page, explored, said, tmp_path):
    page = open_page()
    name(page, "thing")
    saved(page)
    page.keyboard.press("e")
    page.locator('input[value="png"]').check()
    page.locator("dialog button.primary").click()
    page.wait_for_selector(".done")
    out = Path(page.locator(".copy code").first.inner_text())
    assert out.parent == explored.store.folder / "exports"
    (row,) = json.loads((out / "classes.json").read_text())["classes"]
    assert (row["name"], row["color"]) == ("thing", said().colors[0])
    assert set(np.unique(np.asarray(Image.open(out / "val/01.png")))) <= {0, 255}
    assert len(list(out.rglob("*.png"))) == 10
    export(explored.store, explored.id, tmp_path / "newest", annotation="newest", format="png")
    (newest,) = json.loads((tmp_path / "newest/classes.json").read_text())["classes"]
    assert newest["name"] == "thing"
    command = page.locator(".copy code").nth(1).inner_text()
    assert command.startswith(f"stegoflow export {explored.id} --annotation ")
    with page.expect_download() as download:
        page.get_by_text("Download as one zip").click()
    assert "val/01.png" in zipfile.ZipFile(download.value.path()).namelist()


def test_the_annotation_is_downloaded_as_a_file_that_annotate_reads(open_page, explored, said):
    page = open_page()
    name(page, 'a "b": \\ {c}', 1)
    saved(page)
    page.keyboard.press("e")
    with page.expect_download() as download:
        page.get_by_text("Download annotation.yaml").click()
    assert parse(Path(download.value.path()).read_text(), "file") == said()


def test_two_pages_at_once_lose_nothing_and_the_second_is_told(open_page, said):
    first, second = open_page(), open_page()
    name(first, "left", 0)
    saved(first)
    name(second, "right", 3)
    second.wait_for_selector(".notices p")
    assert "both changes are kept" in second.locator(".notices").inner_text()
    saved(second)
    assert sorted(said().groups.values()) == ["left", "right"]
    assert sorted(listed(second)[:2]) == ["left", "right"]
    until(first, "document.querySelectorAll('.unit.class').length === 2")


def test_edits_in_quick_succession_lose_nothing_of_another_page(open_page, said):
    first, second = open_page(), open_page()
    name(first, "left", 0)
    saved(first)
    second.evaluate(
        """async () => {
        const { state } = await import(new URL('static/state.js', document.baseURI));
        const groups = state.units.slice(1);
        groups.forEach((unit, at) => state.name(unit, `right ${at}`));
        while (state.saving !== 'saved') await new Promise(done => setTimeout(done, 10)); }"""
    )
    assert sorted(said().groups.values()) == ["left", "right 0", "right 1", "right 2"]


def test_what_could_not_be_saved_is_saved_later(open_page, said):
    page = open_page()
    page.route("**/api/annotation", lambda route: route.abort())
    name(page, "kept")
    page.get_by_text("Not saved", exact=True).wait_for()
    page.unroute("**/api/annotation")
    saved(page)
    assert said().names == ["kept"]
    page.errors.clear()


def test_a_newer_version_from_elsewhere_appears(open_page, explored):
    page = open_page()
    explored.name(int(explored.groups()[0]["id"]), "from Python")
    page.wait_for_selector(".unit.class", timeout=8000)
    assert listed(page)[0] == "from Python"
