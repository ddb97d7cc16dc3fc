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
