// What the page keeps in the store: one request at a time, the newest content last. These are methods of `state`.
import { source } from "./source.js";

export const saving = {
  async save() {
    if (!source.save) return this.tell("saving");
    if (this.busy) return void (this.again = true);
    this.busy = true;
    this.saving = "saving";
    this.tell("saving");
    try {
      do {
        this.again = false;
        const sent = this.said;
        const found = await source.save(sent, this.version);
        // Edited again meanwhile: what others said is taken in with that, since it is made from the same version.
        if (found.merged && this.said !== sent) continue;
        this.version = found.version;
        if (found.merged) this.takeIn(found);
      } while (this.again);
      this.saving = "saved";
      this.retry = false;
    } catch (error) {
      this.saving = "failed";
      this.retry = Boolean(error.offline);
      this.tell("notice", `Not saved: ${error.message}`);
    }
    this.busy = false;
    this.tell("saving");
  },

  /** Another page has stored something: what the server made of both is shown. */
  takeIn(found) {
    this.past.push({ said: this.said, view: this.view });
    this.said = found.annotation;
    this.derive();
    this.tell("change");
    const named = found.conflicts.map((text) => text.replace(/^node (\d+)/, (_, node) => this.nameOf(Number(node))));
    const differing = named.length ? ` Where both changed the same, this page counts: ${named.join("; ")}.` : "";
    this.tell("notice", `Another page changed this too: both changes are kept and taken together.${differing}`);
  },

  /** The server has a newer version than this page, which has nothing to save. */
  async refresh(version) {
    if (this.busy || this.saving === "failed" || version <= this.version) return;
    const found = await source.annotation();
    if (this.busy || found.version <= this.version) return;
    this.version = found.version;
    this.past.push({ said: this.said, view: this.view });
    this.said = found.annotation;
    this.derive();
    this.tell("change");
    this.tell("notice", `Another page saved version ${found.version}: it is shown here. Undo goes back.`);
  },
};
