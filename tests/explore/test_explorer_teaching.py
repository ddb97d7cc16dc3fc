"""Points and similar patches on the explorer's page, done in a browser."""

import numpy as np
from explorer_page import pixel, saved, until


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


def test_a_patch_that_nobody_can_tell_is_skipped(open_page, said, explored):
    explored.name(int(explored.groups()[0]["id"]), "thing")
    page = open_page()
    seen = set()
    for _ in range(4):
        page.keyboard.press("w") if not seen else page.get_by_text("Skip: I cannot say").click()
        until(page, f"/^#.image.[0-9]+.[0-9]+.[0-9]+$/.test(location.hash) && !{list(seen)}.includes(location.hash)")
        seen.add(page.evaluate("location.hash"))
        page.get_by_text("Skip: I cannot say").wait_for()
    assert len(seen) == 4
    page.wait_for_timeout(300)
    page.keyboard.press("1")
    page.keyboard.press("Space")
    page.get_by_text("Where next?").wait_for()
    assert page.get_by_text("Skip: I cannot say").count() == 0
    saved(page)
    assert len(said().points) == 1


def test_several_similar_patches_are_given_a_class_at_once(open_page, said):
    page = open_page("#/image/7")
    box = page.locator("canvas.picture").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.keyboard.press("f")
    page.wait_for_selector(".result")
    boxes = page.locator(".result input")
    boxes.nth(0).check()
    boxes.nth(3).click(modifiers=["Shift"])
    until(page, "document.querySelectorAll('.result.ticked').length === 4")
    boxes.nth(1).click()
    page.locator(".similar .chip.add").click()
    page.locator("dialog input").fill("thing")
    page.keyboard.press("Enter")
    saved(page)
    found = [link.get_attribute("href").split("/")[2:] for link in page.locator(".result a").all()]
    assert len(said().points) == 3
    assert {one.class_ for one in said().points} == {"thing"}
    assert page.locator(".result .swatch").count() == 3
    first = said().points[0]
    assert (first.split, first.image, found[0][0]) == ("val", "01.png", "7")
    page.keyboard.press("Control+z")
    until(page, "document.querySelectorAll('.result .swatch').length === 0")
    boxes.nth(5).focus()
    page.keyboard.press("Space")
    until(page, "document.querySelectorAll('.result.ticked').length === 1")
    assert boxes.nth(5).evaluate("box => box === document.activeElement")
    page.keyboard.press("1")
    saved(page)
    assert len(said().points) == 1


def test_points_are_of_the_patches_that_were_found(open_page, said, explored, explorer):
    row, y, x = 7, 3, 2
    for one in explorer.service.find(row, y, x, 10):
        rows, columns = explorer.service.corpus.plane(one["row"])["shape"]
        height, width = explorer.service.corpus.images.size(one["row"])
        assert (one["py"] * rows // height, one["px"] * columns // width) == (one["y"], one["x"])


def test_shares_of_classes_count_points(open_page, said):
    page = open_page("#/image/7")
    page.keyboard.press("t")
    for text, at in (("dark", (0.3, 0.4)), ("light", (0.7, 0.6))):
        page.get_by_text("+ class").click()
        page.locator("dialog input").fill(text)
        page.keyboard.press("Enter")
        box = page.locator("canvas.picture").bounding_box()
        page.mouse.click(box["x"] + at[0] * box["width"], box["y"] + at[1] * box["height"])
    until(page, "document.querySelectorAll('.unit.class .share').length === 2")
    until(page, "[...document.querySelectorAll('.unit.class .share')].every(one => one.textContent.startsWith('≈'))")
    shares = [float(one.split()[1]) for one in page.locator(".unit.class .share").all_text_contents()]
    assert 98 <= sum(shares) <= 102, "every patch has one of the two classes"
