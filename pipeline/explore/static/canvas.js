// One image on a canvas: zoom, pan, its groups or a map of similarity over it, points, and the patch under the pointer.
import { h } from "./dom.js";
import { images } from "./images.js";
import { cover, heat, outlined, painted, units } from "./paint.js";
import { source } from "./source.js";
import { state } from "./state.js";
import { Tiles } from "./tiles.js";
import { similarity, tokenAt } from "./tokens.js";

const LARGEST = 2048; // pixels of the longer side of an image that is shown as one picture

export class Picture {
  /** `call` has hover(place), click(place): places are {y, x} of the image's plane and {py, px}, pixels of the image. */
  constructor(call) {
    this.call = call;
    this.canvas = h("canvas", { class: "picture", tabIndex: 0, role: "img" });
    this.heat = document.createElement("canvas");
    this.image = null;
    this.hover = null;
    this.pinned = null;
    this.frame = 0;
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  async open(image) {
    Object.assign(this, { image, picture: null, tokens: null, fine: null, fineClasses: null, hover: null, pinned: null, mask: null });
    this.tiles = source.tile && Math.max(image.height, image.width) > LARGEST ? new Tiles(image, () => this.image === image && this.later()) : null;
    this.canvas.setAttribute("aria-label", `${image.split}/${image.id}`);
    this.fit();
    const still = () => this.image === image;
    if (!this.tiles) this.whole(image, still);
    images.show([image.row]).then(() => still() && this.repaint());
    source.tokens(image.row).then((tokens) => still() && ((this.tokens = tokens), this.opened?.(), this.later()), (error) => state.tell("notice", error.message));
    this.classify();
  }

  /** The picture of an image, and the group of each of its pixels. */
  whole(image, still) {
    const picture = new Image();
    picture.onload = () => still() && ((this.picture = picture), this.later());
    picture.onerror = () => still() && state.tell("notice", `${image.split}/${image.id} cannot be shown: has the file changed?`);
    picture.src = source.picture(image.row, LARGEST);
    source.map?.(image.row).then((map) => still() && ((this.fine = map), this.repaint()), () => {});
  }

  /** Ask for the classes of every pixel where points decide. */
  async classify() {
    const { image } = this;
    if (!image || this.tiles || !images.pointed) return void (this.fineClasses = null);
    if (this.asking) return void (this.again = true);
    this.asking = true;
    try {
      do {
        this.again = false;
        const said = state.said;
        const [map] = await source.classify(said, [image.row], true);
        if (this.image === image && said.points.length) this.fineClasses = { said, map };
        this.repaint();
      } while (this.again && images.pointed);
    } catch (error) {
      state.tell("notice", error.message);
    }
    this.asking = false;
    if (this.image !== image) this.classify();
  }

  // Where things are -----------------------------------------------------------------------------------------------------

  fit() {
    const { image, canvas } = this;
    if (!image || !canvas.width) return;
    this.scale = Math.min((canvas.width - 32) / image.width, (canvas.height - 32) / image.height);
    this.least = Math.min(this.scale, 1) / 2;
    this.left = (canvas.width - image.width * this.scale) / 2;
    this.top = (canvas.height - image.height * this.scale) / 2;
    this.fitted = true;
    this.later();
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((side) => Math.round(side * ratio));
    if (!width || (width === this.canvas.width && height === this.canvas.height)) return;
    this.canvas.width = width;
    this.canvas.height = height;
    if (this.fitted !== false) this.fit();
    this.later();
  }

  zoom(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const scale = Math.min(64, Math.max(this.least, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.later();
  }

  /** The place under a point of the canvas, or null outside of the image. */
  place(x, y) {
    const { image, plane } = this;
    if (!image || !plane) return null;
    const px = (x - this.left) / this.scale;
    const py = (y - this.top) / this.scale;
    if (px < 0 || py < 0 || px >= image.width || py >= image.height) return null;
    return { y: Math.min(plane.rows - 1, Math.floor((py * plane.rows) / image.height)), x: Math.min(plane.columns - 1, Math.floor((px * plane.columns) / image.width)), py: Math.floor(py), px: Math.floor(px) };
  }

  /** The place in the middle of a patch. */
  middle({ y, x }) {
    const { image, plane } = this;
    return { y, x, py: Math.min(image.height - 1, Math.floor(((y + 0.5) * image.height) / plane.rows)), px: Math.min(image.width - 1, Math.floor(((x + 0.5) * image.width) / plane.columns)) };
  }

  get plane() {
    return this.tokens ?? (this.tiles ? null : images.plane(this.image?.row)?.map) ?? null;
  }

  unitAt(place) {
    const plane = images.plane(this.image.row);
    if (!plane?.map.rows || !this.plane) return null;
    const [y, x] = [(place.y * plane.map.rows) / this.plane.rows, (place.x * plane.map.columns) / this.plane.columns].map(Math.floor);
    const at = y * plane.map.columns + x;
    const index = units({ values: plane.map.values.subarray(at, at + 1) }, plane.classes && { values: plane.classes.values.subarray(at, at + 1) })[0];
    return state.units[index] ?? null;
  }

  point(place) {
    return { split: this.image.split, image: this.image.id, y: place.py, x: place.px };
  }

  // What is drawn --------------------------------------------------------------------------------------------------------

  later() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  /** Groups have changed, or how they are shown. */
  repaint() {
    this.mask = null;
    this.later();
  }

  masks() {
    if (this.mask) return this.mask;
    const coarse = images.plane(this.image.row);
    const fineClasses = images.pointed ? this.fineClasses?.map : null;
    const [map, classes] = this.fine && (!images.pointed || fineClasses) ? [this.fine, fineClasses] : coarse ? [coarse.map, coarse.classes] : [null, null];
    if (!map?.rows) return null;
    const found = units(map, classes);
    return (this.mask = { smooth: map !== this.fine, fill: painted(map, found), lines: state.outlines ? outlined(map, found) : null });
  }

  draw() {
    this.frame = 0;
    const { canvas, image } = this;
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!image) return;
    const [width, height] = [image.width * this.scale, image.height * this.scale];
    context.imageSmoothingEnabled = this.scale < 4;
    if (this.picture) context.drawImage(this.picture, this.left, this.top, width, height);
    const fine = this.tiles?.draw(context, this, image.height / (this.plane?.rows || image.height)) ?? [];
    const asked = this.hover ?? this.pinned;
    context.imageSmoothingEnabled = true;
    if (state.heat && asked && this.tokens) {
      heat(similarity(this.tokens, tokenAt(this.tokens, asked)), this.tokens.tall, this.tokens.wide, this.heat);
      context.drawImage(this.heat, this.left, this.top, width, height);
    } else {
      const masks = this.masks();
      const coarse = () => {
        if (!masks) return;
        context.imageSmoothingEnabled = masks.smooth && !masks.lines;
        if (masks.lines) context.drawImage(masks.lines, this.left, this.top, width, height);
        else cover(context, masks.fill, state.opacity, this.left, this.top, width, height);
      };
      if (fine.length) this.tiles.drawGroups(context, this, fine, coarse);
      else coarse();
    }
    if (this.plane) for (const [place, dashed] of [[this.pinned, false], [this.hover, true]]) if (place) this.frameAround(context, place, dashed);
    this.points(context);
  }

  frameAround(context, place, dashed) {
    const { image, plane } = this;
    const [tall, wide] = [(image.height / plane.rows) * this.scale, (image.width / plane.columns) * this.scale];
    const [x, y] = [this.left + place.x * wide, this.top + place.y * tall];
    for (const [color, width] of [["rgba(0,0,0,.75)", 4], ["#fff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.setLineDash(dashed && width === 2 ? [4, 3] : []);
      context.strokeRect(x, y, wide, tall);
    }
    context.setLineDash([]);
  }

  points(context) {
    const ratio = devicePixelRatio || 1;
    for (const point of state.said.points) {
      if (point.image !== this.image.id || point.split !== this.image.split) continue;
      const unit = state.byKey.get(`c:${point.class}`);
      context.beginPath();
      context.arc(this.left + (point.x + 0.5) * this.scale, this.top + (point.y + 0.5) * this.scale, 6 * ratio, 0, 7);
      context.fillStyle = unit?.color ?? "#888";
      context.fill();
      for (const [color, width] of [["rgba(0,0,0,.8)", 4], ["#fff", 2]]) {
        context.strokeStyle = color;
        context.lineWidth = width * ratio;
        context.stroke();
        context.fill();
      }
    }
  }

  // The pointer ------------------------------------------------------------------------------------------------------------

  listen() {
    const { canvas } = this;
    const at = (event) => {
      const ratio = devicePixelRatio || 1;
      return [event.offsetX * ratio, event.offsetY * ratio];
    };
    let down = null;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), ...at(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      down = { from: at(event), left: this.left, top: this.top, moved: false };
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      if (down) {
        down.moved ||= Math.hypot(x - down.from[0], y - down.from[1]) > 5;
        if (!down.moved) return;
        this.left = down.left + x - down.from[0];
        this.top = down.top + y - down.from[1];
        this.fitted = false;
        return this.later();
      }
      this.pointAt(this.place(x, y));
    });
    canvas.addEventListener("pointerup", (event) => {
      const place = down && !down.moved ? this.place(...at(event)) : null;
      down = null;
      if (place) this.call.click(place);
    });
    canvas.addEventListener("pointerleave", () => this.pointAt(null));
    canvas.addEventListener("dblclick", () => this.fit());
  }

  pointAt(place) {
    const same = place && this.hover && place.x === this.hover.x && place.y === this.hover.y;
    this.hover = place;
    if (same) return;
    this.call.hover(place);
    this.later();
  }
}
