// Serial and Edge Impulse devices: what they say, what they were told, what they answered.
import { h, Keyed, list, say, toggle } from "./dom.js";
import { clock } from "./words.js";

const ROWS = 100;

function flat(record) {
  if (typeof record === "string") return record;
  if (typeof record?.raw === "string" && Object.keys(record).length === 1) return record.raw;
  return JSON.stringify(record ?? null);
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

  record(kind, record) {
    const at = Number.isFinite(record?.at) ? record.at : Date.now() / 1000;
    this.lines.prepend(h("li", { className: kind }, h("time", {}, clock(at)), h("code", {}, flat(record).slice(0, 2000))));
    while (this.lines.childElementCount > ROWS) this.lines.lastChild.remove();
    toggle(this.empty, false);
  }
}

const factsOf = (device, hidden) =>
  Object.entries(device)
    .filter(([name, value]) => !hidden.includes(name) && ["string", "number", "boolean"].includes(typeof value))
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`)
    .join(" · ");

export class DevicesView {
  title = "Devices";
  known = new Map();

  constructor() {
    this.none = h("p", { className: "dim" }, "No serial port and no Edge Impulse device has been heard.");
    this.body = h("div", { className: "devices" });
    this.keyed = new Keyed(this.body, (one) => `${one.kind} ${one.source}`, (one) => new Device(one));
    this.node = h("div", {}, h("h1", {}, "Devices"), this.none, this.body);
  }

  wishes() {
    return { records: true };
  }

  state(state) {
    for (const one of list(state.serial)) this.#know("serial", one.port, factsOf(one, ["port"]));
    for (const one of list(state.edge_impulse)) this.#know("edge_impulse", one.source, factsOf(one, ["source"]));
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

  record({ kind, source, record }) {
    const home = kind === "command" && this.known.has(`serial ${source}`) ? "serial" : kind === "command" ? "edge_impulse" : kind;
    if (home !== "serial" && home !== "edge_impulse") return;
    if (!this.known.has(`${home} ${source}`)) {
      this.#know(home, source, "");
      this.#show();
    }
    this.keyed.parts.get(`${home} ${source}`).record(kind, record);
  }
}
