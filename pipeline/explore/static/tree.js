// The tree of prototypes: leaves 0 … P − 1, and the node P + i that the i-th merge makes of two earlier ones.

export class Tree {
  constructor(merges, sizes, heights) {
    this.leaves = sizes.length;
    this.merges = merges;
    this.heights = heights;
    this.count = 2 * this.leaves - 1;
    this.parent = new Int32Array(this.count).fill(-1);
    merges.forEach((pair, step) => pair.forEach((node) => (this.parent[node] = this.leaves + step)));
    this.weigh(sizes);
  }

  /** Let shares be those of so many patches of each prototype. */
  weigh(sizes) {
    this.size = new Float64Array(this.count);
    this.size.set(sizes);
    this.merges.forEach(([a, b], step) => (this.size[this.leaves + step] = this.size[a] + this.size[b]));
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
    const larger = (a, b) => this.size[b] - this.size[a] || a - b;
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
