// Elements from plain values. Text becomes text nodes and nothing else: a name is never HTML.

/** An element: properties, `on…` listeners, `data-…` and `aria-…` attributes, `style` as an object; then its children. */
export function h(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "style") Object.assign(element.style, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name.includes("-") || name === "for" || name === "role" || name === "list") element.setAttribute(name, value);
    else element[name] = value;
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** Put children in the place of what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  return append(element, children);
}

const words = (element) => [element.tagName, element.id, element.getAttribute("aria-label"), element.textContent].join(" ");

/** `fill` for what is being used: what has the focus has it afterwards, known by its words; else the element, or its first button. */
export function refill(element, ...children) {
  const focused = element.contains(document.activeElement) && document.activeElement !== element ? words(document.activeElement) : null;
  fill(element, ...children);
  if (focused === null) return;
  const same = [...element.querySelectorAll("a, button, input")].find((one) => words(one) === focused && one.checkVisibility());
  (same ?? (element.tabIndex < 0 ? element.querySelector("button") : element))?.focus({ preventScroll: true });
}

export const percent = (share) =>
  share >= 0.0995 ? `${Math.round(100 * share)} %` : share >= 0.0005 ? `${(100 * share).toFixed(1)} %` : share > 0 ? "< 0.1 %" : "–";

/** The share of a unit; one that was counted in some images is not exact. */
export const shareOf = (unit) => (unit.counted ? `≈ ${percent(unit.share)}` : percent(unit.share));

export const plural = (count, one, many = one + "s") => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Calls a function once, later, however often it is asked to. */
export function debounced(milliseconds, call) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), milliseconds);
  };
}

/** A key as a person reads it on a keyboard. */
export const key = (...names) => names.map((name) => h("kbd", {}, name));
