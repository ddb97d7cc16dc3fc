// One class or group: what is typical of it, what is not, what lies beside it, and where it splits.
import { askMerge, askName } from "./dialogs.js";
import { h, key, percent, plural, refill, shareOf } from "./dom.js";
import { examples, patch, wantExamples } from "./examples.js";
import { idOf, swatch } from "./groups.js";
import { images } from "./images.js";
import { go } from "./route.js";
import { source } from "./source.js";
import { state } from "./state.js";

const SIZE = 92;

/** The view of one unit: {element, enter, leave, keys}. */
export function groupView() {
  const element = h("main", { class: "group" });
  let unit = null;
  let facts = null;
  let asked = 0;

  const gallery = (places, nothing) => (places.length ? h("div", { class: "gallery" }, places.map((place) => patch(place, SIZE, { share: 0.35 }))) : h("p", { class: "muted" }, nothing));

  /** The units that patches of this one are most often nearly part of; then those that are most alike. */
  function neighbours() {
    const found = new Map();
    facts.alike.forEach((alike, prototype) => {
      const other = state.unitAt(prototype);
      if (!other || other.key === unit.key) return;
      const known = found.get(other) ?? { other, count: 0, alike: -1 };
      found.set(other, { other, count: known.count + facts.beside[prototype], alike: Math.max(known.alike, alike) });
    });
    return [...found.values()].sort((a, b) => b.count - a.count || b.alike - a.alike).slice(0, 4);
  }

  function card(other, note, act) {
    return h("div", { class: "card" },
      h("button", { class: "line link", onclick: () => go(`#/group/${encodeURIComponent(other.key)}`) }, h("span", { class: "swatch", style: { background: other.color } }), h("span", { class: "name" }, other.name), h("span", { class: "share" }, percent(other.share))),
      h("div", { class: "strip" }, examples(other, 4).map((place) => patch(place, 60))),
      h("div", { class: "row" }, h("span", { class: "muted grow" }, note), act));
  }

  function parts() {
    const node = unit.nodes.find((one) => one >= state.tree.leaves);
    if (node === undefined) return null;
    const each = state.tree.parts(node).map((part) => ({ key: `part:${part}`, name: `part ${part}`, color: state.facts.colours[part], nodes: [part], share: state.tree.share(part) }));
    wantExamples(each);
    return h("section", {}, h("h3", {}, "Where it splits"),
      h("div", { class: "cards" }, each.map((part) => h("div", { class: "card" }, h("div", { class: "line" }, h("span", { class: "swatch", style: { background: part.color } }), h("span", { class: "share" }, percent(part.share))), h("div", { class: "strip" }, examples(part, 8).map((place) => patch(place, 60)))))),
      h("div", { class: "row" }, h("button", { onclick: () => state.splitNode(node) }, "Split in two ", key("S"))));
  }

  function members() {
    if (unit.kind !== "class" || unit.nodes.length < 2) return null;
    const each = unit.nodes.map((node) => ({ key: `member:${node}`, name: state.nameOf(node), color: state.facts.colours[node], nodes: [node], share: state.tree.share(node) }));
    return h("section", {}, h("h3", {}, `Made of ${plural(each.length, "group")}`),
      h("div", { class: "cards" }, each.map((one) => h("div", { class: "card" }, h("div", { class: "line" }, h("span", { class: "muted" }, one.name), h("span", { class: "share" }, percent(one.share))), h("div", { class: "strip" }, examples(one, 4).map((place) => patch(place, 60))), h("div", { class: "row" }, h("span", { class: "grow" }), state.writable && h("button", { class: "small", onclick: () => state.release(one.nodes) }, "Take it out"))))));
  }

  function picture([row, share]) {
    const link = h("a", { class: "most", href: `#/image/${row}` }, h("img", { src: source.picture(row, 200), alt: "", loading: "lazy" }), h("span", { class: "muted" }, percent(share)));
    images.of(row).then((image) => image && (link.title = `${image.split}/${image.id}`), () => {});
    return link;
  }

  function render() {
    if (!unit || !element.isConnected) return;
    const there = unit.nodes.length > 0;
    refill(
      element,
      h("div", { class: "bar" }, h("button", { class: "quiet", title: "Esc", onclick: () => go("#/") }, "← All images"), h("span", { class: "grow" }),
        state.writable && h("button", { onclick: () => askMerge(unit) }, "Merge… ", key("M")),
        there && h("button", { onclick: () => state.split(unit, 4), title: "Show it as its four parts" }, "This is not one thing ", key("X")),
        state.writable && unit.kind === "class" && h("button", { onclick: () => state.unname(unit) }, "Remove the name ", key("Del"))),
      h("div", { class: "body" },
        h("header", { class: "head" }, swatch(unit, { large: true }), h("h1", { title: idOf(unit) }, unit.name), state.writable && h("button", { class: unit.kind === "class" ? "" : "primary", onclick: () => askName(unit) }, unit.kind === "class" ? "Rename " : "Name it ", key("N")),
          h("span", { class: "muted" }, `${shareOf(unit)} of all patches${facts ? `, in ${plural(facts.images, "image")}` : ""}`)),
        !there ? h("p", { class: "muted" }, "No group has this name; its points decide where it is.") : null,
        there && !facts ? h("p", { class: "muted" }, "Looking…") : null,
        facts && there ? [
          h("section", {}, h("h3", {}, "Typical"), gallery(facts.typical, "There are no patches of it.")),
          source.live && h("section", {}, h("h3", {}, "Borderline"), h("p", { class: "muted" }, "Nearly part of another group: if these are wrong, split it or merge the two."), gallery(facts.borderline, "None of its patches is near to another group.")),
          members(),
          source.live && h("section", {}, h("h3", {}, "Nearest groups"), h("div", { class: "cards" }, neighbours().map(({ other, count }) => card(other, count ? `next to ${plural(count, "patch", "patches")}` : "", state.writable && h("button", { class: "small", onclick: () => state.merge(unit, other) }, "Same thing: merge"))))),
          parts(),
          h("section", {}, h("h3", {}, "Images with most of it"), h("div", { class: "gallery" }, facts.most.slice(0, 12).map(picture))),
        ] : null),
    );
  }

  async function look() {
    const mine = ++asked;
    facts = null;
    render();
    if (!unit.nodes.length) return;
    wantExamples(state.units);
    try {
      const found = await source.group(unit.nodes, 20);
      if (mine !== asked) return;
      facts = found;
      render();
    } catch (error) {
      state.tell("notice", error.message);
    }
  }

  state.on("change", () => {
    if (!element.isConnected) return;
    const before = unit;
    unit = state.byKey.get(unit?.key) ?? state.unit;
    if (!unit) return go("#/");
    if (unit.key !== before?.key) return go(`#/group/${encodeURIComponent(unit.key)}`);
    if (String(unit.nodes) !== String(before.nodes)) look();
    else render();
  });
  state.on("examples", render);
  state.on("select", () => element.isConnected && state.selected !== unit?.key && go(`#/group/${encodeURIComponent(state.selected)}`));

  return {
    element,
    enter({ key: wanted }) {
      unit = state.byKey.get(wanted) ?? state.unit;
      if (!unit) return go("#/");
      state.select(unit.key);
      look();
    },
    leave: () => (asked += 1),
    keys: { Escape: () => go("#/") },
  };
}
