// The frame of the page: its bar, its views, the keys, and what comes from the server by itself.
import { askMerge, askName, notices, showKeys } from "./dialogs.js";
import { debounced, fill, h } from "./dom.js";
import { forgetExamples, wantExamples } from "./examples.js";
import { groupView } from "./group.js";
import { sidebar } from "./groups.js";
import { images } from "./images.js";
import { overview } from "./overview.js";
import { go, route } from "./route.js";
import { source } from "./source.js";
import { state } from "./state.js";
import { takeAlong } from "./take.js";
import { imageView } from "./view.js";

const page = document.getElementById("page");
let views = {};
let shown = null;

function theme(wanted) {
  const dark = wanted === "dark" || (!wanted && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  return dark;
}

function otherTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  theme(next);
  try {
    localStorage.setItem("theme", next);
  } catch {
    // a page from a file may keep nothing
  }
}

/** The run's scores, where there are labels. They are of the run's own groups, whatever is said here. */
function scoreNote() {
  const { scores } = state.facts;
  if (!scores || scores.miou === null) return null;
  const percent = (value) => (value ?? null) === null ? "–" : value.toFixed(1);
  const hint = `Mean intersection over union with ${scores.images} label maps, of the run's ${state.facts.k} groups as they were found. k-means on tokens: ${percent(scores.baseline)}; with every label (linear probe): ${percent(scores.linear)}.`;
  return h("span", { class: "score muted", title: hint }, "groups as found: ", h("b", {}, `${percent(scores.miou)} mIoU`), ` · k-means ${percent(scores.baseline)} · probe ${percent(scores.linear)}`);
}

function bar() {
  const saved = h("span", { class: "saved", role: "status" });
  const progress = h("span", { class: "working" });
  const undo = h("button", { class: "quiet", title: "Ctrl Z", onclick: () => state.undo() }, "Undo");
  const redo = h("button", { class: "quiet", title: "Ctrl Shift Z", onclick: () => state.redo() }, "Redo");
  function render() {
    undo.disabled = !state.past.length;
    redo.disabled = !state.future.length;
    const words = { saved: state.version ? `Saved, version ${state.version}` : "", saving: "Saving…", failed: "Not saved" };
    saved.textContent = !state.writable ? "Read-only" : source.save ? words[state.saving] : state.past.length ? "Download to keep" : "";
    saved.classList.toggle("wrong", state.saving === "failed");
  }
  state.on("change", render);
  state.on("saving", render);
  state.on("progress", (found) => {
    const { done, total, error } = found.index;
    fill(progress, error ? ["No search: ", error] : done < total ? [h("progress", { max: total, value: done }), `Looking through ${total.toLocaleString("en")} images`] : null);
  });
  render();
  return h("header", { class: "top" },
    h("a", { class: "brand", href: "#/" }, h("span", { class: "mark" }, h("i", {}), h("i", {}), h("i", {}), h("i", {})), "stegoflow"),
    h("span", { class: "run", title: state.facts.run }, state.facts.data),
    scoreNote(),
    progress,
    h("span", { class: "grow" }),
    saved, undo, redo,
    h("button", { class: "primary", onclick: takeAlong }, source.export ? "Take along" : "Save edits"),
    h("button", { class: "quiet", title: "D", "aria-label": "Light or dark", onclick: otherTheme }, "◐"),
    h("button", { class: "quiet", title: "?", "aria-label": "Keys", onclick: showKeys }, "?"));
}

function arrive() {
  const to = route();
  const view = views[to.kind];
  if (shown && shown !== view) shown.leave();
  if (shown !== view) {
    page.querySelector("main")?.remove();
    page.append(view.element);
    shown = view;
  }
  Promise.resolve(view.enter(to)).catch((error) => state.tell("notice", error.message));
}

function choose(step) {
  const at = state.unit ? state.unit.index : 0;
  const next = state.units[Math.min(state.units.length - 1, Math.max(0, at + step))];
  if (next) state.select(next.key);
}

/** Call the chosen group what the so-manieth class is called. */
function call(at) {
  const known = state.said.classes[at];
  if (!known || state.unit?.kind !== "group") return;
  state.name(state.unit, known.name, route().kind !== "group");
}

const onUnit = (act) => () => state.unit && act(state.unit);
const COMMON = {
  ArrowUp: () => choose(-1),
  ArrowDown: () => choose(1),
  Enter: onUnit((unit) => go(`#/group/${encodeURIComponent(unit.key)}`)),
  n: onUnit(askName),
  m: onUnit(askMerge),
  s: onUnit((unit) => state.split(unit)),
  x: onUnit((unit) => state.split(unit, 4)),
  c: () => document.querySelector(".unit.selected .swatch input")?.click(),
  Delete: onUnit((unit) => state.unname(unit)),
  Backspace: onUnit((unit) => state.unname(unit)),
  a: () => state.set("alone", !state.alone),
  ",": () => state.cut(state.view.n - 1),
  ".": () => state.cut(state.view.n + 1),
  "[": () => state.set("opacity", Math.max(0, Math.round(20 * state.opacity - 1) / 20)),
  "]": () => state.set("opacity", Math.min(1, Math.round(20 * state.opacity + 1) / 20)),
  p: () => state.bare(),
  e: takeAlong,
  d: otherTheme,
  o: () => go("#/"),
  w: () => views.image.next(),
  "?": showKeys,
  ...Object.fromEntries([...Array(9).keys()].map((at) => [String(at + 1), () => call(at)])),
};

function onKey(event) {
  const { target } = event;
  if (document.querySelector("dialog[open]")) return;
  const typing = target instanceof HTMLInputElement && !["range", "checkbox", "radio", "color"].includes(target.type);
  const control = event.ctrlKey || event.metaKey;
  if (control && !typing && event.key.toLowerCase() === "z") {
    event.preventDefault();
    return event.shiftKey ? state.redo() : state.undo();
  }
  if (control && !typing && event.key.toLowerCase() === "y") {
    event.preventDefault();
    return state.redo();
  }
  if (typing) return event.key === "Escape" ? target.blur() : undefined;
  if (control || event.altKey) return;
  const onButton = target.matches("button, a, input[type=checkbox], input[type=radio]");
  if (onButton && (event.key === "Enter" || event.key === " ")) return;
  if (target instanceof HTMLInputElement && target.type === "range" && event.key.startsWith("Arrow")) return;
  const name = event.shiftKey && event.key.startsWith("Arrow") ? `Shift+${event.key}` : event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = shown?.keys[name] ?? COMMON[name];
  if (!act) return;
  event.preventDefault();
  act();
}

/** Ask now and then how far the index is, and whether another page has saved something. */
async function watch() {
  let before = -1;
  for (;;) {
    let found = null;
    try {
      found = await source.progress();
    } catch {
      state.tell("notice", "stegoflow explore does not answer: is it still running?");
      await new Promise((done) => setTimeout(done, 15000));
      continue;
    }
    state.tell("progress", found);
    const { done, total } = found.index;
    if (done !== before && (done === total || before < 0 || done - before > total / 8)) {
      if (before >= 0) forgetExamples();
      before = done;
      wantExamples(state.units);
    }
    if (state.retry) await state.save();
    await state.refresh(found.version).catch(() => {});
    await new Promise((wait) => setTimeout(wait, done < total ? 1000 : 3000));
  }
}

/** Where there are points, how much each class has is counted by the server, in some images. */
const count = debounced(400, async () => {
  const { said } = state;
  if (!source.shares || !said.points.length) return;
  try {
    const { shares } = await source.shares(said);
    if (said !== state.said) return;
    state.counted = new Map(said.classes.map((one, at) => [one.name, shares[at]]));
    state.derive();
    state.tell("examples");
  } catch {
    // the shares of names stay: what is wrong is said where the page draws classes
  }
});

/** Show the page. */
export async function begin() {
  let wanted = null;
  try {
    wanted = localStorage.getItem("theme");
  } catch {
    // as above
  }
  theme(wanted);
  try {
    await state.load();
    await images.search("");
  } catch (error) {
    fill(page, h("p", { class: "wrong" }, error.message));
    return;
  }
  document.title = `${state.facts.data} · stegoflow`;
  views = { overview: overview(), image: imageView(), group: groupView() };
  page.classList.remove("loading");
  fill(page, bar(), sidebar(), notices());
  addEventListener("hashchange", arrive);
  addEventListener("keydown", onKey);
  addEventListener("beforeunload", (event) => {
    if (state.saving !== "saved" || (!source.save && state.past.length)) event.preventDefault();
  });
  arrive();
  document.documentElement.dataset.ready = "yes";
  state.on("change", count);
  count();
  if (source.live) watch();
}
