// What needs attention, then everything at a glance.
import { h, Keyed, list, say, toggle } from "./dom.js";
import { Screen } from "./draw.js";
import { spark } from "./spark.js";
import { ago, clock, motion, number, pace, percent, quantity } from "./words.js";

const TILE_WIDTH = 320;
const LARGE_WIDTH = 640; // of tiles that are shown much larger than that
const to = (kind, name) => `#/${kind}/${encodeURIComponent(name)}`;

class Problem {
  constructor() {
    this.what = h("strong");
    this.since = h("span", { className: "dim" });
    this.who = h("span", { className: "dim" });
    this.text = h("p");
    this.advice = h("p", { className: "advice" });
    this.node = h("li", { className: "problem" }, h("p", { className: "row" }, this.what, this.who, this.since), this.text, this.advice);
  }

  update(problem, now = Date.now() / 1000) {
    say(this.what, [problem.subject, String(problem.code ?? "").replaceAll("_", " ")].filter(Boolean).join(": "));
    say(this.who, String(problem.component ?? "").replace(/^edgeml\./, ""));
    const age = ago(problem.since, now);
    say(this.since, age && `for ${age}`);
    say(this.text, problem.text);
    say(this.advice, problem.advice);
    toggle(this.advice, Boolean(problem.advice));
  }
}

class Vital {
  constructor() {
    this.label = h("dt");
    this.value = h("dd");
    this.node = h("div", {}, this.label, this.value);
  }

  update([name, vital]) {
    say(this.label, vital?.label ?? name);
    const words = vital?.text || quantity(vital?.value, vital?.unit, vital?.whole);
    say(this.value, `${words}${vital?.problem ? " ⚠" : ""}`);
    this.node.className = vital?.problem ? "warn" : "";
  }
}

class CameraTile {
  constructor({ name }) {
    this.canvas = h("canvas", { width: TILE_WIDTH, height: 180, role: "img", "aria-label": `Live picture of ${name}` });
    this.screen = new Screen(this.canvas, () => ({ captions: false }));
    this.badge = h("span", { className: "badge" });
    this.facts = h("span", { className: "dim" });
    this.motion = h("span", { className: "motion" });
    this.node = h(
      "li",
      { className: "tile camera", "data-camera": name },
      h("a", { href: to("camera", name) }, h("div", { className: "frame" }, this.canvas, this.badge), h("p", { className: "row" }, h("strong", {}, name), this.motion, this.facts)),
    );
  }

  update(camera) {
    const waits = camera.private && !this.screen.header;
    say(this.badge, camera.live ? (waits ? "Private: waits for what to blur" : "") : "No picture");
    toggle(this.badge, Boolean(this.badge.textContent));
    this.canvas.classList.toggle("old", !camera.live);
    say(this.motion, motion(camera));
    say(this.facts, `${number(camera.fps)} fps${camera.skipped ? `, ${number(camera.skipped)} skipped` : ""}`);
  }

  async picture(picture) {
    await this.screen.show(picture);
    this.node.dataset.frame = String(picture.header.frame_id);
  }
}

class PipelineTile {
  constructor({ name }) {
    this.last = h("p", { className: "last" });
    this.model = h("span", { className: "dim" });
    this.facts = h("p", { className: "dim" });
    this.node = h("li", { className: "tile" }, h("a", { href: to("pipeline", name) }, h("p", { className: "row" }, h("strong", {}, name), this.model), this.last, this.facts));
  }

  update(pipeline) {
    say(this.last, pipeline.last || "nothing yet");
    say(this.model, `${pipeline.model ?? ""} ${pipeline.model_version ?? ""}`);
    say(this.facts, pace(pipeline));
  }
}

class ComponentTile {
  constructor({ name }) {
    this.status = h("span", { className: "status" });
    this.waiting = h("p", { className: "dim" });
    this.rates = h("ul", { className: "rates" });
    this.keyed = new Keyed(this.rates, ([rate]) => rate, () => new Rate());
    this.version = h("span", { className: "dim" });
    this.node = h("li", { className: "tile" }, h("p", { className: "row" }, h("strong", {}, String(name).replace(/^edgeml\./, "")), this.version, this.status), this.waiting, this.rates);
  }

  update(component) {
    say(this.status, component.status);
    this.status.dataset.status = component.status;
    say(this.version, component.version);
    say(this.waiting, component.waiting_for ? `waits for ${component.waiting_for}` : "");
    toggle(this.waiting, Boolean(component.waiting_for));
    const history = component.history ?? {};
    this.keyed.update(Object.entries(component.rates ?? {}).slice(0, 3).map(([rate, value]) => [rate, value, list(history[rate])]));
  }
}

class Rate {
  constructor() {
    this.canvas = h("canvas", { className: "spark", "aria-hidden": "true" });
    this.label = h("span");
    this.node = h("li", {}, this.label, this.canvas);
  }

  update([name, value, history]) {
    // "cameras.door.captured" is "door captured": whose tile it is says the rest.
    const words = String(name).replace(/^[a-z_]+\.(?=.*\.)/, "").replaceAll(/[._]/g, " ");
    say(this.label, `${words} ${number(value)}/s`);
    requestAnimationFrame(() => this.canvas.isConnected && spark(this.canvas, history));
  }
}

class Update {
  constructor({ name }) {
    this.version = h("span", { className: "dim" });
    this.status = h("span", { className: "status" });
    this.facts = h("p", { className: "dim" });
    this.bar = h("progress", { max: 1, "aria-label": `Update of ${name}` });
    this.node = h("li", { className: "tile" }, h("p", { className: "row" }, h("strong", {}, name), this.version, this.status), this.facts, this.bar);
  }

  update(model) {
    const updating = model.status === "updating";
    const known = updating && Number.isFinite(model.progress);
    say(this.version, model.version);
    say(this.status, model.status);
    this.status.dataset.status = model.status;
    const said = `by ${String(model.component ?? "").replace(/^edgeml\./, "")}, ${clock(model.seen)}`;
    say(this.facts, updating ? [model.step, known ? percent(model.progress) : "", clock(model.seen)].filter(Boolean).join(" · ") : [said, model.reason].filter(Boolean).join(": "));
    toggle(this.bar, updating);
    if (known) this.bar.value = model.progress;
    else this.bar.removeAttribute("value"); // under way, nobody knows how far
  }
}

export class Overview {
  constructor(shared, only) {
    this.title = { cameras: "Cameras", pipelines: "Pipelines" }[only] ?? "Overview";
    this.shared = shared;
    this.sections = [];
    this.cameras = [];
    this.node = h("div", { className: "overview" }, h("h1", { className: "unseen" }, this.title));
    if (!only) this.#top();
    if (only !== "pipelines") this.tiles = this.#section("Cameras", "tiles", (s) => s.cameras, (c) => c.name, (c) => new CameraTile(c));
    if (only !== "cameras") this.#section("Pipelines", "tiles small", (s) => s.pipelines, (p) => p.name, (p) => new PipelineTile(p));
    if (only) return;
    this.#section("Components", "tiles small", (s) => s.components, (c) => c.name, (c) => new ComponentTile(c));
    this.#section("Models", "tiles small", (s) => s.models, (m) => m.name, (m) => new Update(m));
  }

  #top() {
    this.well = h("p", { className: "well", hidden: true }, "Nothing needs attention");
    const problems = h("ul", { className: "problems" });
    const vitals = h("dl", { className: "vitals" });
    this.problems = new Keyed(problems, (p) => `${p.component} ${p.code} ${p.subject}`, () => new Problem());
    this.vitals = new Keyed(vitals, ([name]) => name, () => new Vital());
    this.device = h("section", { "aria-label": "Device", hidden: true }, vitals);
    this.node.append(h("section", { "aria-label": "Attention" }, this.well, problems), this.device);
  }

  #section(title, className, itemsOf, keyOf, make) {
    const ul = h("ul", { className });
    const section = h("section", { "aria-label": title, hidden: true }, h("h2", {}, title), ul);
    const keyed = new Keyed(ul, keyOf, make);
    this.sections.push((state) => {
      const items = list(itemsOf(state));
      keyed.update(items);
      toggle(section, items.length > 0);
    });
    this.node.append(section);
    return keyed;
  }

  wishes() {
    const [tile] = this.tiles?.parts.values() ?? [];
    const dots = (tile?.canvas.clientWidth ?? 0) * (devicePixelRatio || 1);
    const width = dots > 1.4 * TILE_WIDTH && this.cameras.length <= 4 ? LARGE_WIDTH : TILE_WIDTH;
    return { watch: Object.fromEntries(this.cameras.map((name) => [name, { max_width: width }])) };
  }

  state(state) {
    if (this.tiles) this.cameras = list(state.cameras).map((camera) => camera.name);
    if (this.problems) {
      this.problems.update(list(state.attention));
      toggle(this.well, !state.attention?.length);
      const vitals = Object.entries(state.vitals ?? {}).filter(([, vital]) => vital?.label);
      this.vitals.update(vitals);
      toggle(this.device, vitals.length > 0);
    }
    for (const update of this.sections) update(state);
  }

  async picture(picture) {
    await this.tiles?.parts.get(picture.header.camera)?.picture(picture);
  }
}
