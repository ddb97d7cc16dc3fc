// What a page knows that is one file: some images with their tokens; searches and galleries are of these alone.
import { h } from "./dom.js";
import { similarity, tokenAt, unpackTokens } from "./tokens.js";

function bytes(coded) {
  const text = atob(coded);
  const found = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) found[at] = text.charCodeAt(at);
  return found.buffer;
}

/** What `source` offers, from the content of a page. */
export function embedded({ facts, images, typical, counts }) {
  const tokens = images.map((image) => unpackTokens(bytes(image.tokens)));
  const address = (row) => `data:image/jpeg;base64,${images[row].picture}`;
  const place = (row, y, x, score) => ({ row, split: images[row].split, id: images[row].id, y, x, score });
  const children = (node) => (node < facts.sizes.length ? [] : facts.merges[node - facts.sizes.length]);
  const leaves = (node) => (node < facts.sizes.length ? [node] : children(node).flatMap(leaves));
  const pictures = new Map();

  function picture(row) {
    if (!pictures.has(row)) {
      const image = new Image();
      image.src = address(row);
      pictures.set(row, image);
    }
    return pictures.get(row);
  }

  /** One of every prototype in turn, the one with most patches first, at most one of an image. */
  function typicalOf(prototypes, count) {
    const lines = [...prototypes].sort((a, b) => counts[b] - counts[a]).slice(0, count).map((leaf) => typical[leaf]);
    const [first, later, seen] = [[], [], new Set()];
    for (let turn = 0; turn < 6; turn++)
      for (const line of lines)
        if (line[turn]) {
          (seen.has(line[turn][0]) ? later : first).push(place(...line[turn]));
          seen.add(line[turn][0]);
        }
    return [...first, ...later].slice(0, count);
  }

  return {
    live: false,
    facts: async () => facts,
    images: async (start, count, query) => {
      const wanted = query.toLowerCase();
      const rows = images.map((_, row) => row).filter((row) => `${images[row].split}/${images[row].id}`.toLowerCase().includes(wanted));
      return { total: rows.length, images: rows.slice(start, start + count).map((row) => [row, images[row].split, images[row].id, images[row].height, images[row].width]) };
    },
    planes: async (rows) => rows.map((row) => ({ rows: tokens[row].tall, columns: tokens[row].wide, values: tokens[row].nearest })),
    tokens: async (row) => tokens[row],
    groups: async (nodes, count) => ({ complete: true, counts, groups: nodes.map((node) => ({ node, typical: typicalOf(leaves(node), count) })) }),
    group: async (nodes, count) => {
      const inside = new Set(nodes.flatMap(leaves));
      const shares = tokens.map(({ nearest }, row) => [row, nearest.reduce((sum, leaf) => sum + inside.has(leaf), 0) / nearest.length]);
      return { patches: 0, total: 0, images: shares.filter(([, share]) => share > 0).length, typical: typicalOf([...inside], count), borderline: [], most: shares.filter(([, share]) => share > 0).sort((a, b) => b[1] - a[1]), beside: [], alike: [] };
    },
    find: async (row, y, x) => {
      const { components, vectors } = tokens[row];
      const from = tokenAt(tokens[row], { y, x }) * components;
      const query = vectors.subarray(from, from + components);
      const best = tokens.map((one, other) => {
        const found = similarity(one, 0, query);
        const at = found.reduce((top, value, here) => (value > found[top] ? here : top), 0);
        const inside = (value, most) => Math.min(most - 1, value * one.step + (one.step >> 1));
        return place(other, inside(Math.floor(at / one.wide), one.rows), inside(at % one.wide, one.columns), found[at]);
      });
      const middle = (at, count, side) => Math.floor(((2 * at + 1) * side) / (2 * count));
      const pixel = (one) => ({ ...one, py: middle(one.y, tokens[one.row].rows, images[one.row].height), px: middle(one.x, tokens[one.row].columns, images[one.row].width) });
      return best.sort((a, b) => b.score - a.score).slice(0, 50).map(pixel);
    },
    picture: address,
    patchElement: (where, share, size) => {
      const { rows, columns } = tokens[where.row];
      const { height, width } = images[where.row];
      const ratio = Math.min(2, devicePixelRatio || 1);
      const canvas = h("canvas", { width: Math.round(size * ratio), height: Math.round(size * ratio) });
      const image = picture(where.row);
      const draw = () => {
        const scale = image.naturalWidth / width;
        const [tall, wide] = [height / rows, width / columns];
        const side = Math.min(Math.max(3 * Math.max(tall, wide), share * Math.min(height, width)), height, width);
        const kept = (value, most) => Math.min(Math.max(0, value), most - side);
        const [top, left] = [kept((where.y + 0.5) * tall - side / 2, height), kept((where.x + 0.5) * wide - side / 2, width)];
        const context = canvas.getContext("2d");
        context.drawImage(image, left * scale, top * scale, side * scale, side * scale, 0, 0, canvas.width, canvas.height);
        const zoom = canvas.width / side;
        for (const [color, line] of [["#000", 3], ["#fff", 1]]) {
          context.strokeStyle = color;
          context.lineWidth = line;
          context.strokeRect((where.x * wide - left) * zoom, (where.y * tall - top) * zoom, wide * zoom, tall * zoom);
        }
      };
      if (image.complete && image.naturalWidth) draw();
      else image.addEventListener("load", draw);
      return canvas;
    },
  };
}
