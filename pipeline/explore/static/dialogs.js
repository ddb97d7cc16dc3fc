// Small windows over the page: a name, a merge, the legend of keys, exports, notices.
import { fill, h, key, percent } from "./dom.js";
import { examples, patch } from "./examples.js";
import { KEYS } from "./keys.js";
import { route } from "./route.js";
import { source } from "./source.js";
import { state } from "./state.js";

/** A window with a title; `build(close)` gives what it holds. Escape and a click beside it close it. */
export function modal(title, build, { wide = false } = {}) {
  const dialog = h("dialog", { class: wide ? "wide" : "", "aria-label": title });
  const close = () => dialog.close();
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && close());
  fill(dialog, h("header", {}, h("h2", {}, title), h("button", { class: "quiet", "aria-label": "Close", onclick: close }, "✕")), build(close));
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A line of text to be typed, completed from what is there already. */
function ask(title, label, value, offered, done, button, { seen = [], known = [] } = {}) {
  const options = h("datalist", { id: "offered" }, offered.map((name) => h("option", { value: name })));
  const input = h("input", { type: "text", list: "offered", autofocus: true, value, maxLength: 200, autocomplete: "off", spellcheck: false, required: true, "aria-label": label });
  modal(title, (close) =>
    h(
      "form",
      {
        method: "dialog",
        onsubmit: (event) => {
          event.preventDefault();
          if (!input.value.trim()) return;
          close();
          done(input.value);
        },
      },
      seen.length ? h("div", { class: "seen", inert: true }, seen.map((place) => patch(place, 97))) : null,
      h("p", { class: "muted" }, label),
      input,
      options,
      known.length
        ? h("div", { class: "chips" }, known.map((one) => h("button", { type: "button", class: "chip", onclick: () => (close(), done(one.name)) }, h("span", { class: "swatch", style: { background: one.color } }), h("span", { class: "name" }, one.name))))
        : null,
      h("div", { class: "row end" }, h("button", { type: "button", class: "quiet", onclick: close }, "Cancel"), h("button", { class: "primary" }, button)),
    ),
  );
  input.select();
}

export function askName(unit) {
  if (!state.writable) return state.tell("notice", "This page is read-only.");
  const names = [...new Set([...state.said.classes.map((one) => one.name), ...(state.facts.scores?.classes ?? [])])];
  const known = unit.kind === "class" ? unit.name : "";
  ask(
    known ? `Another name for ${known}` : `What is ${unit.name}?`,
    "Two groups of the same name become one class.",
    known,
    names.filter((name) => name !== known),
    (name) => state.name(unit, name, route().kind !== "group"),
    known ? "Rename" : "Name it",
    { seen: examples(unit, 8), known: known ? [] : state.said.classes },
  );
}

export function askClass(done) {
  ask("A new class", "What do you want to find?", "", state.facts.scores?.classes ?? [], done, "Add");
}

export function askMerge(unit) {
  if (!state.writable) return state.tell("notice", "This page is read-only.");
  const others = state.units.filter((one) => one.key !== unit.key);
  modal(`Merge ${unit.name} into…`, (close) => {
    const list = h("ul", { class: "choices", role: "listbox" });
    const input = h("input", { type: "text", placeholder: "Type to find a class or group", "aria-label": "Find", autofocus: true, oninput: render, autocomplete: "off" });
    function render() {
      const wanted = input.value.trim().toLowerCase();
      const found = others.filter((one) => one.name.toLowerCase().includes(wanted)).slice(0, 60);
      const choose = (one) => (close(), state.merge(unit, one));
      fill(
        list,
        found.map((one) =>
          h("li", {}, h("button", { onclick: () => choose(one) }, h("span", { class: "swatch", style: { background: one.color } }), h("span", { class: "name" }, one.name), h("span", { class: "share" }, percent(one.share)))),
        ),
      );
    }
    input.addEventListener("keydown", (event) => event.key === "Enter" && list.querySelector("button")?.click());
    render();
    return [h("p", { class: "muted" }, "Or drag one onto the other in the list."), input, list];
  });
}

export function showKeys() {
  modal(
    "Keys",
    () =>
      h(
        "div",
        { class: "keys" },
        KEYS.map(([title, rows]) =>
          h("section", {}, h("h3", {}, title), h("dl", {}, rows.map(([names, said]) => [h("dt", {}, names.map((name, at) => [at ? " " : "", key(name)])), h("dd", {}, said)]))),
        ),
      ),
    { wide: true },
  );
}

/** A sentence at the foot of the page that goes by itself. */
export function notices() {
  const box = h("div", { class: "notices", role: "status", "aria-live": "polite" });
  state.on("notice", (text) => {
    const line = h("p", {}, h("span", {}, text), h("button", { class: "quiet", "aria-label": "Dismiss", onclick: () => line.remove() }, "✕"));
    box.append(line);
    while (box.children.length > 3) box.firstChild.remove();
    setTimeout(() => line.remove(), 4000 + 60 * text.length);
  });
  return box;
}

export function download(name, text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "text/yaml" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export const live = () => source.live;
