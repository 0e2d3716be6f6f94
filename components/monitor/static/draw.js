// Pictures with what was found in them, on a canvas.
import { percent } from "./words.js";

// Okabe and Ito's palette: told apart by colour-blind people, too.
const COLORS = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2"];

export function colorOf(label) {
  let sum = 7;
  for (const letter of String(label)) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return COLORS[sum % COLORS.length];
}

const isBox = (box) => Array.isArray(box) && box.length === 4 && box.every(Number.isFinite);

function caption(context, text, x, y, color, size) {
  context.font = `600 ${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + size * 0.7;
  const height = size * 1.45;
  const left = Math.max(0, Math.min(x, context.canvas.width - width));
  const top = y - height < 0 ? y : y - height;
  context.fillStyle = color;
  context.fillRect(left, top, width, height);
  context.fillStyle = "#000";
  context.textBaseline = "middle";
  context.fillText(text, left + size * 0.35, top + height / 2);
}

function detection(context, found, scale, line, size) {
  const [x, y, width, height] = found.box.map((value, at) => value * scale[at % 2]);
  const color = colorOf(found.label);
  context.strokeStyle = color;
  context.lineWidth = line;
  context.setLineDash(found.stationary ? [line * 3, line * 2] : []);
  context.strokeRect(x, y, width, height);
  context.setLineDash([]);
  context.fillStyle = color;
  for (const point of Array.isArray(found.landmarks) ? found.landmarks : []) {
    context.beginPath();
    context.arc(point[0] * scale[0], point[1] * scale[1], line * 1.3, 0, 7);
    context.fill();
  }
  const track = found.track ? `#${Number(found.track)} ` : "";
  if (size) caption(context, `${track}${String(found.label).slice(0, 40)} ${percent(found.score)}`, x, y, color, size);
}

function places(context, named, line, size, closed) {
  const { width, height } = context.canvas;
  for (const { name, points } of named ?? []) {
    if (!Array.isArray(points)) continue;
    context.strokeStyle = "#fff";
    context.lineWidth = line / 2;
    context.setLineDash([line * 2, line * 2]);
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x * width, y * height);
    if (closed) context.closePath();
    context.stroke();
    context.setLineDash([]);
    if (size && points[0]) caption(context, String(name).slice(0, 40), points[0][0] * width, points[0][1] * height, "#fff", size);
  }
}

/** What to draw with a frame: zones, lines (points in fractions), `least` score, `captions` or boxes alone. */
export function draw(canvas, bitmap, header, { zones = [], lines = [], least = 0, captions = true } = {}) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const scale = [bitmap.width / (header.source_width || header.width), bitmap.height / (header.source_height || header.height)];
  const shown = bitmap.width / (canvas.clientWidth || bitmap.width); // frame pixels to one of the page
  const line = shown * Math.max(2, canvas.clientWidth / 400);
  const size = captions ? shown * Math.max(12, canvas.clientWidth / 65) : 0;
  places(context, zones, line, size, true);
  places(context, lines, line, size, false);
  for (const { result } of header.results ?? []) {
    for (const found of Array.isArray(result?.results) ? result.results : []) {
      if (isBox(found?.box) && !(found.score < least)) detection(context, found, scale, line, size);
    }
  }
}

/** Shows the newest picture only: those that come while one is being decoded are left out, and receipted all the same. */
export class Screen {
  #busy = false;
  #next = null;

  constructor(canvas, options = () => ({})) {
    Object.assign(this, { canvas, options, header: null, bitmap: null, paused: false });
  }

  async show(picture) {
    if (this.paused) return;
    this.#next = picture;
    if (this.#busy) return;
    this.#busy = true;
    while (this.#next) {
      const { header, jpeg } = this.#next;
      this.#next = null;
      try {
        const bitmap = await createImageBitmap(jpeg);
        this.bitmap?.close();
        Object.assign(this, { bitmap, header });
        this.again();
      } catch (error) {
        if (!(error instanceof DOMException)) {
          this.#busy = false; // the next one is shown all the same
          throw error;
        }
      } // a broken JPEG is left out
    }
    this.#busy = false;
  }

  again() {
    if (this.bitmap) draw(this.canvas, this.bitmap, this.header, this.options());
  }
}
