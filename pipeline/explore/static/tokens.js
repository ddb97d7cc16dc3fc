// Planes and tokens as the server packs them, and how alike tokens are.

/** Maps of uint16, one after the other: {rows, columns, values}. */
export function unpackMaps(buffer) {
  const found = [];
  const view = new DataView(buffer);
  for (let at = 0; at < buffer.byteLength; ) {
    const rows = view.getUint32(at, true);
    const columns = view.getUint32(at + 4, true);
    found.push({ rows, columns, values: new Uint16Array(buffer, at + 8, rows * columns) });
    at += 8 + 4 * Math.ceil((2 * rows * columns) / 4);
  }
  return found;
}

/** The tokens of an image: {rows, columns, step, tall, wide, components, nearest, vectors}, every vector one after the other. Of a plane of very
 * many patches (rows, columns) there is one of each square of `step` patches: tall × wide of them. */
export function unpackTokens(buffer) {
  const [rows, columns, step, components] = new Uint32Array(buffer, 0, 4);
  const [tall, wide] = [Math.ceil(rows / step), Math.ceil(columns / step)];
  const count = tall * wide;
  const nearest = new Uint16Array(buffer, 16, count);
  const from = 16 + 4 * Math.ceil((2 * count) / 4);
  const scale = new Float32Array(buffer, from, count);
  const numbers = new Int8Array(buffer, from + 4 * count, count * components);
  const vectors = new Float32Array(count * components);
  for (let at = 0; at < count; at++)
    for (let c = 0; c < components; c++) vectors[at * components + c] = numbers[at * components + c] * scale[at];
  return { rows, columns, step, tall, wide, components, nearest, vectors };
}

/** The number of the token that stands for a place of the plane. */
export const tokenAt = ({ step, wide }, { y, x }) => Math.floor(y / step) * wide + Math.floor(x / step);

/** Cosine of one token to all tokens of an image: Float32Array. */
export function similarity(tokens, at, query = tokens.vectors.subarray(at * tokens.components, (at + 1) * tokens.components)) {
  const { components, vectors } = tokens;
  const found = new Float32Array(tokens.tall * tokens.wide);
  const length = Math.hypot(...query) || 1;
  for (let other = 0, from = 0; other < found.length; other++, from += components) {
    let sum = 0;
    for (let c = 0; c < components; c++) sum += query[c] * vectors[from + c];
    found[other] = sum / length;
  }
  return found;
}
