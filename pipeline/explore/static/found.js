// The most similar patches of the corpus: several ticked at once, and said what they are.
import { hasPoint } from "./annotation.js";
import { askClass } from "./dialogs.js";
import { h, plural, refill } from "./dom.js";
import { patch } from "./examples.js";
import { inkOn } from "./paint.js";
import { state } from "./state.js";

/** A button for each class, with its key; `chosen` is the one that counts now. */
export function classChips({ label, chosen = null, give, add }) {
  const chip = (one, at) => {
    const on = one.name === chosen;
    const look = on ? { background: one.color, color: inkOn(one.color), borderColor: one.color } : {};
    const role = chosen === null ? {} : { role: "radio", "aria-checked": String(on) };
    return h("button", { class: "chip", ...role, style: look, onclick: () => give(one.name) },
      h("span", { class: "swatch", style: { background: one.color } }), h("span", { class: "name" }, one.name), at < 9 ? h("kbd", {}, at + 1) : null);
  };
  return h("div", { class: "chips", role: chosen === null ? "group" : "radiogroup", "aria-label": label },
    state.said.classes.map(chip), state.writable && h("button", { class: "chip add", onclick: add }, "+ class"));
}

/** The results of a search: {element, show(found), give(name), render}. */
export function similar() {
  const element = h("div", { class: "similar" });
  const ticked = new Set();
  let found = [];
  let last = 0;

  const point = (one) => ({ split: one.split, image: one.id, y: one.py, x: one.px });

  function give(name) {
    if (!ticked.size) return state.tell("notice", "Tick the patches first that are one thing.");
    const points = [...ticked].sort((a, b) => a - b).map((at) => ({ ...point(found[at]), class: name }));
    ticked.clear();
    state.points(points);
    state.tell("notice", `${plural(points.length, "patch", "patches")} of ${name}. Undo takes them back.`);
  }

  function tick(at, on, upTo) {
    for (let one = upTo ? Math.min(last, at) : at; one <= (upTo ? Math.max(last, at) : at); one++) on ? ticked.add(one) : ticked.delete(one);
    last = at;
    render();
    element.querySelectorAll(".result input")[at]?.focus();
  }

  function all(on) {
    found.forEach((_, at) => (on ? ticked.add(at) : ticked.delete(at)));
    render();
  }

  function result(one, at) {
    const said = hasPoint(state.said, point(one));
    const color = said && state.byKey.get(`c:${said.class}`)?.color;
    const box = state.writable && h("input", { type: "checkbox", checked: ticked.has(at), "aria-label": `Tick the patch of ${one.split}/${one.id}`, onclick: (event) => tick(at, event.target.checked, event.shiftKey) });
    return h("span", { class: `result${ticked.has(at) ? " ticked" : ""}` },
      patch(one, 66, { share: 0.5, title: `${one.split}/${one.id}: ${one.score.toFixed(2)}${said ? `, ${said.class}` : ""}` }), box,
      h("span", { class: "muted" }, color && h("span", { class: "swatch", style: { background: color } }), one.score.toFixed(2)));
  }

  function render() {
    refill(element,
      h("h3", {}, `${found.length} most similar, at most one an image`),
      state.writable && h("div", { class: "row ticks" }, h("span", { class: "muted" }, ticked.size ? `${ticked.size} ticked: say what` : "Tick those that are one thing"), h("span", { class: "grow" }),
        h("button", { class: "small", onclick: () => all(true) }, "All"), ticked.size > 0 && h("button", { class: "small", onclick: () => all(false) }, "None")),
      ticked.size > 0 && classChips({ label: "What the ticked patches are", give, add: () => askClass((text) => state.newClass(text) && give(state.chosen)) }),
      h("div", { class: "results" }, found.map(result)));
  }

  function show(list) {
    found = list;
    ticked.clear();
    last = 0;
    render();
  }

  return { element, show, give, render };
}
