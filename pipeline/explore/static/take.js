// Taking results along: a format, its progress, where the files are, and the command that does the same.
import { text } from "./annotation.js";
import { download, modal } from "./dialogs.js";
import { fill, h, percent, plural } from "./dom.js";
import { source } from "./source.js";
import { state } from "./state.js";

/** A file of the annotation, as `stegoflow annotate` reads it. */
export function saveAnnotation() {
  download("annotation.yaml", text(state.said, state.facts.clusters));
}

const copied = (words) => h("div", { class: "copy" }, h("code", {}, words), h("button", { class: "small", onclick: (event) => navigator.clipboard?.writeText(words).then(() => (event.target.textContent = "Copied")) }, "Copy"));

function annotationNote() {
  const { classes, groups, points } = state.said;
  const live = Boolean(source.export);
  return h("section", { class: "file" }, h("h3", {}, "What you said"), h("p", { class: "muted" }, `${plural(classes.length, "class", "classes")}, ${plural(Object.keys(groups).length, "group")}, ${plural(points.length, "point")}: a text file that can be read, compared and used again.`), h("button", { onclick: saveAnnotation }, "Download annotation.yaml"),
    live && [h("p", { class: "muted" }, "Masks, scores and report of the whole run follow when its config says: "), copied("stegoflow run my.yaml --set classes.annotation=newest"),
      h("p", { class: "muted" }, "Another run of these images, with more groups, another head or seed, gets the same names by: "), copied(`stegoflow annotate OTHER-RUN --from ${state.facts.run}`)]);
}

/** What an export holds now. */
function what() {
  const { groups, points, classes } = state.said;
  if (!points.length && !Object.keys(groups).length) return `Nothing is named yet: the files hold the ${state.view.n} groups of the list.`;
  const left = state.units.filter((unit) => unit.kind === "group").reduce((sum, unit) => sum + unit.share, 0);
  const empty = !points.length && left > 0.0005 ? ` What has no name (${percent(left)}) is left empty.` : "";
  return `The files hold ${plural(classes.length, "class", "classes")}, with names and colours.${empty}`;
}

/** The window for exports. */
export function takeAlong() {
  if (!source.export) return modal("Take along", () => [annotationNote(), h("p", { class: "muted" }, "Give it to the run that this page was made from: "), copied(`stegoflow annotate ${state.facts.run} annotation.yaml`)]);
  const { formats, splits } = state.facts;
  const status = h("div", { class: "status", "aria-live": "polite" });
  const start = h("button", { class: "primary" }, "Export");
  let timer = 0;
  const radio = (one, at) => h("label", { class: "format", title: one.inside }, h("input", { type: "radio", name: "format", value: one.name, checked: at === 0, disabled: Boolean(one.missing) }), h("span", {}, h("b", {}, one.title), h("span", { class: "muted" }, one.missing ? `needs ${one.missing}` : one.note)));
  const checks = Object.entries(splits).map(([name, [from, to]]) => [name, h("input", { type: "checkbox", value: name, checked: true }), to - from]);

  async function follow() {
    const found = (await source.progress()).export;
    if (!found) return;
    const { done, total, finished, error, out, command, written } = found;
    start.disabled = !finished;
    if (status.childElementCount === 0) setTimeout(() => status.scrollIntoView({ block: "nearest" }), 50);
    fill(
      status,
      finished ? null : [h("progress", { max: total || 1, value: total ? done : undefined }), h("p", { class: "muted" }, total ? `${done.toLocaleString("en")} of ${plural(total, "image")}` : "Starting…")],
      error ? h("p", { class: "wrong", role: "alert" }, error) : null,
      finished && !error ? [h("p", { class: "done" }, `${plural(written ?? total, "file")} written to`), copied(out), h("p", {}, h("a", { class: "button", href: source.archive(), download: "" }, "Download as one zip file"))] : null,
      h("p", { class: "muted" }, "The same on the command line:"),
      copied(command),
    );
    if (!finished) timer = setTimeout(follow, 250);
  }

  start.onclick = async () => {
    start.disabled = true;
    try {
      const format = dialog.querySelector("input[name=format]:checked")?.value;
      const chosen = checks.filter(([, box]) => box.checked).map(([name]) => name);
      await source.export({ format, splits: chosen.length === checks.length ? [] : chosen, cut: state.view.n });
      await follow();
    } catch (error) {
      start.disabled = false;
      fill(status, h("p", { class: "wrong", role: "alert" }, error.message));
    }
  };
  const dialog = modal(
    "Take along",
    () => [
      h("p", { class: "muted" }, what()),
      h("div", { class: "formats", role: "radiogroup", "aria-label": "Format" }, formats.map(radio)),
      checks.length > 1 ? h("div", { class: "row" }, checks.map(([name, box, count]) => h("label", { class: "inline" }, box, `${name} (${count.toLocaleString("en")})`))) : null,
      h("div", { class: "row end" }, start),
      status,
      annotationNote(),
    ],
    { wide: true },
  );
  dialog.addEventListener("close", () => clearTimeout(timer));
  follow().catch(() => {});
}
