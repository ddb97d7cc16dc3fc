// What the page knows and shows: the annotation with its past, the cut of the tree, what is selected; and saving.
import { classOf, cleaned, empty, namedBy, recoloured, renamed, withClass, withGroups, withoutClass, withoutPoint, withPoints } from "./annotation.js";
import { saving } from "./saving.js";
import { source } from "./source.js";
import { Tree } from "./tree.js";

export const NONE = 0xffff;
const SPARE = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#f0e442", "#56b4e9", "#e69f00"];

class State extends EventTarget {
  /** Read what the server says of the run. */
  async load() {
    const facts = await source.facts();
    this.facts = facts;
    this.tree = new Tree(facts.merges, facts.sizes, facts.heights);
    this.said = facts.annotation;
    this.version = facts.version;
    this.view = facts.view ?? { n: Math.min(facts.sizes.length, Math.max(facts.k, 2)), open: [] };
    this.past = [];
    this.future = [];
    this.saving = "saved";
    this.selected = null;
    this.alone = false;
    this.opacity = 0.5;
    this.outlines = false;
    this.heat = true;
    this.chosen = null; // the class that a click gives
    this.derive();
    this.selected = this.units[0]?.key ?? null;
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  on(name, call) {
    this.addEventListener(name, (event) => call(event.detail));
  }

  get writable() {
    return !this.facts.read_only;
  }

  // What is shown ------------------------------------------------------------------------------------------------------

  /** Units are what the page tells apart: a class with all its groups, or a group without a name. */
  derive() {
    const { tree, said } = this;
    const nodes = tree.shown(this.view.n, this.view.open, Object.keys(said.groups).map(Number));
    const classes = said.classes.map(({ name, color }) => ({ key: `c:${name}`, kind: "class", name, color, nodes: [], share: 0 }));
    const byName = new Map(classes.map((unit) => [unit.name, unit]));
    const groups = [];
    for (const node of nodes) {
      const named = namedBy(said, tree, node);
      const unit = named && byName.get(named.name);
      if (unit) {
        unit.nodes.push(node);
        unit.share += tree.share(node);
      } else {
        const whole = tree.whole(this.view.n, this.view.open, node);
        groups.push({ key: `g:${node}`, kind: "group", name: this.nameOf(node), of: whole === node ? null : this.nameOf(whole), color: this.facts.colours[node], nodes: [node], share: tree.share(node) });
      }
    }
    if (said.points.length && this.counted) for (const unit of classes) if (this.counted.has(unit.name)) Object.assign(unit, { share: this.counted.get(unit.name), counted: true });
    this.tellApart(classes, groups);
    classes.sort((a, b) => b.share - a.share);
    this.units = [...classes, ...groups];
    this.units.forEach((unit, index) => (unit.index = index));
    this.byKey = new Map(this.units.map((unit) => [unit.key, unit]));
    this.unitOf = new Uint16Array(tree.leaves).fill(NONE);
    for (const unit of this.units) for (const node of unit.nodes) for (const leaf of tree.members(node)) this.unitOf[leaf] = unit.index;
    this.unitOfClass = said.classes.map(({ name }) => this.byKey.get(`c:${name}`).index);
    if (this.selected && !this.byKey.has(this.selected)) this.selected = this.follow ?? this.units[0]?.key ?? null;
    if (this.chosen && !classOf(said, this.chosen)) this.chosen = null;
    this.follow = null;
  }

  /** What a group without a name is called. */
  nameOf(node) {
    return `group ${this.tree.label(this.view.n, node)}`;
  }

  /** Give a group another colour where a class has its own. */
  tellApart(classes, groups) {
    const taken = new Set(classes.map((unit) => unit.color));
    const used = new Set(groups.map((unit) => unit.color));
    const spare = this.facts.colours.filter((color) => !taken.has(color) && !used.has(color));
    for (const unit of groups) {
      if (taken.has(unit.color)) unit.color = spare.shift() ?? unit.color;
      taken.add(unit.color);
    }
  }

  get unit() {
    return this.byKey.get(this.selected) ?? null;
  }

  select(key) {
    if (key === this.selected || !this.byKey.has(key)) return;
    this.selected = key;
    this.tell("select");
  }

  /** The unit that a prototype belongs to. */
  unitAt(prototype) {
    return this.units[this.unitOf[prototype]];
  }

  set(name, value) {
    this[name] = value;
    this.tell("look");
  }

  /** The pictures without the groups over them, and back. */
  bare() {
    if (this.opacity) this.covered = this.opacity;
    this.set("opacity", this.opacity ? 0 : (this.covered ?? 0.5));
  }

  // Edits --------------------------------------------------------------------------------------------------------------

  /** Let this be what is said (and how the tree is seen) from now on; `follow` is what is selected if that is gone. */
  edit(said, { view = this.view, follow = null } = {}) {
    if (!this.writable && said !== this.said) return this.tell("notice", "This page is read-only: nothing is changed.");
    this.past.push({ said: this.said, view: this.view });
    if (this.past.length > 500) this.past.shift();
    this.future = [];
    this.become(said, view, follow);
  }

  become(said, view, follow) {
    const changed = said !== this.said;
    this.said = said;
    this.follow = follow;
    if (view !== this.view) {
      this.view = view;
      source.keepView?.(view).catch(() => {});
    }
    this.derive();
    this.tell("change");
    if (changed) this.save();
  }

  undo() {
    this.travel(this.past, this.future, "There is nothing to undo.");
  }

  redo() {
    this.travel(this.future, this.past, "There is nothing to redo.");
  }

  travel(from, to, nothing) {
    const step = from.pop();
    if (!step) return this.tell("notice", nothing);
    to.push({ said: this.said, view: this.view });
    this.become(step.said, step.view, null);
  }

  /** The class of a unit, with an annotation in which it exists: of a group without a name, one that is called like it. */
  classFor(unit, said = this.said) {
    if (unit.kind === "class") return [unit.name, said];
    let name = unit.name; // numbers are those of a cut: another one may have given this name
    for (let at = 2; classOf(said, name); at++) name = `${unit.name} (${at})`;
    return [name, withGroups(withClass(said, name, unit.color), this.tree, unit.nodes, name)];
  }

  /** Name a unit. `onward`: the next group without a name is selected then, so that many are named one after another. */
  name(unit, text, onward = false) {
    const name = cleaned(text);
    if (!name || (unit.kind === "class" && name === unit.name)) return;
    const said =
      unit.kind === "class"
        ? renamed(this.said, unit.name, name)
        : withGroups(withClass(this.said, name, unit.color), this.tree, unit.nodes, name);
    const rest = this.units.filter((one) => one.kind === "group" && one.key !== unit.key);
    const next = onward && unit.kind === "group" ? (rest.find((one) => one.index > unit.index) ?? rest[0]) : null;
    this.edit(said, { follow: next?.key ?? `c:${name}` });
  }

  unname(unit) {
    if (unit.kind !== "class") return;
    this.edit(withoutClass(this.said, unit.name), { follow: unit.nodes.length ? `g:${unit.nodes[0]}` : null });
  }

  /** Take some of a class's groups out of it. */
  release(nodes) {
    this.edit(withGroups(this.said, this.tree, nodes, null));
  }

  colour(unit, color) {
    const [name, said] = this.classFor(unit);
    this.edit(recoloured(said, name, color), { follow: `c:${name}` });
  }

  /** Let one unit become part of another. */
  merge(unit, into) {
    if (unit.key === into.key) return;
    const [name, made] = this.classFor(into);
    const said = unit.kind === "class" ? renamed(made, unit.name, name) : withGroups(made, this.tree, unit.nodes, name);
    this.edit(said, { follow: `c:${name}` });
  }

  /** Show a unit's largest group as so many parts. */
  split(unit, pieces = 2) {
    const node = unit.nodes.find((one) => one >= this.tree.leaves);
    if (node === undefined) return this.tell("notice", "This group cannot be split further. Where it is wrong, teach with clicks.");
    this.splitNode(node, pieces);
  }

  splitNode(node, pieces = 2) {
    const open = new Set([...this.view.open, node]);
    const parts = this.tree.pieces(node, pieces);
    for (const part of parts) for (const at of this.tree.above(part)) if (this.tree.inside(at, node)) open.add(at);
    this.edit(this.said, { view: { ...this.view, open: [...open] }, follow: `g:${parts[0]}` });
    this.tell("notice", `Shown as ${parts.length} parts. Name them, or undo.`);
  }

  cut(n) {
    const most = this.tree.leaves;
    const wanted = Math.min(most, Math.max(1, Math.round(n)));
    if (wanted !== this.view.n) this.edit(this.said, { view: { ...this.view, n: wanted } });
  }

  points(points) {
    this.edit(withPoints(this.said, points));
  }

  /** A colour that no class has. */
  freshColour() {
    const taken = new Set(this.said.classes.map((one) => one.color));
    return [...SPARE, ...this.facts.colours].find((color) => !taken.has(color)) ?? "#888888";
  }

  unpoint(point) {
    this.edit(withoutPoint(this.said, point));
  }

  newClass(text) {
    const name = cleaned(text);
    if (!name) return null;
    if (!classOf(this.said, name)) this.edit(withClass(this.said, name, this.freshColour()));
    this.chosen = name;
    this.tell("look");
    return name;
  }
}

Object.assign(State.prototype, saving);

export const state = new State();
export const nothingSaid = () => !state.said.classes.length && !state.said.points.length;
export { empty };
