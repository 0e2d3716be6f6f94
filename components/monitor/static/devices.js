// Serial and Edge Impulse devices: what they say, what they were told, what they answered.
import { h, Keyed, list, say, toggle } from "./dom.js";
import { clock, number } from "./words.js";

const ROWS = 100;
const TOLD = { command: "Command", answer: "Answer" }; // other lines are what the device says by itself

function flat(record) {
  if (typeof record === "string") return record;
  if (typeof record?.raw === "string" && Object.keys(record).length === 1) return record.raw;
  const { at, ...rest } = record ?? {}; // the time stands before it
  return JSON.stringify(record === null || Array.isArray(record) || typeof record !== "object" ? record : rest);
}

class Device {
  constructor({ title, kind, source }) {
    this.facts = h("p", { className: "dim" });
    this.lines = h("ol");
    this.scroll = h("div", { className: "lines", tabIndex: 0, role: "log", "aria-live": "off", "aria-label": `Newest of ${title}` }, this.lines);
    this.empty = h("p", { className: "dim" }, "Nothing came yet");
    this.node = h("section", { className: "device", "aria-label": title, "data-kind": kind, "data-source": source }, h("h2", {}, title), this.facts, this.empty, this.scroll);
  }

  update({ facts }) {
    say(this.facts, facts);
  }

  record(what, record) {
    const at = Number.isFinite(record?.at) ? record.at : Date.now() / 1000;
    const told = TOLD[what];
    const line = h("li", { className: told ? what : "said" }, h("time", {}, clock(at)), told ? h("span", { className: "what" }, told) : null, h("code", {}, flat(record).slice(0, 2000)));
    this.lines.prepend(line);
    while (this.lines.childElementCount > ROWS) this.lines.lastChild.remove();
    toggle(this.empty, false);
  }
}

const heard = (count, one, seen) => (count ? `${number(count)} ${one}s, newest ${clock(seen)}` : "");
const factsOf = (device) =>
  [device.format, heard(device.records, "record", device.seen), heard(device.results, "message", device.seen), device.device && `Edge Impulse device ${device.device}`]
    .filter(Boolean)
    .join(" · ");

export class DevicesView {
  title = "Devices";
  known = new Map();

  constructor() {
    this.none = h("p", { className: "dim" }, "No serial port and no Edge Impulse device has been heard.");
    this.body = h("div", { className: "devices" });
    this.keyed = new Keyed(this.body, (one) => `${one.kind} ${one.source}`, (one) => new Device(one));
    this.node = h("div", { className: "plain" }, h("h1", {}, "Devices"), this.none, this.body);
  }

  wishes() {
    return { records: true };
  }

  state(state) {
    for (const one of list(state.serial)) this.#know("serial", one.port, factsOf(one));
    for (const one of list(state.edge_impulse)) this.#know("edge_impulse", one.source, factsOf(one));
    this.#show();
  }

  #know(kind, source, facts) {
    const title = `${kind === "serial" ? "Serial" : "Edge Impulse"} ${source}`;
    this.known.set(`${kind} ${source}`, { kind, source, title, facts });
  }

  #show() {
    this.keyed.update([...this.known.values()]);
    toggle(this.none, this.known.size === 0);
  }

  record({ kind, source, what, record }) {
    if (kind !== "serial" && kind !== "edge_impulse") return;
    if (!this.known.has(`${kind} ${source}`)) {
      this.#know(kind, source, "");
      this.#show();
    }
    this.keyed.parts.get(`${kind} ${source}`).record(what, record);
  }
}
