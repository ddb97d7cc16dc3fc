// All images in a grid that is only made where it is seen, each with its groups over it.
import { debounced, fill, h, plural } from "./dom.js";
import { images } from "./images.js";
import { cover, painted, units } from "./paint.js";
import { go } from "./route.js";
import { source } from "./source.js";
import { nothingSaid, state } from "./state.js";

const GAP = 12;
const CAPTION = 24;

/** A picture with its groups over it. */
class Tile {
  constructor() {
    this.canvas = h("canvas", {});
    this.caption = h("span", { class: "caption" });
    this.element = h("a", { class: "tile", tabIndex: -1 }, h("span", { class: "frame" }, this.canvas), this.caption);
    this.picture = null;
    this.row = -1;
  }

  async show(index, side) {
    this.index = index;
    this.side = side;
    const image = await images.at(index);
    if (this.index !== index || !image) return;
    this.row = image.row;
    this.element.href = `#/image/${image.row}`;
    this.element.title = `${image.split}/${image.id}`;
    fill(this.caption, image.id);
    const scale = side / Math.max(image.height, image.width, 1);
    const ratio = Math.min(2, devicePixelRatio || 1);
    this.canvas.width = Math.max(1, Math.round(image.width * scale * ratio));
    this.canvas.height = Math.max(1, Math.round(image.height * scale * ratio));
    this.canvas.style.width = `${this.canvas.width / ratio}px`;
    this.canvas.style.height = `${this.canvas.height / ratio}px`;
    this.picture = null;
    this.draw();
    const picture = new Image();
    picture.onload = () => {
      if (this.index === index) {
        this.picture = picture;
        this.draw();
      }
    };
    picture.onerror = () => this.index === index && this.element.classList.add("broken");
    this.element.classList.remove("broken");
    picture.src = source.picture(image.row, side * ratio > 200 ? 400 : 200);
  }

  draw() {
    const { canvas } = this;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
    if (this.picture) context.drawImage(this.picture, 0, 0, canvas.width, canvas.height);
    const plane = images.plane(this.row);
    if (!plane || !plane.map.rows || !state.opacity) return;
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    cover(context, painted(plane.map, units(plane.map, plane.classes)), state.opacity, 0, 0, canvas.width, canvas.height);
  }
}

function firstSteps() {
  const box = h("div", { class: "welcome" });
  const render = () => {
    box.hidden = !nothingSaid() || state.welcomed;
    if (box.hidden) return;
    fill(
      box,
      h("div", {},
        h("h2", {}, "Say what you see"),
        h("p", {}, "Every colour is a group of patches that look alike; the list on the left shows typical ones of each. Name a group, and give two groups the same name where they are one thing, or split one that is several. Where the groups are wrong, open an image, choose “Teach” and click on patches: every image follows at once."),
      ),
      h("button", { class: "quiet", "aria-label": "Dismiss", onclick: () => ((state.welcomed = true), render()) }, "✕"),
    );
  };
  state.on("change", render);
  render();
  return box;
}

/** The first view: {element, enter, leave}. */
export function overview() {
  const inner = h("div", { class: "inner" });
  const grid = h("div", { class: "grid", tabIndex: 0, "aria-label": "Images" }, inner);
  const found = h("span", { class: "muted" });
  const size = h("input", { type: "range", min: 90, max: 320, value: 168, "aria-label": "Size of the pictures" });
  const search = h("input", { type: "search", placeholder: "Find images by name", "aria-label": "Find images by name", id: "search" });
  const opacity = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: state.opacity, "aria-label": "How strongly groups cover the picture", oninput: () => state.set("opacity", Number(opacity.value)) });
  const alone = h("button", { class: "toggle", title: "A", onclick: () => state.set("alone", !state.alone) }, "Chosen group only");
  const element = h(
    "main",
    { class: "overview" },
    h("div", { class: "bar" }, search, found, h("span", { class: "grow" }), alone, h("label", { class: "inline" }, "groups", opacity), h("label", { class: "inline" }, "size", size)),
    firstSteps(),
    grid,
  );
  let tiles = new Map();
  let spare = [];
  let cursor = 0;

  function measures() {
    const wide = grid.clientWidth - GAP;
    const side = Number(size.value);
    const columns = Math.max(1, Math.floor(wide / (side + GAP)));
    const pitch = wide / columns;
    return { columns, pitch, side: Math.floor(pitch - GAP), height: Math.floor(pitch) + CAPTION };
  }

  const load = debounced(40, () => {
    const rows = [...tiles.values()].map((tile) => tile.row).filter((row) => row >= 0);
    images.show(rows).catch(() => {});
  });

  function layout() {
    if (!element.isConnected) return;
    const { columns, pitch, side, height } = measures();
    inner.style.height = `${Math.ceil(images.total / columns) * height + GAP}px`;
    const first = Math.max(0, Math.floor(grid.scrollTop / height) - 1) * columns;
    const last = Math.min(images.total, (Math.ceil((grid.scrollTop + grid.clientHeight) / height) + 1) * columns);
    const next = new Map();
    for (const [index, tile] of tiles) if (index < first || index >= last) spare.push(tile);
    for (let index = first; index < last; index++) {
      let tile = tiles.get(index);
      if (!tile || tile.side !== side) {
        if (!tile) tile = spare.pop() ?? new Tile();
        if (!tile.element.isConnected) inner.append(tile.element);
        tile.row = -1;
        tile.show(index, side).then(load, (error) => state.tell("notice", error.message));
      }
      tile.element.style.transform = `translate(${GAP / 2 + (index % columns) * pitch}px, ${GAP / 2 + Math.floor(index / columns) * height}px)`;
      tile.element.style.width = `${side}px`;
      tile.element.style.height = `${height - GAP / 2}px`;
      tile.element.classList.toggle("cursor", index === cursor);
      next.set(index, tile);
    }
    for (const tile of spare) tile.element.remove(), (tile.index = -1);
    spare = spare.slice(0, 40);
    tiles = next;
    load();
  }

  function refill() {
    for (const tile of tiles.values()) tile.element.remove(), (tile.index = -1);
    tiles = new Map();
    fill(found, images.query ? plural(images.total, "image") + " found" : plural(images.total, "image"));
    layout();
  }

  function draw() {
    opacity.value = String(state.opacity);
    alone.setAttribute("aria-pressed", String(state.alone));
    for (const tile of tiles.values()) tile.draw();
  }

  function move(step) {
    cursor = Math.min(images.total - 1, Math.max(0, cursor + step));
    const { columns, height } = measures();
    const top = Math.floor(cursor / columns) * height;
    if (top < grid.scrollTop) grid.scrollTop = top;
    if (top + height > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + height - grid.clientHeight;
    layout();
  }

  grid.addEventListener("scroll", layout, { passive: true });
  size.addEventListener("input", layout);
  search.addEventListener("input", debounced(150, () => images.search(search.value.trim()).catch((error) => state.tell("notice", error.message))));
  new ResizeObserver(layout).observe(grid);
  images.addEventListener("listing", () => {
    grid.scrollTop = 0;
    cursor = 0;
    refill();
  });
  images.addEventListener("planes", draw);
  for (const event of ["change", "look", "select"]) state.on(event, () => element.isConnected && draw());
  state.on("change", () => element.isConnected && load());
  return {
    element,
    enter: () => refill(),
    leave: () => {},
    keys: {
      ArrowLeft: () => move(-1),
      ArrowRight: () => move(1),
      PageDown: () => move(measures().columns),
      PageUp: () => move(-measures().columns),
      i: () => tiles.get(cursor) && go(tiles.get(cursor).element.getAttribute("href")),
      "/": () => search.focus(),
    },
  };
}
