// Elements out of data. What comes from the device becomes text nodes or attributes, never markup.

/** An element: `props` are properties (className, href ...), `aria-*`, `role` and `data-*` attributes, `on*` listeners. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for" || name === "list") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return node;
}

/** Sets text only where it differs: what a screen reader or a selection holds is left alone. */
export function say(node, text) {
  const words = String(text ?? "");
  if (node.textContent !== words) node.textContent = words;
}

export function toggle(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/** A list whose parts stay the same elements while their key stays, so focus and pictures survive an update. */
export class Keyed {
  constructor(parent, keyOf, make) {
    Object.assign(this, { parent, keyOf, make, parts: new Map() });
  }

  update(items) {
    const wanted = new Set();
    let before = null;
    for (const item of items ?? []) {
      const key = this.keyOf(item);
      if (wanted.has(key)) continue;
      wanted.add(key);
      let part = this.parts.get(key);
      if (!part) this.parts.set(key, (part = this.make(item)));
      part.update(item);
      const place = before ? before.nextSibling : this.parent.firstChild;
      if (place !== part.node) this.parent.insertBefore(part.node, place);
      before = part.node;
    }
    for (const [key, part] of this.parts) {
      if (wanted.has(key)) continue;
      part.node.remove();
      this.parts.delete(key);
    }
  }
}

export const list = (value) => (Array.isArray(value) ? value : []);
