// The list of classes and groups at the side of every view.
import { fill, h, key, percent, plural, refill, shareOf } from "./dom.js";
import { examples, patch, wantExamples } from "./examples.js";
import { askMerge, askName } from "./dialogs.js";
import { go } from "./route.js";
import { nothingSaid, state } from "./state.js";

const STRIP = 4;
const OF_PATCHES = "Of the patches of all images. Reports count the pixels of the images that have masks.";

export function swatch(unit, { large = false } = {}) {
  const input = h("input", {
    type: "color",
    value: unit.color,
    tabIndex: -1,
    disabled: !state.writable,
    "aria-label": `Colour of ${unit.name}`,
    title: state.writable ? "Change the colour" : "",
    onchange: () => state.colour(state.byKey.get(unit.key) ?? unit, input.value),
    onclick: (event) => event.stopPropagation(),
  });
  return h("span", { class: `swatch${large ? " large" : ""}`, style: { background: unit.color } }, input);
}

/** The key that gives a class: to the chosen group, or with a click where one teaches. */
function number(unit) {
  const at = state.said.classes.findIndex((one) => unit.kind === "class" && one.name === unit.name);
  return at >= 0 && at < 9 && state.writable ? key(at + 1) : null;
}

/** Where a group stands in `stegoflow groups` and in an annotation. */
export const idOf = (unit) => (unit.kind === "group" ? `id ${unit.nodes[0]} in annotation files` : unit.name);

function row(unit) {
  const places = examples(unit, STRIP);
  const strip = h("span", { class: "strip" }, places.map((place) => patch(place, 56, { tabIndex: -1 })));
  const points = unit.kind === "class" ? state.said.points.filter((one) => one.class === unit.name).length : 0;
  const notes = [unit.kind === "group" && unit.of !== null ? `part of ${unit.of}` : "", unit.nodes.length > 1 ? plural(unit.nodes.length, "group") : "", points ? plural(points, "point") : ""].filter(Boolean);
  const act = (label, hint, call) =>
    h("button", { class: "small", title: hint, onclick: (event) => (event.stopPropagation(), call()) }, label);
  return h(
    "li",
    {
      class: `unit ${unit.kind}${unit.key === state.selected ? " selected" : ""}`,
      role: "option",
      id: `unit-${unit.index}`,
      "aria-selected": String(unit.key === state.selected),
      "data-key": unit.key,
      draggable: state.writable,
      onclick: () => state.select(unit.key),
      ondblclick: () => go(`#/group/${encodeURIComponent(unit.key)}`),
      ondragstart: (event) => {
        event.dataTransfer.setData("text/plain", unit.key);
        event.dataTransfer.effectAllowed = "move";
      },
      ondragover: (event) => {
        event.preventDefault();
        event.currentTarget.classList.add("target");
      },
      ondragleave: (event) => event.currentTarget.classList.remove("target"),
      ondrop: (event) => {
        event.preventDefault();
        event.currentTarget.classList.remove("target");
        const dragged = state.byKey.get(event.dataTransfer.getData("text/plain"));
        if (dragged) state.merge(dragged, unit);
      },
    },
    h("div", { class: "line" }, swatch(unit), h("span", { class: "name", title: idOf(unit) }, unit.name), number(unit), notes.length ? h("span", { class: "note", title: notes.join(", ") }, notes.join(", ")) : null, h("span", { class: "share", title: unit.counted ? "Of the patches of 48 images at most, by names and points" : OF_PATCHES }, unit.nodes.length || unit.counted ? shareOf(unit) : "")),
    strip,
    h(
      "div",
      { class: "acts" },
      state.writable && act(unit.kind === "class" ? "Rename" : "Name", "N", () => askName(unit)),
      state.writable && act("Merge…", "M: into another group", () => askMerge(unit)),
      act("Split", "S: show its parts", () => state.split(unit)),
      h("button", { class: "small toggle", title: "A: this alone over the pictures", "aria-pressed": String(state.alone), onclick: (event) => (event.stopPropagation(), state.set("alone", !state.alone)) }, "Only"),
      act("Open", "Enter", () => go(`#/group/${encodeURIComponent(unit.key)}`)),
    ),
  );
}

/** The side of the page. */
export function sidebar() {
  const list = h("ul", { class: "units", role: "listbox", tabIndex: 0, "aria-label": "Classes and groups" });
  const slider = h("input", { type: "range", min: 1, max: state.tree.leaves, step: 1, "aria-label": "Number of groups", oninput: () => (count.textContent = slider.value), onchange: () => state.cut(Number(slider.value)) });
  const count = h("output", {});
  const hint = h("p", { class: "hint" });

  function render() {
    slider.value = String(state.view.n);
    count.textContent = String(state.view.n);
    const classes = state.units.filter((unit) => unit.kind === "class");
    const groups = state.units.filter((unit) => unit.kind === "group");
    const heading = (text, total) => h("li", { class: "heading", role: "presentation" }, h("span", {}, text), h("span", { class: "share" }, total));
    const named = classes.reduce((sum, unit) => sum + unit.share, 0);
    refill(
      list,
      classes.length ? heading(plural(classes.length, "class", "classes"), named ? percent(named) : "") : null,
      classes.map(row),
      groups.length ? heading(classes.length ? plural(groups.length, "group", "groups") + " without a name" : plural(groups.length, "group"), classes.length ? "" : "of all patches") : null,
      groups.map(row),
    );
    fill(hint, nothingSaid() && state.writable ? ["Choose a group and press ", key("N"), " to name it."] : "");
    wantExamples(state.units);
    reveal();
  }

  function reveal() {
    for (const element of list.querySelectorAll(".unit")) {
      const mine = element.dataset.key === state.selected;
      element.classList.toggle("selected", mine);
      element.setAttribute("aria-selected", String(mine));
      if (mine) {
        element.scrollIntoView({ block: "nearest" });
        list.setAttribute("aria-activedescendant", element.id);
      }
    }
  }

  state.on("change", render);
  state.on("examples", render);
  state.on("look", () => list.querySelectorAll(".toggle").forEach((one) => one.setAttribute("aria-pressed", String(state.alone))));
  state.on("select", reveal);
  render();
  return h(
    "aside",
    { class: "side" },
    h("div", { class: "cut" }, h("label", {}, h("span", {}, "Groups"), count), h("div", { class: "range" }, h("span", {}, "few"), slider, h("span", {}, "many"))),
    hint,
    list,
  );
}
