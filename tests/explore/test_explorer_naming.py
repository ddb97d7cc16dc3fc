"""Naming, merging and splitting groups on the explorer's page, done in a browser."""

import time

from explorer_page import listed, name, pixel, saved, unit, until

HOSTILE = "<img src=x onerror=\"document.title='run'\">"


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


def test_a_group_splits_along_the_tree_and_undo_takes_it_back(open_page, said, explored):
    page = open_page()
    before = listed(page)
    unit(page, 0).click(position={"x": 60, "y": 12})
    page.keyboard.press("s")
    until(page, "document.querySelectorAll('.unit').length === 5")
    name(page, "core", next(i for i, one in enumerate(listed(page)) if one not in before))
    saved(page)
    (node,) = said().groups
    assert node not in explored.clusters.cut().nodes
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
    assert notes == [f"part of {before[1]}"] * len(parts)
    assert parts[0].startswith(before[1] + "a")
    assert parts[-1].startswith(before[1] + "b")
    assert sorted(before) == [f"group {number}" for number in range(4)], "as in reports and tables"


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
