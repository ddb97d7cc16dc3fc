// What is known of images while the page is open: their listing, planes of prototypes, and classes where points decide.
import { source } from "./source.js";
import { state } from "./state.js";

const PAGE = 200;
const KEPT = 4000;

class Images extends EventTarget {
  constructor() {
    super();
    this.query = "";
    this.total = 0;
    this.pages = new Map();
    this.planes = new Map();
    this.classes = new Map();
    this.named = new Map();
    this.visible = [];
  }

  tell(name) {
    this.dispatchEvent(new Event(name));
  }

  /** List the images whose split/id holds a text. */
  async search(query) {
    this.query = query;
    this.pages.clear();
    await this.page(0);
    this.tell("listing");
  }

  async page(number) {
    if (!this.pages.has(number)) {
      const query = this.query;
      const asked = source.images(number * PAGE, PAGE, query).then((found) => {
        for (const [row, split, id, height, width] of found.images) this.named.set(row, { row, split, id, height, width });
        return found;
      });
      this.pages.set(number, asked);
      asked.catch(() => this.pages.delete(number));
    }
    const found = await this.pages.get(number);
    this.total = found.total;
    return found;
  }

  /** The image at a place of the listing: {row, split, id, height, width}. */
  async at(index) {
    const found = await this.page(Math.floor(index / PAGE));
    const image = found.images[index % PAGE];
    return image ? this.named.get(image[0]) : null;
  }

  /** The image of a row of the table of images, whatever the listing holds. */
  async of(row) {
    if (!this.named.has(row)) {
      const found = await source.images(row, 1, "");
      for (const [at, split, id, height, width] of found.images) this.named.set(at, { row: at, split, id, height, width });
    }
    return this.named.get(row) ?? null;
  }

  rowOf(split, id) {
    for (const image of this.named.values()) if (image.split === split && image.id === id) return image.row;
    return null;
  }

  /** Let these rows be the ones on the screen: their planes, and classes where points decide, are read. */
  async show(rows) {
    this.visible = rows;
    await Promise.all([this.readPlanes(rows.filter((row) => !this.planes.has(row))), this.classify()]);
  }

  async readPlanes(rows) {
    for (const row of rows) this.planes.set(row, null); // asked for
    for (let start = 0; start < rows.length; start += 60) {
      const some = rows.slice(start, start + 60);
      try {
        const found = await source.planes(some);
        some.forEach((row, at) => this.planes.set(row, found[at]));
        this.tell("planes");
      } catch (error) {
        some.forEach((row) => this.planes.delete(row));
        state.tell("notice", error.message);
      }
    }
    for (const row of this.planes.keys()) {
      if (this.planes.size <= KEPT) break;
      if (!this.visible.includes(row)) this.planes.delete(row);
    }
  }

  /** Whether points decide what is seen, and not names of groups alone. */
  get pointed() {
    return state.said.points.length > 0 && Boolean(source.classify);
  }

  /** Ask for the classes of what is on the screen, where what is said has changed since. */
  async classify() {
    if (!this.pointed) return;
    if (this.asking) return void (this.askAgain = true);
    this.asking = true;
    try {
      do {
        this.askAgain = false;
        const said = state.said;
        const rows = this.visible.filter((row) => this.classes.get(row)?.said !== said);
        if (!rows.length || !said.points.length) break;
        const found = await source.classify(said, rows, false);
        rows.forEach((row, at) => this.classes.set(row, { said, map: found[at] }));
        this.tell("planes");
      } while (this.askAgain || this.visible.some((row) => this.classes.get(row)?.said !== state.said));
    } catch (error) {
      state.tell("notice", error.message);
    }
    this.asking = false;
  }

  /** What an image's places are: {map, classes}, or null while it is being read. */
  plane(row) {
    const map = this.planes.get(row);
    return map ? { map, classes: this.pointed ? this.classes.get(row)?.map : null } : null;
  }
}

export const images = new Images();
