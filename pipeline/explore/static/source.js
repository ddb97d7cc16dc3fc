// Where the page's data come from: the local server, whose address the page's own begins with.
import { unpackMaps, unpackTokens } from "./tokens.js";

const base = new URL(".", document.baseURI);

/** What went wrong, as a person reads it. */
export class Refused extends Error {}

async function answer(response) {
  if (response.ok) return response;
  let said = {};
  try {
    said = await response.json();
  } catch {
    said = { error: `the server answered ${response.status}` };
  }
  throw new Refused([said.error, said.next].filter(Boolean).join(" — "));
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, base), options);
  } catch {
    throw Object.assign(new Refused("stegoflow explore does not answer: is it still running?"), { offline: true });
  }
  return answer(response);
}

const read = async (path) => (await ask(path)).json();
const bytes = async (path, options) => (await ask(path, options)).arrayBuffer();
const posted = (value) => ({ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value) });
const post = async (path, value) => (await ask(path, posted(value))).json();

export const server = {
  live: true,
  facts: () => read("api/run"),
  progress: () => read("api/progress"),
  images: (start, count, query) =>
    read(`api/images?${new URLSearchParams({ start: String(start), count: String(count), query })}`),
  planes: async (rows) => unpackMaps(await bytes(`api/planes?rows=${rows.join(",")}`)),
  tokens: async (row) => unpackTokens(await bytes(`api/tokens/${row}`)),
  map: async (row) => unpackMaps(await bytes(`api/map/${row}`))[0],
  tile: async (row, [level, down, across]) => unpackMaps(await bytes(`api/map/${row}?${new URLSearchParams({ level, down, across })}`))[0],
  classify: async (annotation, rows, fine, tile = null) => unpackMaps(await bytes("api/classify", posted({ annotation, rows, fine, tile }))),
  next: (annotation) => post("api/next", { annotation }),
  shares: (annotation) => post("api/shares", { annotation }),
  find: async (row, y, x) => (await post("api/find", { row, y, x })).found,
  groups: (nodes, count) => post("api/groups", { nodes, count }),
  group: (nodes, count) => post("api/group", { nodes, count }),
  annotation: () => read("api/annotation"),
  save: (annotation, after) => post("api/annotation", { annotation, after }),
  keepView: (view) => post("api/view", view),
  export: (wanted) => post("api/export", wanted),
  archive: () => new URL("api/export.zip", base).href,
  picture: (row, side) => new URL(`api/picture/${row}?side=${side}`, base).href,
  window: (row, [y, x, height, width], side) =>
    new URL(`api/picture/${row}?${new URLSearchParams({ y, x, h: height, w: width, side })}`, base).href,
  patch: (place, share, side) =>
    new URL(`api/patch/${place.row}?y=${place.y}&x=${place.x}&share=${share}&side=${side}`, base).href,
};

/** What the page asks: `server`, or what a single file holds. */
export const source = {};

export function use(kind) {
  Object.assign(source, kind);
}
