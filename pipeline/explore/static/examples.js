// Typical patches of nodes of the tree, asked for once, and the elements that show a patch.
import { h } from "./dom.js";
import { source } from "./source.js";
import { state } from "./state.js";

// Asked for of each node. A row of the list shows STRIP of them (groups.js), a dialog or a part its own number; the page
// of one group asks for more (group.js).
const COUNT = 12;
const known = new Map();
const waiting = new Set();
let asked = null;

/** Forget what is known: the index has grown. */
export function forgetExamples() {
  known.clear();
}

/** Typical patches of a unit: places, its largest groups in turn. */
export function examples(unit, count) {
  const lines = unit.nodes.map((node) => known.get(node) ?? []);
  const found = [];
  for (let turn = 0; found.length < count && lines.some((line) => line.length > turn); turn++)
    for (const line of lines) if (line[turn] && found.length < count) found.push(line[turn]);
  return found;
}

/** Ask for the typical patches of units; "examples" is told when there are new ones. */
export async function wantExamples(units) {
  for (const unit of units) for (const node of unit.nodes) if (!known.has(node)) waiting.add(node);
  if (!waiting.size || asked) return asked;
  asked = (async () => {
    await new Promise((done) => setTimeout(done, 20));
    while (waiting.size) {
      const nodes = [...waiting].slice(0, 1000);
      nodes.forEach((node) => waiting.delete(node));
      const found = await source.groups(nodes, COUNT);
      for (const { node, typical } of found.groups) known.set(node, typical);
      if (found.complete) {
        state.tree.weigh(found.counts);
        state.derive();
      }
      state.tell("examples");
    }
  })();
  try {
    await asked;
  } catch (error) {
    state.tell("notice", error.message);
  }
  asked = null;
}

/** A patch as a picture that leads to its place. */
export function patch(place, size, { share = 0.25, title, onclick, tabIndex = 0 } = {}) {
  const said = title ?? `${place.split}/${place.id}`;
  const side = Math.min(256, Math.round(size * 1.6));
  const face = source.patchElement
    ? source.patchElement(place, share, size)
    : h("img", { src: source.patch(place, share, side), width: size, height: size, alt: "", loading: "lazy", decoding: "async" });
  return h("a", { class: "patch", href: `#/image/${place.row}/${place.y}/${place.x}`, title: said, onclick, tabIndex, style: { width: `${size}px`, height: `${size}px` } }, face);
}
