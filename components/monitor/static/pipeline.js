// Results of one pipeline as they come, its charts, and what another threshold would have shown.
import { Chart } from "./chart.js";
import { h, list, say, toggle } from "./dom.js";
import { Screen } from "./draw.js";
import { clock, feature, ms, number, pace, summary } from "./words.js";

const KEPT = 300;
const ROWS = 25;
const PICTURE_MS = 1000; // from one picture of a request to the next
const PRIVATE = "Pictures of requests are not shown: this pipeline has privacy, and they are not blurred.";
const NO_FOLDER = "Pictures of requests are not shown: request_dirs of edgeml.Monitor names no folder.";
const NOT_THERE = "The picture of the newest request is not there, or not below request_dirs of edgeml.Monitor.";
const BELOW = "What lies below the deployed threshold does not reach this page.";

/** What a chart shows of a result: {values, dashed}; null where there is nothing to draw. */
export function figures(result) {
  const found = result?.results;
  if (Array.isArray(found)) {
    const best = {};
    for (const { label, score } of found) if (Number.isFinite(score)) best[label] = Math.max(best[label] ?? 0, score);
    return { values: best, dashed: [] };
  }
  if (Array.isArray(found?.values)) {
    const values = {};
    const dashed = [];
    found.values.slice(0, 6).forEach((value, at) => {
      const name = feature(found, at);
      values[name] = value;
      if (Number.isFinite(found.thresholds?.[at])) {
        values[`${name} limit`] = found.thresholds[at];
        dashed.push(`${name} limit`);
      }
    });
    return { values, dashed };
  }
  if (Number.isFinite(found?.value)) {
    return { values: { value: found.value, ...(Number.isFinite(found.measured) ? { "value measured": found.measured } : {}) }, dashed: ["value measured"] };
  }
  return null;
}

export class PipelineView {
  constructor(shared, name) {
    Object.assign(this, { shared, name, title: name, pipeline: null, results: [], moved: false });
    this.facts = h("p", { className: "dim" });
    this.last = h("p", { className: "last", role: "status" });
    this.canvas = h("canvas", { width: 480, height: 270, role: "img", "aria-label": `Live picture with what ${name} found` });
    this.frame = h("div", { className: "frame", hidden: true }, this.canvas);
    this.asked = h("img", { alt: "", onload: () => this.#shown(true), onerror: () => this.#shown(false) });
    this.file = h("figcaption");
    this.picked = h("figure", { className: "asked", hidden: true }, this.asked, this.file);
    this.unseen = h("p", { className: "dim", hidden: true });
    this.screen = new Screen(this.canvas, () => ({ least: Number(this.slider.value) }));
    this.chart = new Chart("Over time");
    this.events = h("ul", { className: "plain" });
    this.happened = h("section", { hidden: true, "aria-label": "What happened" }, h("h2", {}, "What happened"), this.events);
    this.rows = h("tbody");
    const head = h("tr", {}, ...["Time", "Found", "Took"].map((title) => h("th", { scope: "col" }, title)));
    this.table = h("table", {}, h("caption", {}, "Newest results"), h("thead", {}, head), this.rows);
    this.node = h("div", { className: "pipeline-view" }, h("h1", {}, name), this.facts, this.last, h("div", { className: "beside" }, h("div", {}, this.frame, this.picked, this.unseen), this.#threshold()), this.chart.node, this.happened, h("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Newest results" }, this.table));
  }

  #threshold() {
    this.slider = h("input", { type: "range", id: "threshold", min: "0.01", max: "1", step: "0.01", value: "0.01", oninput: () => {
      this.moved = true;
      this.#tried();
    } });
    this.shown = h("output", { for: "threshold" });
    this.json = h("pre", { tabIndex: 0, role: "region", "aria-label": "Configuration" });
    this.copy = h("button", { type: "button", onclick: () => this.#copy() }, "Copy");
    this.box = h("section", { className: "threshold", hidden: true, "aria-label": "Score threshold" }, h("label", { for: "threshold" }, "Try a score threshold"), this.slider, this.shown, this.json, this.copy);
    return this.box;
  }

  #tried() {
    const least = Number(this.slider.value);
    const all = this.results.flatMap((result) => (Array.isArray(result.results) ? result.results : []));
    const below = all.every(({ score }) => score >= least);
    const kept = all.filter(({ score }) => score >= least).length;
    say(this.shown, `At ${least.toFixed(2)}: ${kept} of ${all.length} found in the last ${this.results.length} results. ${below ? BELOW : ""}`);
    say(this.json, JSON.stringify({ pipelines: { [this.name]: { score_threshold: least } } }, null, 2));
    this.screen.again();
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.json.textContent);
      this.shared.announce("Configuration copied");
    } catch {
      getSelection().selectAllChildren(this.json); // no clipboard without TLS: it is selected instead
      this.shared.announce("Configuration selected: copy it now");
    }
  }

  wishes() {
    const camera = this.pipeline?.camera;
    return { follow: [this.name], watch: camera ? { [camera]: { max_width: 480 } } : {} };
  }

  state(state) {
    this.pipeline = list(state.pipelines).find((one) => one.name === this.name) ?? null;
    const p = this.pipeline;
    say(this.facts, p ? [`${p.model ?? ""} ${p.model_version ?? ""}`.trim(), pace(p)].filter(Boolean).join(" · ") : "There is no such pipeline now");
    if (p && !this.results.length) say(this.last, p.last);
    if (p?.threshold > 0 && !this.moved) this.slider.value = p.threshold; // it begins at what is deployed
    toggle(this.frame, Boolean(p?.camera));
    if (!p?.pictures) toggle(this.picked, false);
    this.#ask();
    this.#why();
  }

  /** Says why there is no picture of a request, where there is none. */
  #why() {
    const reason = this.pipeline?.private ? PRIVATE : this.pipeline?.pictures ? NOT_THERE : NO_FOLDER;
    say(this.unseen, reason);
    toggle(this.unseen, Boolean(this.named) && this.picked.hidden && !(this.pipeline?.pictures && !this.answered));
  }

  result({ pipeline, result }) {
    if (pipeline !== this.name || !result || typeof result !== "object") return;
    this.results.push(result);
    if (this.results.length > KEPT) this.results.shift();
    const at = result.source?.captured_at || Date.now() / 1000;
    const text = summary(result);
    say(this.last, text);
    const took = Object.values(result.latency_ms ?? {}).reduce((sum, value) => sum + (Number.isFinite(value) ? value : 0), 0);
    this.rows.prepend(h("tr", {}, h("td", {}, clock(at)), h("td", {}, text), h("td", {}, ms(took || null))));
    while (this.rows.rows.length > ROWS) this.rows.lastChild.remove();
    const drawn = figures(result);
    if (drawn) this.chart.add(at, drawn.values, drawn.dashed);
    if (typeof result.source?.file === "string" && result.source.file) {
      this.named = true;
      this.wanted = { at: String(result.source.captured_at), file: result.source.file };
      this.#ask();
      this.#why();
    }
    if (Array.isArray(result.results)) {
      toggle(this.box, true);
      this.#tried();
    }
  }

  /** Shows the newest result's picture, if it may be seen; one is under way at a time. */
  #ask() {
    const { wanted, loading } = this;
    if (!wanted || loading || !this.pipeline?.pictures) return;
    Object.assign(this, { wanted: null, loading: wanted });
    this.asked.src = `/result/${encodeURIComponent(this.name)}.jpg?at=${encodeURIComponent(wanted.at)}`;
  }

  #shown(there) {
    const name = this.loading?.file.split("/").pop().slice(0, 200) ?? "";
    toggle(this.picked, there);
    say(this.file, name);
    this.asked.alt = `Picture ${name}`;
    this.answered = true;
    this.#why();
    this.timer = setTimeout(() => {
      this.loading = null;
      this.#ask();
    }, PICTURE_MS);
  }

  event({ pipeline, event }) {
    if (pipeline !== this.name || !event || typeof event !== "object") return;
    const where = [event.zone, event.line, event.direction].filter(Boolean).join(" ");
    const who = [event.track ? `#${Number(event.track)}` : "", event.label, Number.isFinite(event.count) ? `now ${event.count}` : ""].filter(Boolean).join(" ");
    const lasted = Number.isFinite(event.seconds) && event.seconds > 0 ? `${number(event.seconds)} s` : "";
    this.events.prepend(h("li", {}, `${clock(event.at)} ${[String(event.event).replaceAll("_", " "), where, who, lasted].filter(Boolean).join(" · ")}`.slice(0, 300)));
    while (this.events.childElementCount > ROWS) this.events.lastChild.remove();
    toggle(this.happened, true);
  }

  async picture(picture) {
    if (picture.header.camera !== this.pipeline?.camera) return;
    const results = list(picture.header.results).filter((one) => one.pipeline === this.name);
    await this.screen.show({ ...picture, header: { ...picture.header, results } });
  }

  close() {
    clearTimeout(this.timer);
    this.chart.close();
  }
}
