// Pixels: planes of prototypes in the colours of groups, outlines, and maps of similarity.
import { NONE, state } from "./state.js";

const SIDE = new Uint8Array(new Uint32Array([1]).buffer)[0]; // 1 on little-endian machines, which is all of them

export const rgb = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

const packed = ([r, g, b], alpha = 255) =>
  SIDE ? ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0 : ((r << 24) | (g << 16) | (b << 8) | alpha) >>> 0;

/** Black or white, whichever is read better on a colour. */
export function inkOn(color) {
  const [r, g, b] = rgb(color).map((value) => (value / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.36 ? "#111" : "#fff";
}

/** The colours of units, and of none; of one alone where that is wanted. */
function palette(only) {
  const found = new Uint32Array(state.units.length + 1);
  for (const unit of state.units) found[unit.index] = only === null || unit.index === only ? packed(rgb(unit.color)) : 0;
  return found;
}

export const lone = () => (state.alone && state.unit ? state.unit.index : null);

/** The unit of every place of a map: `map` holds prototypes, `classes` (where there is one) positions in the annotation's
 * classes, which go before. */
export function units(map, classes) {
  const found = new Uint16Array(map.values.length);
  const { unitOf, unitOfClass } = state;
  for (let at = 0; at < found.length; at++) {
    const held = classes ? classes.values[at] : NONE;
    const prototype = map.values[at];
    if (held !== NONE && held < unitOfClass.length) found[at] = unitOfClass[held];
    else {
      // Where points decide that it is no class, the group that it is in is shown if that has no name.
      const unit = prototype === NONE ? NONE : unitOf[prototype];
      found[at] = classes && unit !== NONE && state.units[unit].kind === "class" ? NONE : unit;
    }
  }
  return found;
}

/** A canvas of the size of a map with every place in its unit's colour. */
export function painted(map, found, only = lone(), canvas = document.createElement("canvas")) {
  canvas.width = map.columns;
  canvas.height = map.rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(map.columns, map.rows);
  const out = new Uint32Array(image.data.buffer);
  const colours = palette(only);
  const none = state.units.length;
  for (let at = 0; at < out.length; at++) out[at] = colours[found[at] === NONE ? none : found[at]];
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Draw colours over a picture. The colour goes first, with the picture's light kept: over pink stain it would be seen as another
 * one. Then its light, as strongly as `opacity` says. */
export function cover(context, fill, opacity, ...box) {
  context.globalCompositeOperation = "color";
  context.globalAlpha = Math.min(1, 2 * opacity);
  context.drawImage(fill, ...box);
  context.globalCompositeOperation = "source-over";
  context.globalAlpha = opacity ** 0.75; // dark colours over a light picture stay darker than light ones
  context.drawImage(fill, ...box);
  context.globalAlpha = 1;
}

/** A canvas with a line wherever two units meet. */
export function outlined(map, found, only = lone()) {
  const { rows, columns } = map;
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const out = new Uint32Array(image.data.buffer);
  const colours = palette(only);
  const differs = (a, b) => a !== b && (only === null || a === only || b === only);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) {
      const at = y * columns + x;
      const right = x + 1 < columns && differs(found[at], found[at + 1]);
      const below = y + 1 < rows && differs(found[at], found[at + columns]);
      if (right || below) out[at] = colours[found[at]] || (right && colours[found[at + 1]]) || (below && colours[found[at + columns]]) || 0;
    }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Inferno (matplotlib, CC0), thinned to eleven stops.
const INFERNO = ["#000004", "#160b39", "#420a68", "#6a176e", "#932667", "#bc3754", "#dd513a", "#f37819", "#fca50a", "#f6d746", "#fcffa4"];
const HEAT = new Uint32Array(256);
for (let at = 0; at < 256; at++) {
  const place = (at / 255) * (INFERNO.length - 1);
  const low = Math.min(INFERNO.length - 2, Math.floor(place));
  const [from, to] = [rgb(INFERNO[low]), rgb(INFERNO[low + 1])];
  HEAT[at] = packed(from.map((value, c) => Math.round(value + (to[c] - value) * (place - low))), 150 + Math.round((at / 255) * 70));
}

/** A canvas of the size of a plane: how similar every place is. */
export function heat(values, rows, columns, canvas) {
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const out = new Uint32Array(image.data.buffer);
  for (let at = 0; at < values.length; at++) out[at] = HEAT[Math.max(0, Math.min(255, Math.round(values[at] * 275 - 20)))];
  context.putImageData(image, 0, 0);
  return canvas;
}
