"""The explorer's page as a person finds it: overview, pictures, keys."""

from explorer_page import listed, unit, until

from pipeline.explore.server import Explorer
from pipeline.explore.service import Service


def test_the_overview_shows_groups_with_examples_and_all_images(open_page):
    page = open_page()
    assert len(listed(page)) == 4
    assert page.locator(".unit").first.locator(".patch").count() == 4
    assert page.locator(".tile").count() == 10
    assert "10 images" in page.locator(".bar").inner_text()
    page.locator("#search").fill("val/01")
    until(page, "document.querySelectorAll('.tile').length === 1")
    assert page.locator(".tile").get_attribute("title") == "val/01.png"


def test_the_picture_is_seen_without_groups_and_with_them_again(open_page):
    page = open_page("#/image/0")
    strength = "document.querySelector('.bar input[type=range]').value"
    until(page, f"{strength} === '0.5'")
    page.keyboard.press("p")
    assert page.evaluate(strength) == "0"
    page.keyboard.press("p")
    assert page.evaluate(strength) == "0.5"


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


def test_the_groups_that_were_opened_are_kept_for_the_next_server(explored, open_page, said):
    first = Explorer(explored.store, explored.record).start()
    try:
        first.service.corpus.indexing.wait()
        page = open_page(url=first.url)
        unit(page, 0).click(position={"x": 60, "y": 12})
        page.keyboard.press("s")
        until(page, "document.querySelectorAll('.unit').length === 5")
        shown = listed(page)
        page.wait_for_timeout(200)
        page.reload()
        page.wait_for_selector(".unit .patch")
        assert listed(page) == shown
    finally:
        first.close()
    view = Service(explored.store, explored.record).facts()["view"]
    assert (view["n"], len(view["open"])) == (4, 1)
    explored.store.put(f"cache/explore/{explored.record['stages']['clusters']}.json", b'{"n": 4, "open": [99]}')
    assert Service(explored.store, explored.record).facts()["view"] is None, "of another tree"


def test_a_group_has_its_colour_over_a_stained_picture(open_page):
    """Over a pink picture a half-covering colour is as far from pink as in the list: its hue is the list's."""
    page = open_page()
    hues = page.evaluate(
        """async () => {
        const { cover } = await import(new URL('static/paint.js', document.baseURI));
        const fill = (color) => { const c = new OffscreenCanvas(1, 1), g = c.getContext('2d');
          g.fillStyle = color; g.fillRect(0, 0, 1, 1); return c; };
        const hue = ([r, g, b]) => { const m = Math.max(r, g, b), d = m - Math.min(r, g, b);
          return 60 * (m === r ? ((g - b) / d + 6) % 6 : m === g ? (b - r) / d + 2 : (r - g) / d + 4); };
        return ['#0072b2', '#e69f00', '#009e73', '#cc79a7'].map(color => {
          const under = fill('#e08cc0'), context = under.getContext('2d');
          cover(context, fill(color), 0.5, 0, 0, 1, 1);
          const both = [under, fill(color)].map(one => one.getContext('2d').getImageData(0, 0, 1, 1).data);
          return both.map(([r, g, b]) => hue([r, g, b])); }); }"""
    )
    for seen, listed_as in hues:
        assert abs((seen - listed_as + 180) % 360 - 180) < 12, hues


def test_the_tab_key_leads_past_pictures_and_focus_stays_where_it_is(open_page):
    page = open_page()
    focused = "document.activeElement.textContent"
    page.locator(".side input[type=range]").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "units"
    said = []
    for _ in range(5):
        page.keyboard.press("Tab")
        said.append(page.evaluate(focused))
    assert said == ["Name", "Merge…", "Split", "Only", "Open"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "search"
    page.locator(".unit.selected button", has_text="Split").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.unit').length === 5")
    assert page.evaluate(focused) == "Split", "the list was made again"
    page.locator(".unit.selected button", has_text="Only").click()
    assert page.locator(".bar .toggle").get_attribute("aria-pressed") == "true"


def test_names_are_carried_on_by_commands_that_the_page_shows(open_page, explored):
    page = open_page()
    page.keyboard.press("e")
    shown = page.locator("dialog .file code").all_text_contents()
    assert shown == [
        "stegoflow run my.yaml --set classes.annotation=newest",
        f"stegoflow annotate OTHER-RUN --from {explored.id}",
    ]
