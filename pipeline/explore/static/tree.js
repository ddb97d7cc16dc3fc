// The tree of prototypes: leaves 0 … P − 1, and the node P + i that the i-th merge makes of two earlier ones.

export class Tree {
  constructor(merges, sizes, heights) {
    this.leaves = sizes.length;
    this.merges = merges;
    this.heights = heights;
    this.count = 2 * this.leaves - 1;
    this.parent = new Int32Array(this.count).fill(-1);
    merges.forEach((pair, step) => pair.forEach((node) => (this.parent[node] = this.leaves + step)));
    this.sampled = this.sums(sizes);
    this.weigh(sizes);
    this.numbered = new Map();
  }

  /** How many patches each node has, from those of each prototype. */
  sums(sizes) {
    const found = new Float64Array(this.count);
    found.set(sizes);
    this.merges.forEach(([a, b], step) => (found[this.leaves + step] = found[a] + found[b]));
    return found;
  }

  /** Let shares be those of so many patches of each prototype. */
  weigh(sizes) {
    this.size = this.sums(sizes);
    this.total = this.size[this.count - 1] || 1;
  }

  share(node) {
    return this.size[node] / this.total;
  }

  parts(node) {
    return node < this.leaves ? [] : [...this.merges[node - this.leaves]].sort((a, b) => this.size[b] - this.size[a] || a - b);
  }

  /** The prototypes below a node. */
  members(node) {
    const found = [];
    const waiting = [node];
    while (waiting.length) {
      const at = waiting.pop();
      if (at < this.leaves) found.push(at);
      else waiting.push(...this.merges[at - this.leaves]);
    }
    return found.sort((a, b) => a - b);
  }

  /** From a node's parent up to the root. */
  above(node) {
    const found = [];
    for (let at = this.parent[node]; at >= 0; at = this.parent[at]) found.push(at);
    return found;
  }

  inside(node, ancestor) {
    return node === ancestor || this.above(node).includes(ancestor);
  }

  /** The nodes of the cut into n groups: what is there after P − n merges. */
  cut(n) {
    const made = 2 * this.leaves - n;
    const found = [];
    for (let node = 0; node < made; node++) if (this.parent[node] < 0 || this.parent[node] >= made) found.push(node);
    return found;
  }

  /** What a node of the cut into n groups or below it is called: its number in masks, reports and tables of that cut; of a part of
   * one, letters behind that: the larger part of 3 is 3a. Of a node above the cut: the numbers that it holds. */
  label(n, node) {
    const made = 2 * this.leaves - n;
    if (node >= made) return this.parts(node).map((part) => this.label(n, part)).join(" + ");
    const first = (a, b) => this.sampled[b] - this.sampled[a] || a - b;
    let letters = "";
    for (let above; (above = this.parent[node]) >= 0 && above < made; node = above) letters = ([...this.merges[above - this.leaves]].sort(first)[0] === node ? "a" : "b") + letters;
    if (!this.numbered.has(n)) this.numbered.set(n, new Map(this.cut(n).sort(first).map((one, number) => [one, number])));
    return `${this.numbered.get(n).get(node)}${letters}`;
  }

  /** The finest groups that must be told apart: a cut, opened wherever a node below is in `finer` or a node is in `open`. Largest first; parts of one
   * that was opened stand together, in its place. */
  shown(n, open, finer) {
    const inner = new Set();
    for (const node of finer) this.above(node).forEach((at) => inner.add(at));
    for (const node of open) {
      inner.add(node);
      this.above(node).forEach((at) => inner.add(at));
    }
    const found = [];
    const waiting = this.cut(n);
    while (waiting.length) {
      const node = waiting.pop();
      if (node >= this.leaves && inner.has(node)) waiting.push(...this.merges[node - this.leaves]);
      else found.push(node);
    }
    const whole = new Map(found.map((node) => [node, this.whole(n, open, node)]));
    const larger = (a, b) => this.sampled[b] - this.sampled[a] || a - b;
    return found.sort((a, b) => larger(whole.get(a), whole.get(b)) || larger(a, b));
  }

  /** The group of the cut into n that was opened and holds a node, or the node itself. */
  whole(n, open, node) {
    return this.above(node).findLast((at) => at < 2 * this.leaves - n && open.includes(at)) ?? node;
  }

  /** Where a node is better seen as several: its largest parts, up to `most`, those opened first that merge last. */
  pieces(node, most) {
    let found = [node];
    while (found.length < most) {
      const widest = Math.max(...found);
      if (widest < this.leaves) break;
      found = found.filter((one) => one !== widest).concat(this.merges[widest - this.leaves]);
    }
    return found.sort((a, b) => this.size[b] - this.size[a]);
  }
}
