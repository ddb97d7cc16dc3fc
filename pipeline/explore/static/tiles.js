// A large image as a pyramid: pieces of 512 × 512 pixels of a level, asked for where they are seen, and the groups of each.
// At level n a pixel is 2ⁿ pixels of the image, each way.
import { images } from "./images.js";
import { cover, outlined, painted, units } from "./paint.js";
import { source } from "./source.js";
import { state } from "./state.js";

const SIDE = 512;
const KEPT = 160;
const AT_ONCE = 6;
const PATCH = 8; // pixels of the screen that a patch has at least where edges are followed

export class Tiles {
  /** `changed` is called when there is more to draw. */
  constructor(image, changed) {
    Object.assign(this, { image, changed, known: new Map(), waiting: [], asked: 0 });
    this.levels = Math.ceil(Math.log2(Math.max(image.height, image.width) / SIDE));
  }

  /** The coarsest level with a pixel for each of the screen, where a pixel of the image is `scale` of its pixels. */
  level(scale) {
    return Math.max(0, Math.min(this.levels, Math.floor(Math.log2(1 / scale) + 1e-6)));
  }

  /** The pieces of a level that are seen. */
  seen(level, { left, top, scale }, canvas) {
    const size = SIDE * 2 ** level;
    const [tall, wide] = [Math.ceil(this.image.height / size), Math.ceil(this.image.width / size)];
    const range = (from, length, most) => [Math.max(0, Math.floor(-from / scale / size)), Math.min(most - 1, Math.floor((length - from) / scale / size))];
    const [[first, last], [start, stop]] = [range(top, canvas.height, tall), range(left, canvas.width, wide)];
    const found = [];
    for (let down = first; down <= last; down++) for (let across = start; across <= stop; across++) found.push(this.tile(level, down, across));
    return found;
  }

  tile(level, down, across) {
    const key = `${level}/${down}/${across}`;
    const tile = this.known.get(key) ?? { key, level, down, across, picture: null, map: null, classes: null };
    this.known.delete(key); // last used, last in the map
    this.known.set(key, tile);
    return tile;
  }

  /** Where a piece lies, in pixels of the image: [y, x, height, width]. */
  box({ level, down, across }) {
    const size = SIDE * 2 ** level;
    const [y, x] = [down * size, across * size];
    return [y, x, Math.min(size, this.image.height - y), Math.min(size, this.image.width - x)];
  }

  /** Where it lies on the screen, in whole pixels, so that no line is seen between two: [x, y, width, height]. */
  place(tile, { left, top, scale }) {
    const [y, x, height, width] = this.box(tile);
    const [x0, y0, x1, y1] = [left + x * scale, top + y * scale, left + (x + width) * scale, top + (y + height) * scale].map(Math.round);
    return [x0, y0, x1 - x0, y1 - y0];
  }

  /** Draw what is there of the pictures, and ask for the rest. `patch`: pixels of the image that a patch has; gives the pieces whose groups are to be
   * drawn by `drawGroups`, none where patches are small on the screen. */
  draw(context, view, patch) {
    const level = this.level(view.scale);
    const seen = this.seen(level, view, context.canvas);
    const coarser = [...this.known.values()].filter((one) => one.level > level && one.picture).sort((a, b) => b.level - a.level);
    const there = [...coarser, ...seen].filter((one) => one.picture);
    for (const tile of there) context.drawImage(tile.picture, ...this.place(tile, view));
    if (!there.length) this.wait(context);
    const fine = patch * view.scale >= PATCH ? seen : [];
    const stale = (tile) => images.pointed && tile.classes?.said !== state.said;
    this.waiting = [...seen.filter((one) => !one.picture && !one.failed), ...fine.filter((one) => !one.bare && (!one.map || stale(one)))];
    this.ask();
    for (const [key] of this.known) if (this.known.size > KEPT + seen.length) this.known.delete(key);
      else break;
    return fine;
  }

  wait(context) {
    context.fillStyle = getComputedStyle(context.canvas).color;
    context.font = `${14 * (devicePixelRatio || 1)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.fillText("Reading the picture…", context.canvas.width / 2, context.canvas.height / 2);
  }

  /** Draw groups over the pieces that have them, `coarse` (which draws those of all of the image) over the rest. */
  drawGroups(context, view, fine, coarse) {
    const ready = fine.filter((tile) => tile.map && (!images.pointed || tile.classes));
    context.save();
    const rest = new Path2D();
    rest.rect(0, 0, context.canvas.width, context.canvas.height);
    for (const tile of ready) rest.rect(...this.place(tile, view));
    context.clip(rest, "evenodd");
    coarse();
    context.restore();
    context.imageSmoothingEnabled = false;
    for (const tile of ready) {
      const look = [state.units, state.alone && state.selected, state.outlines, tile.map, tile.classes];
      if (!tile.look || look.some((one, at) => one !== tile.look[at])) {
        const found = units(tile.map, images.pointed ? tile.classes.map : null);
        Object.assign(tile, { look, drawn: state.outlines ? outlined(tile.map, found) : painted(tile.map, found) });
      }
      if (state.outlines) context.drawImage(tile.drawn, ...this.place(tile, view));
      else cover(context, tile.drawn, state.opacity, ...this.place(tile, view));
    }
  }

  ask() {
    while (this.asked < AT_ONCE && this.waiting.length) {
      const tile = this.waiting.shift();
      if (tile.busy) continue;
      tile.busy = true;
      this.asked += 1;
      this.read(tile)
        .catch((error) => tile.picture || state.tell("notice", error.message))
        .finally(() => {
          tile.busy = false;
          this.asked -= 1;
          this.changed();
        });
    }
  }

  async read(tile) {
    const { row } = this.image;
    if (!tile.picture) {
      const picture = new Image();
      picture.src = source.window(row, this.box(tile), SIDE);
      tile.failed = true;
      await picture.decode().catch(() => Promise.reject(new Error(`${this.image.split}/${this.image.id} cannot be shown: has the file changed?`)));
      Object.assign(tile, { picture, failed: false });
      return;
    }
    const at = [tile.level, tile.down, tile.across];
    tile.bare = true; // not asked again where there are no patches
    tile.map ??= await source.tile(row, at);
    const { said } = state;
    if (images.pointed) tile.classes = { said, map: (await source.classify(said, [row], true, at))[0] };
    tile.bare = false;
  }
}
