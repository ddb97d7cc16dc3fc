// One image: the canvas, what is under the pointer, the most similar patches, and teaching by clicks.
import { Picture } from "./canvas.js";
import { askClass, askName } from "./dialogs.js";
import { fill, h, key, percent, plural, refill } from "./dom.js";
import { patch } from "./examples.js";
import { images } from "./images.js";
import { classChips, similar } from "./found.js";
import { go, route } from "./route.js";
import { source } from "./source.js";
import { state } from "./state.js";

/** The view of one image: {element, enter, leave, keys}. */
export function imageView() {
  const title = h("span", { class: "title" });
  const under = h("div", { class: "under" });
  const results = similar();
  const panel = h("div", { class: "panel" });
  let mode = "look";
  let found = null;
  let wanted = null;
  let proposed = null; // the address of the patch that was proposed last

  const picture = new Picture({
    hover: (place) => describe(place),
    click: (place) => (mode === "teach" ? teach(place) : pin(place)),
  });
  picture.opened = () => {
    if (wanted) pin(picture.middle(clamped(wanted)), { quiet: true });
    wanted = null;
  };

  const clamped = ({ y, x }) => ({ y: Math.min(picture.tokens.rows - 1, Math.max(0, y)), x: Math.min(picture.tokens.columns - 1, Math.max(0, x)) });

  function describe(place) {
    const unit = place && picture.unitAt(place);
    fill(under, unit ? [h("span", { class: "swatch", style: { background: unit.color } }), h("span", { class: "name" }, unit.name), h("span", { class: "muted" }, "under the pointer")] : h("span", { class: "muted" }, "Point at the image."));
  }

  function pin(place, { quiet = false } = {}) {
    picture.pinned = place;
    picture.later();
    const unit = picture.unitAt(place);
    if (unit && !quiet) state.select(unit.key);
    found = null;
    render();
  }

  async function find() {
    const place = picture.hover ?? picture.pinned;
    if (!place) return state.tell("notice", "Point at a patch first, or click it.");
    picture.pinned = place;
    picture.later();
    const image = picture.image;
    found = "asked";
    render();
    try {
      found = await source.find(image.row, place.y, place.x);
      results.show(found);
    } catch (error) {
      found = null;
      state.tell("notice", error.message);
    }
    if (picture.image === image) render();
  }

  // Teaching ---------------------------------------------------------------------------------------------------------------

  function teach(place) {
    if (!state.writable) return state.tell("notice", "This page is read-only.");
    const name = state.chosen ?? state.said.classes[0]?.name;
    if (!name) return addClass(() => teach(place));
    state.chosen = name;
    picture.pinned = null;
    if (route().place && location.hash === proposed) proposed = null;
    state.points([{ ...picture.point(place), class: name }]);
  }

  /** A key of a class: what a click gives, or what the ticked patches are. */
  function give(name) {
    if (!name) return;
    if (mode === "teach") state.set("chosen", name);
    else if (found) results.give(name);
  }

  function addClass(then = () => {}) {
    if (!state.writable) return state.tell("notice", "This page is read-only.");
    askClass((text) => state.newClass(text) && then());
  }

  async function next() {
    if (!source.next) return;
    try {
      const place = (await source.next(state.said)).place;
      if (!place) return state.tell("notice", "There is nothing to propose yet: name a group or click a patch first.");
      setMode("teach");
      proposed = `#/image/${place.row}/${place.y}/${place.x}`;
      go(proposed);
      picture.canvas.focus(); // Space clicks the patch, and not the button
    } catch (error) {
      state.tell("notice", error.message);
    }
  }

  /** Whether the patch that was proposed is on the screen and has no class yet. */
  const asked = () => proposed !== null && location.hash === proposed;

  async function toPoint(point) {
    let row = images.rowOf(point.split, point.image);
    if (row === null) {
      const listed = await source.images(0, 500, `${point.split}/${point.image}`);
      row = listed.images.find(([, split, id]) => split === point.split && id === point.image)?.[0] ?? null;
    }
    if (row !== null) go(`#/image/${row}`);
  }

  function pointRow(point) {
    const unit = state.byKey.get(`c:${point.class}`);
    const here = point.image === picture.image?.id && point.split === picture.image?.split;
    return h(
      "li",
      {},
      h("span", { class: "swatch", style: { background: unit?.color } }),
      h("button", { class: "link", title: `${point.split}/${point.image}, y ${point.y}, x ${point.x}`, onclick: () => toPoint(point) }, h("span", { class: "name" }, point.class), " ", h("span", { class: "muted" }, here ? "in this image" : point.image)),
      state.writable && h("button", { class: "quiet", "aria-label": `Remove the point of ${point.class}`, onclick: () => state.unpoint(point) }, "✕"),
    );
  }

  function teaching() {
    const { classes, points } = state.said;
    const chosen = state.chosen ?? classes[0]?.name;
    const here = points.filter((one) => one.image === picture.image?.id && one.split === picture.image?.split);
    const others = points.filter((one) => !here.includes(one));
    return [
      h("p", { class: "muted" }, classes.length === 1 && points.length ? "With a single class everything is that class: add another, such as background." : "Choose a class, then click patches that belong to it. All images follow."),
      classChips({ label: "Class that a click gives", chosen, give: (name) => (state.set("chosen", name), picture.canvas.focus()), add: () => addClass() }),
      source.next && (asked() ? h("div", { class: "asked" }, patch({ ...route().place, ...picture.image }, 112, { share: 0.4 }), h("p", {}, "The framed patch would teach most. Choose its class and press ", key("Space"), ", or click it."), h("button", { class: "wide", onclick: next }, "Skip: I cannot say ", key("W"))) : h("button", { class: "wide", onclick: next }, "Where next? ", key("W"))),
      h("h3", {}, points.length ? plural(points.length, "point") : "No points yet"),
      h("ul", { class: "points" }, [...here.reverse(), ...others.reverse()].slice(0, 300).map(pointRow)),
    ];
  }

  function looking() {
    const place = picture.pinned;
    const unit = place && picture.unitAt(place);
    if (!place) return [h("p", { class: "muted" }, "Brighter is more alike: move over the image to compare a patch with all others. Click one to keep it, or press ", key("F"), " to find it in all images.")];
    return [
      h("div", { class: "chosen" },
        patch({ ...place, row: picture.image.row, split: picture.image.split, id: picture.image.id }, 84, { share: 0.3 }),
        h("div", {},
          h("div", { class: "line" }, unit && h("span", { class: "swatch", style: { background: unit.color } }), h("b", {}, unit ? unit.name : "…")),
          h("p", { class: "muted" }, unit ? `${percent(unit.share)} of all patches` : ""),
          h("div", { class: "row" }, unit && state.writable && h("button", { class: "small", onclick: () => askName(unit) }, unit.kind === "class" ? "Rename" : "Name"), unit && h("button", { class: "small", onclick: () => go(`#/group/${encodeURIComponent(unit.key)}`) }, "Open")))),
      h("button", { class: "primary wide", id: "find", onclick: find }, "Find similar patches ", key("F")),
      found === "asked" ? h("p", { class: "muted" }, "Looking…") : found ? results.element : null,
    ];
  }

  function render() {
    refill(
      panel,
      h("div", { class: "tabs", role: "tablist" },
        [["look", "Look"], ["teach", "Teach"]].map(([name, label]) => h("button", { role: "tab", "aria-selected": String(mode === name), onclick: () => setMode(name) }, label, " ", name === "teach" ? key("T") : null))),
      under,
      mode === "teach" ? teaching() : looking(),
    );
    describe(picture.hover);
    element.classList.toggle("teaching", mode === "teach");
  }

  function setMode(name) {
    mode = name;
    if (mode === "teach") state.set("heat", false);
    else state.set("heat", true);
    render();
  }

  // The bar ----------------------------------------------------------------------------------------------------------------

  const opacity = h("input", { type: "range", min: 0, max: 1, step: 0.05, "aria-label": "How strongly groups cover the picture", oninput: () => state.set("opacity", Number(opacity.value)) });
  const toggle = (name, label, hint) => h("button", { class: "toggle", "data-name": name, title: hint, onclick: () => state.set(name, !state[name]) }, label);
  const toggles = [toggle("heat", "Similarity", "H: on pointing, show how alike other patches are"), toggle("outlines", "Outlines", "L"), toggle("alone", "Chosen group only", "A")];
  const step = (by) => {
    const row = route().row + by;
    if (row >= 0 && row < state.facts.count) go(`#/image/${row}`);
  };
  const element = h(
    "main",
    { class: "image" },
    h("div", { class: "bar" },
      h("button", { class: "quiet", onclick: () => go("#/"), title: "Esc" }, "← All images"), title,
      h("button", { class: "quiet", "aria-label": "Image before", title: "←", onclick: () => step(-1) }, "‹"), h("button", { class: "quiet", "aria-label": "Image after", title: "→", onclick: () => step(1) }, "›"),
      h("span", { class: "grow" }), toggles, h("label", { class: "inline" }, "groups", opacity)),
    h("div", { class: "stage" },
      h("div", { class: "holder" }, picture.canvas,
        h("div", { class: "zoom" }, h("button", { class: "quiet", "aria-label": "Closer", title: "+", onclick: () => picture.zoom(1.5) }, "+"), h("button", { class: "quiet", "aria-label": "Farther", title: "−", onclick: () => picture.zoom(1 / 1.5) }, "−"), h("button", { class: "quiet", title: "0", onclick: () => picture.fit() }, "Fit"))),
      panel),
  );

  function look() {
    opacity.value = String(state.opacity);
    for (const button of toggles) button.setAttribute("aria-pressed", String(state[button.dataset.name]));
    picture.repaint();
    if (element.isConnected && mode === "teach") render();
  }

  function changed() {
    if (!element.isConnected) return;
    results.render();
    picture.classify();
    images.classify();
    picture.repaint();
    render();
  }

  state.on("look", look);
  state.on("select", () => element.isConnected && picture.repaint());
  state.on("change", changed);
  images.addEventListener("planes", () => element.isConnected && (picture.repaint(), describe(picture.hover)));

  /** The patch cursor of the keyboard. */
  function move(dy, dx) {
    if (!picture.tokens) return;
    const from = picture.hover ?? picture.pinned ?? { y: picture.tokens.rows >> 1, x: picture.tokens.columns >> 1 };
    picture.hover = picture.middle(clamped({ y: from.y + dy, x: from.x + dx }));
    describe(picture.hover);
    picture.later();
  }

  return {
    element,
    async enter({ row, place }) {
      const image = await images.of(row);
      if (!image) return state.tell("notice", `There is no image ${row}.`);
      fill(title, h("b", {}, image.id), h("span", { class: "muted" }, ` ${image.split}`));
      title.title = `${image.split}/${image.id}, ${image.width} × ${image.height} pixels`;
      wanted = place;
      found = null;
      if (picture.image === image && picture.tokens) picture.opened();
      else await picture.open(image);
      look();
      render();
    },
    leave: () => {},
    setMode,
    next,
    keys: {
      Escape: () => (picture.pinned && mode === "look" ? ((picture.pinned = null), (found = null), picture.later(), render()) : go("#/")),
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      "Shift+ArrowLeft": () => move(0, -1),
      "Shift+ArrowRight": () => move(0, 1),
      "Shift+ArrowUp": () => move(-1, 0),
      "Shift+ArrowDown": () => move(1, 0),
      " ": () => {
        const place = picture.hover ?? picture.pinned;
        if (place) picture.call.click(place);
      },
      f: find,
      t: () => setMode(mode === "teach" ? "look" : "teach"),
      h: () => state.set("heat", !state.heat),
      l: () => state.set("outlines", !state.outlines),
      "+": () => picture.zoom(1.5),
      "=": () => picture.zoom(1.5),
      "-": () => picture.zoom(1 / 1.5),
      0: () => picture.fit(),
      ...Object.fromEntries([...Array(9).keys()].map((at) => [String(at + 1), () => give(state.said.classes[at]?.name)])),
    },
  };
}
