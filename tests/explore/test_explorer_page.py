"""What a person does on the explorer's page, done in a browser."""

import json
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.artifacts.annotation import parse
from pipeline.exporting import export

HOSTILE = "<img src=x onerror=\"document.title='run'\">"


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


def test_the_overview_shows_groups_with_examples_and_all_images(open_page):
    page = open_page()
    assert len(listed(page)) == 4
    assert page.locator(".unit").first.locator(".patch").count() == 4
    assert page.locator(".tile").count() == 10
    assert "10 images" in page.locator(".bar").inner_text()
    page.locator("#search").fill("val/01")
    until(page, "document.querySelectorAll('.tile').length === 1")
    assert page.locator(".tile").get_attribute("title") == "val/01.png"


def test_a_group_is_named_and_the_same_name_makes_two_groups_one_class(open_page, said):
    page = open_page()
    name(page, "  cell  ", 3)
    saved(page)
    (node, held), *rest = said().groups.items()
    assert (held, rest) == ("cell", [])
    assert listed(page)[0] == "cell"
    assert unit(page, 1).get_attribute("aria-selected") == "true", "the next group is selected, to be named"
    name(page, "cell", 1)
    saved(page)
    assert len(said().groups) == 2
    assert said().names == ["cell"]
    assert len(listed(page)) == 3
    page.reload()
    page.wait_for_selector(".unit.class")
    assert listed(page)[0] == "cell"
    assert str(node) in {str(at) for at in said().groups}


def test_groups_merge_by_key_and_by_dragging(open_page, said):
    page = open_page()
    second, third = listed(page)[1:3]
    unit(page, 0).click(position={"x": 60, "y": 12})
    page.keyboard.press("m")
    page.locator("dialog input").fill(second)
    page.keyboard.press("Enter")
    saved(page)
    assert said().names == [second]
    assert len(said().groups) == 2
    page.locator(".unit", has_text=third).drag_to(unit(page, 0))
    until(page, "document.querySelectorAll('.unit').length === 2")
    saved(page)
    assert len(said().groups) == 3


def test_a_group_splits_along_the_tree_and_undo_takes_it_back(open_page, said):
    page = open_page()
    before = listed(page)
    unit(page, 0).click(position={"x": 60, "y": 12})
    page.keyboard.press("s")
    until(page, "document.querySelectorAll('.unit').length === 5")
    name(page, "core", next(i for i, one in enumerate(listed(page)) if one not in before))
    saved(page)
    (node,) = said().groups
    assert node not in {int(one.split()[1]) for one in before}
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    until(page, "document.querySelectorAll('.unit').length === 4")
    saved(page)
    assert listed(page) == before
    assert said().groups == {}
    for _ in range(2):
        page.keyboard.press("Control+Shift+z")
    page.wait_for_selector(".unit.class")
    saved(page)
    assert said().groups == {node: "core"}


def test_parts_of_a_split_group_stand_together_in_its_place(open_page):
    page = open_page()
    before = listed(page)
    unit(page, 1).click(position={"x": 60, "y": 12})
    page.keyboard.press("x")
    until(page, "document.querySelectorAll('.unit').length > 4")
    after = listed(page)
    parts = [one for one in after if one not in before]
    assert len(parts) > 1
    assert after == [before[0], *parts, *before[2:]]
    notes = page.locator(".unit .note").all_text_contents()
    assert notes == [f"part of {before[1].removeprefix('group ')}"] * len(parts)


def test_a_group_is_given_a_class_that_is_there_without_typing(open_page, said):
    page = open_page()
    name(page, "cell")
    saved(page)
    page.keyboard.press("1")
    until(page, "document.querySelectorAll('.unit').length === 3")
    page.keyboard.press("9")
    page.keyboard.press("n")
    assert page.locator("dialog .seen .patch").count() > 0
    page.locator("dialog .chip", has_text="cell").click()
    until(page, "document.querySelectorAll('.unit').length === 2")
    saved(page)
    assert (said().names, len(said().groups)) == (["cell"], 3)


def test_the_picture_is_seen_without_groups_and_with_them_again(open_page):
    page = open_page("#/image/0")
    strength = "document.querySelector('.bar input[type=range]').value"
    until(page, f"{strength} === '0.5'")
    page.keyboard.press("p")
    assert page.evaluate(strength) == "0"
    page.keyboard.press("p")
    assert page.evaluate(strength) == "0.5"


def test_a_class_loses_its_name_and_has_another_colour(open_page, said):
    page = open_page()
    name(page, "rim")
    page.evaluate(
        """() => { const c = document.querySelector('.unit.class input[type=color]');
        c.value = '#123456'; c.dispatchEvent(new Event('change')) }"""
    )
    saved(page)
    assert said().colors == ["#123456"]
    unit(page, 0).click(position={"x": 60, "y": 12})
    page.keyboard.press("Delete")
    until(page, "!document.querySelector('.unit.class')")
    saved(page)
    assert (said().names, said().groups) == ([], {})


def test_masks_on_the_screen_follow_a_name_at_once(open_page):
    page = open_page("#/image/7")
    page.locator(".image .bar input[type=range]").fill("1")
    places = [(0.5, 0.5), (0.3, 0.4), (0.7, 0.6)]
    page.wait_for_timeout(600)
    colours = {
        element.get_attribute("data-key"): element.locator(".swatch").first.evaluate("e => e.style.background")
        for element in page.locator(".unit").all()
    }
    shown = {f"rgb({r}, {g}, {b})" for r, g, b, _ in (pixel(page, *place) for place in places)}
    assert shown <= set(colours.values())
    key = next(key for key, colour in colours.items() if colour in shown)
    page.locator(f'.unit[data-key="{key}"]').click(position={"x": 60, "y": 12})
    page.evaluate(
        """() => { const c = document.querySelector('.unit.selected input[type=color]');
        c.value = '#fedcba'; c.dispatchEvent(new Event('change')) }"""
    )
    page.wait_for_timeout(100)
    assert [254, 220, 186, 255] in [pixel(page, *place) for place in places]


def test_clicks_teach_and_each_point_can_be_removed(open_page, said):
    page = open_page("#/image/7")
    page.keyboard.press("t")
    for text, at in (("dark", (0.3, 0.4)), ("light", (0.7, 0.6))):
        page.get_by_text("+ class").click()
        page.locator("dialog input").fill(text)
        page.keyboard.press("Enter")
        box = page.locator("canvas.picture").bounding_box()
        page.mouse.click(box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"])
    until(page, "document.querySelectorAll('.points li').length === 2")
    saved(page)
    first, second = said().points
    assert (first.class_, second.class_) == ("dark", "light")
    assert (first.split, first.image) == ("val", "01.png")
    page.locator(".image .bar input[type=range]").fill("1")
    page.wait_for_timeout(800)
    classes = [bytes.fromhex(colour[1:]) for colour in said().colors]
    page.mouse.move(5, 5)
    shown = {bytes(pixel(page, x, y)[:3]) for x in np.linspace(0.4, 0.6, 6) for y in np.linspace(0.4, 0.6, 6)}
    assert shown & set(classes)
    page.get_by_label("Remove the point of dark").click()
    until(page, "document.querySelectorAll('.points li').length === 1")
    saved(page)
    assert [one.class_ for one in said().points] == ["light"]


def test_the_most_similar_patches_lead_to_their_places(open_page):
    page = open_page("#/image/7")
    box = page.locator("canvas.picture").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator("#find").click()
    page.wait_for_selector(".result")
    links = [link.get_attribute("href") for link in page.locator(".result a").all()]
    assert len(links) == len({link.split("/")[2] for link in links}) == 10
    assert links[0].split("/")[2] == "7"
    page.locator(".result a").nth(1).click()
    until(page, f"location.hash === {links[1]!r}")
    page.wait_for_selector(".chosen")


def test_a_group_seen_closer_can_be_merged_with_its_neighbour(open_page, said):
    page = open_page()
    unit(page, 0).dblclick(position={"x": 60, "y": 12})
    page.wait_for_selector(".group .gallery .patch")
    text = page.locator("main.group").inner_text()
    for heading in ("Typical", "Borderline", "Nearest groups", "Where it splits", "Images with most of it"):
        assert heading in text
    page.get_by_text("Same thing: merge").first.click()
    page.wait_for_selector(".unit.class")
    saved(page)
    assert len(said().groups) == 2
    page.get_by_text("Take it out").first.click()
    until(page, "document.querySelectorAll('.unit.group').length === 3")
    saved(page)
    assert len(said().groups) == 1


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


def test_a_hundred_thousand_images_are_scrolled_through(open_page):
    page = open_page()
    page.evaluate(
        """async () => {
        const [{ source }, { images }] = await Promise.all(
          ['source', 'images'].map(name => import(new URL(`static/${name}.js`, document.baseURI))));
        const few = (await source.images(0, 10, '')).images, all = [...Array(1e5).keys()].map(at => few[at % 10]);
        const some = (start, count) => all.slice(start, start + count);
        source.images = async (start, count) => ({ total: 1e5, images: some(start, count) });
        await images.search(''); }"""
    )
    assert "100,000 images" in page.locator(".bar").inner_text()
    for share in (0.5, 1):
        page.evaluate(f"() => {{ const g = document.querySelector('.grid'); g.scrollTop = {share} * g.scrollHeight }}")
        until(page, "document.querySelector('.grid').scrollTop > 100000")
        page.wait_for_timeout(200)
        assert 5 < page.locator(".tile").count() < 100
    last = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.tile')].map(t => t.getBoundingClientRect().bottom))"
    )
    assert last <= 800


def test_hostile_names_are_text(open_page, said):
    page = open_page()
    title = page.title()
    name(page, HOSTILE)
    saved(page)
    assert said().names == [HOSTILE]
    assert listed(page)[0] == HOSTILE
    unit(page, 0).click(position={"x": 60, "y": 12})
    page.keyboard.press("Enter")
    page.wait_for_selector(".group h1")
    assert page.locator(".group h1").inner_text() == HOSTILE
    page.keyboard.press("m")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    time.sleep(0.2)
    assert page.title() == title
    assert page.locator("img[src=x]").count() == 0


def test_keys_do_everything(open_page, said):
    page = open_page()
    page.keyboard.press("?")
    assert "undo" in page.locator("dialog").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    assert unit(page, 1).get_attribute("aria-selected") == "true"
    page.keyboard.press(".")
    until(page, "document.querySelectorAll('.unit').length === 5")
    page.keyboard.press(",")
    until(page, "document.querySelectorAll('.unit').length === 4")
    page.keyboard.press("x")
    until(page, "document.querySelectorAll('.unit').length > 4")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("i")
    until(page, "location.hash === '#/image/1'")
    page.keyboard.press("ArrowRight")
    until(page, "location.hash === '#/image/2'")
    page.wait_for_timeout(300)
    for key in ("Shift+ArrowLeft", "Space", "l", "h", "a", "[", "+", "0"):
        page.keyboard.press(key)
    page.wait_for_selector(".chosen")
    page.keyboard.press("f")
    page.wait_for_selector(".result")
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("d")
    assert page.evaluate("document.documentElement.dataset.theme") != theme
    page.keyboard.press("o")
    page.wait_for_selector(".overview")


def test_a_newer_version_from_elsewhere_appears(open_page, explored):
    page = open_page()
    explored.name(int(explored.groups()[0]["id"]), "from Python")
    page.wait_for_selector(".unit.class", timeout=8000)
    assert listed(page)[0] == "from Python"


def test_where_next_leads_to_a_patch_of_another_image(open_page, said):
    page = open_page("#/image/7")
    page.wait_for_timeout(200)
    page.keyboard.press("t")
    for text, at in (("dark", (0.3, 0.4)), ("light", (0.7, 0.6))):
        page.get_by_text("+ class").click()
        page.locator("dialog input").fill(text)
        page.keyboard.press("Enter")
        box = page.locator("canvas.picture").bounding_box()
        page.mouse.click(box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"])
    page.keyboard.press("w")
    until(page, "/^#.image.[0-9]+.[0-9]+.[0-9]+$/.test(location.hash)")
    assert not page.evaluate("location.hash").startswith("#/image/7/")
    until(page, "document.querySelector('[data-name=heat]').getAttribute('aria-pressed') === 'false'")
    page.wait_for_timeout(300)
    page.keyboard.press("1")
    page.keyboard.press("Space")
    until(page, "document.querySelectorAll('.points li').length === 3")
    saved(page)
    assert said().points[-1].class_ == "dark"
    assert "/".join([said().points[-1].split, said().points[-1].image]) in page.locator(".title").get_attribute("title")
    assert page.locator('[role=tab][aria-selected="true"]').inner_text().startswith("Teach")
