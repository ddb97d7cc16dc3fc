// What a person said: {classes: [{name, color}], groups: {node: name}, points: [{split, image, y, x, class}]}.
// Every function gives another annotation and leaves its argument as it was.

export const empty = () => ({ classes: [], groups: {}, points: [] });

/** A name as it is kept: composed characters, no white space around it, no control characters, 200 characters at most. */
export const cleaned = (name) =>
  [...name.normalize("NFC").replace(/[\u0000-\u001f\u007f-\u009f]/g, " ").trim()].slice(0, 200).join("");

export const classOf = (said, name) => said.classes.find((one) => one.name === name);

/** With a class of this name, made where there is none. */
export function withClass(said, name, color) {
  if (classOf(said, name)) return said;
  return { ...said, classes: [...said.classes, { name, color }] };
}

export function recoloured(said, name, color) {
  return { ...said, classes: said.classes.map((one) => (one.name === name ? { ...one, color } : one)) };
}

/** The name that counts for a node: its own, or that of the nearest named node above it. */
export function namedBy(said, tree, node) {
  for (const at of [node, ...tree.above(node)]) if (said.groups[at] !== undefined) return { name: said.groups[at], at };
  return null;
}

/** With nodes named (null: not named any more). What lies below them goes with them. */
export function withGroups(said, tree, nodes, name) {
  const groups = { ...said.groups };
  for (const node of nodes) {
    for (const other of Object.keys(groups)) if (tree.inside(Number(other), node)) delete groups[other];
    const from = namedBy({ groups }, tree, node);
    if (name !== null && from?.name !== name) groups[node] = name;
    if (name === null && from) {
      // A node above it is named: its other parts keep that name, each by itself.
      delete groups[from.at];
      for (let at = node; at !== from.at; at = tree.parent[at])
        for (const part of tree.parts(tree.parent[at]))
          if (part !== at && groups[part] === undefined) groups[part] = from.name;
    }
  }
  return { ...said, groups };
}

/** A class has another name; where that one exists, the two become one. */
export function renamed(said, old, name) {
  if (old === name) return said;
  const taken = classOf(said, name);
  const classes = said.classes
    .filter((one) => one.name !== old || !taken)
    .map((one) => (one.name === old ? { ...one, name } : one));
  const groups = Object.fromEntries(Object.entries(said.groups).map(([node, held]) => [node, held === old ? name : held]));
  const points = said.points.map((one) => (one.class === old ? { ...one, class: name } : one));
  return { classes, groups, points };
}

export function withoutClass(said, name) {
  return {
    classes: said.classes.filter((one) => one.name !== name),
    groups: Object.fromEntries(Object.entries(said.groups).filter(([, held]) => held !== name)),
    points: said.points.filter((one) => one.class !== name),
  };
}

const samePlace = (a, b) => a.split === b.split && a.image === b.image && a.y === b.y && a.x === b.x;

/** With points, each in the place of one at the same pixel. */
export function withPoints(said, points) {
  return { ...said, points: [...said.points.filter((one) => !points.some((other) => samePlace(one, other))), ...points] };
}

export const hasPoint = (said, point) => said.points.find((one) => samePlace(one, point));

export function withoutPoint(said, point) {
  return { ...said, points: said.points.filter((one) => !samePlace(one, point)) };
}

/** The same as a file that a person can read: YAML whose strings are JSON's, which YAML reads alike. */
export function text(said, clusters) {
  const quoted = JSON.stringify;
  const lines = clusters ? [`clusters: ${quoted(clusters)}`] : [];
  const list = (title, items, none) => lines.push(...(items.length ? [`${title}:`, ...items] : [`${title}: ${none}`]));
  list("classes", said.classes.map((one) => `- {name: ${quoted(one.name)}, color: ${quoted(one.color)}}`), "[]");
  const nodes = Object.keys(said.groups).map(Number).sort((a, b) => a - b);
  list("groups", nodes.map((node) => `  "${node}": ${quoted(said.groups[node])}`), "{}");
  const point = (one) =>
    `- {split: ${quoted(one.split)}, image: ${quoted(one.image)}, y: ${one.y}, x: ${one.x}, class: ${quoted(one.class)}}`;
  list("points", said.points.map(point), "[]");
  return lines.join("\n") + "\n";
}
