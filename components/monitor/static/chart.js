// Lines over time, drawn on a canvas; the same figures stand in a table below it for those who cannot see it.
import { h, say } from "./dom.js";
import { color } from "./theme.js";
import { colorOf } from "./draw.js";
import { clock, number } from "./words.js";

const KEPT = 300;
const SERIES = 6;

export class Chart {
  #points = []; // {at, values: {name: number}}
  #dashed = new Set();

  constructor(title) {
    this.canvas = h("canvas", { className: "chart", role: "img", "aria-label": title });
    this.legend = h("p", { className: "legend" });
    this.caption = h("p", { className: "dim" });
    this.node = h("figure", {}, h("figcaption", {}, title), this.canvas, this.legend, this.caption);
    this.redraw = () => requestAnimationFrame(() => this.#draw());
    document.addEventListener("theme", this.redraw);
    addEventListener("resize", this.redraw);
  }

  /** One moment: `at` Unix seconds; names in `dashed` are limits, drawn dashed. */
  add(at, values, dashed = []) {
    for (const name of dashed) this.#dashed.add(name);
    this.#points.push({ at, values });
    if (this.#points.length > KEPT) this.#points.shift();
    this.redraw();
  }

  close() {
    document.removeEventListener("theme", this.redraw);
    removeEventListener("resize", this.redraw);
  }

  #names() {
    const names = new Set();
    for (let at = this.#points.length - 1; at >= 0 && names.size < SERIES; at -= 1) {
      for (const name of Object.keys(this.#points[at].values)) if (names.size < SERIES) names.add(name);
    }
    return [...names].sort();
  }

  #draw() {
    if (!this.canvas.isConnected || !this.#points.length) return;
    const dense = devicePixelRatio || 1;
    const width = (this.canvas.width = this.canvas.clientWidth * dense);
    const height = (this.canvas.height = this.canvas.clientHeight * dense);
    const names = this.#names();
    const all = this.#points.flatMap(({ values }) => names.map((name) => values[name]).filter(Number.isFinite));
    const low = Math.min(0, ...all);
    const high = Math.max(low + 1e-9, ...all);
    const [from, until] = [this.#points[0].at, this.#points.at(-1).at];
    const left = 44 * dense;
    const y = (value) => height - 18 * dense - ((value - low) / (high - low)) * (height - 28 * dense);
    const x = (at) => left + ((at - from) / Math.max(1e-9, until - from)) * (width - left - 4 * dense);
    const context = this.canvas.getContext("2d");
    this.#axes(context, { dense, width, height, left, low, high, from, until, y });
    for (const name of names) this.#line(context, name, x, y, dense);
    this.legend.replaceChildren(...names.map((name) => this.#key(name)));
    say(this.caption, `${this.#points.length} moments, newest ${clock(until)}`);
  }

  #axes(context, { dense, width, height, left, low, high, from, until, y }) {
    context.font = `${11 * dense}px system-ui, sans-serif`;
    context.fillStyle = color("dim");
    context.strokeStyle = color("line");
    context.lineWidth = dense;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const value of [low, (low + high) / 2, high]) {
      context.fillText(number(value, 2), left - 6 * dense, y(value));
      context.beginPath();
      context.moveTo(left, y(value));
      context.lineTo(width, y(value));
      context.stroke();
    }
    context.textBaseline = "bottom";
    context.fillText(clock(until), width - 2 * dense, height);
    context.textAlign = "left";
    context.fillText(clock(from), left, height);
  }

  #line(context, name, x, y, dense) {
    context.strokeStyle = colorOf(name.replace(/ (limit|measured)$/, ""));
    context.lineWidth = 2 * dense;
    context.setLineDash(this.#dashed.has(name) ? [5 * dense, 4 * dense] : []);
    context.beginPath();
    for (const { at, values } of this.#points) if (Number.isFinite(values[name])) context.lineTo(x(at), y(values[name]));
    context.stroke();
    context.setLineDash([]);
  }

  #key(name) {
    const swatch = h("span", { className: `swatch${this.#dashed.has(name) ? " dashed" : ""}`, "aria-hidden": "true" });
    swatch.style.borderColor = colorOf(name.replace(/ (limit|measured)$/, ""));
    const value = this.#points.at(-1).values[name];
    return h("span", {}, swatch, `${name}${Number.isFinite(value) ? ` ${number(value, 2)}` : ""}`);
  }
}
