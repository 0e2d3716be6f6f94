// One camera, large, with what its pipelines found in the very frame that is shown.
import { h, Keyed, list, say, toggle } from "./dom.js";
import { Screen } from "./draw.js";
import { motion, number, summary } from "./words.js";

const MAX_WIDTH = 960;

class Found {
  constructor({ pipeline }) {
    this.text = h("span");
    this.node = h("li", {}, h("a", { href: `#/pipeline/${encodeURIComponent(pipeline)}` }, pipeline), this.text);
  }

  update({ result }) {
    say(this.text, summary(result));
  }
}

export class CameraView {
  constructor(shared, name) {
    Object.assign(this, { shared, name, title: name, pipelines: [], commands: [] });
    this.canvas = h("canvas", { width: 960, height: 540, role: "img", "aria-label": `Live picture of ${name}` });
    this.screen = new Screen(this.canvas, () => ({
      zones: this.pipelines.flatMap((p) => list(p.zones)),
      lines: this.pipelines.flatMap((p) => list(p.lines)),
    }));
    this.badge = h("span", { className: "badge" }, "Waiting for a picture");
    this.frame = h("div", { className: "frame large empty" }, this.canvas, this.badge);
    this.latency = h("span", { className: "figure" });
    this.facts = h("span", { className: "dim" });
    this.motion = h("span", { className: "motion" });
    const ul = h("ul", { className: "found" });
    this.found = new Keyed(ul, (one) => one.pipeline, (one) => new Found(one));
    this.node = h(
      "div",
      { className: "camera-view" },
      h("h1", {}, name),
      h(
        "div",
        { className: "look" },
        h("div", { className: "stage" }, this.frame, this.#buttons()),
        h("div", { className: "aside" }, h("p", { className: "row" }, this.latency, this.motion, this.facts), h("section", { "aria-label": "What was found" }, ul)),
      ),
    );
    this.keys = (event) => this.#key(event);
    addEventListener("keydown", this.keys);
  }

  #buttons() {
    this.pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.#pause() }, "Pause");
    this.command = ["start", "stop"].map((command) =>
      h("button", { type: "button", hidden: true, onclick: () => this.shared.link.send({ command: { camera: this.name, command } }) }, `${command === "start" ? "Start" : "Stop"} camera`),
    );
    return (this.buttons = h(
      "div",
      { className: "buttons" },
      this.pause,
      h("button", { type: "button", onclick: () => this.#full() }, "Full screen"),
      h("button", { type: "button", onclick: () => this.#snapshot() }, "Snapshot"),
      ...this.command,
    ));
  }

  #key(event) {
    if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "p") this.#pause();
    if (event.key === "f") this.#full();
  }

  #pause() {
    this.screen.paused = !this.screen.paused;
    this.pause.setAttribute("aria-pressed", String(this.screen.paused));
    say(this.pause, this.screen.paused ? "Go on" : "Pause");
    this.shared.link.wish(this.wishes());
  }

  #full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.frame.requestFullscreen?.().catch(() => this.shared.announce("Full screen is not allowed here"));
  }

  #snapshot() {
    if (!this.screen.header) return;
    const { frame_id: frame } = this.screen.header;
    this.canvas.toBlob((blob) => {
      const href = URL.createObjectURL(blob);
      h("a", { href, download: `${this.name}-${frame}.png` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 10000);
      this.shared.announce("Snapshot saved");
    });
  }

  wishes() {
    return { watch: this.screen.paused ? {} : { [this.name]: { max_width: MAX_WIDTH } } };
  }

  state(state) {
    const camera = list(state.cameras).find((one) => one.name === this.name);
    this.pipelines = list(state.pipelines).filter((one) => one.camera === this.name);
    const commands = list(camera?.commands);
    this.command.forEach((button, at) => toggle(button, commands.includes(["start", "stop"][at])));
    if (!camera) say(this.badge, "There is no such camera now");
    else if (!camera.live) say(this.badge, "The camera gives no picture");
    else if (!this.screen.header) say(this.badge, camera.private ? "Private: waits for what to blur" : "Waiting for a picture");
    else say(this.badge, "");
    toggle(this.badge, Boolean(this.badge.textContent));
    this.frame.classList.toggle("empty", !this.screen.header);
    toggle(this.buttons, Boolean(camera));
    const size = camera ? `${number(camera.width, 0)} × ${number(camera.height, 0)}`.replaceAll(",", "") : "";
    say(this.motion, camera ? motion(camera) : "");
    say(this.facts, camera ? `${size} · ${number(camera.fps)} fps · ${number(camera.skipped ?? 0)} skipped` : "");
  }

  async picture(picture) {
    if (picture.header.camera !== this.name || this.screen.paused) return;
    await this.screen.show(picture);
    const { header } = picture;
    this.node.dataset.frame = String(header.frame_id);
    this.frame.classList.remove("empty");
    toggle(this.badge, false);
    say(this.latency, `${Math.round(Math.max(0, this.shared.latency.of(header)))} ms from capture to page`);
    this.found.update(list(header.results));
  }

  close() {
    removeEventListener("keydown", this.keys);
  }
}
