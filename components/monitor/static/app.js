// What is shown follows the address: #/, #/camera/NAME, #/pipeline/NAME, #/cameras, #/pipelines, #/devices.
import { CameraView } from "./camera.js";
import { DevicesView } from "./devices.js";
import { say } from "./dom.js";
import { Latency, Link } from "./link.js";
import { Overview } from "./overview.js";
import { PipelineView } from "./pipeline.js";
import { chooseTheme } from "./theme.js";

const element = (id) => document.getElementById(id);
const main = element("main");
const link = new Link();
const shared = { link, state: null, latency: new Latency(), announce: (text) => say(element("said"), text) };
const LISTS = { "#/cameras": ["cameras"], "#/pipelines": ["pipelines"], "#/devices": ["serial", "edge_impulse"] };
let view = null;
let attention = null;

function viewOf(path) {
  const [kind, name] = path.replace(/^#?\/?/, "").split("/");
  let named = "";
  try {
    named = decodeURIComponent(name ?? "");
  } catch {
    // not an address of ours: the overview
  }
  if (kind === "camera" && named) return new CameraView(shared, named);
  if (kind === "pipeline" && named) return new PipelineView(shared, named);
  if (kind === "devices") return new DevicesView(shared);
  return new Overview(shared, ["cameras", "pipelines"].includes(kind) ? kind : "");
}

function here() {
  const [kind] = location.hash.replace(/^#?\/?/, "").split("/");
  const section = { camera: "#/cameras", pipeline: "#/pipelines" }[kind] ?? `#/${kind}`;
  for (const anchor of document.querySelectorAll("nav a")) {
    if (anchor.getAttribute("href") === section) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

/** A view of nothing is no place to go. */
function offer(state) {
  for (const anchor of document.querySelectorAll("nav a")) {
    const lists = LISTS[anchor.getAttribute("href")];
    if (lists) anchor.hidden = !lists.some((name) => state[name]?.length);
  }
}

function open({ focus }) {
  view?.close?.();
  view = viewOf(location.hash);
  main.replaceChildren(view.node);
  document.title = `${view.title} · ${shared.state?.thing ?? "Monitor"}`;
  here();
  if (shared.state) view.state(shared.state);
  link.wish(view.wishes());
  if (!focus) return;
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

/** Some views want more once they know what there is. */
let wished = "";
function wishAgain() {
  const wishes = view.wishes();
  if (JSON.stringify(wishes) !== wished) link.wish(wishes);
  wished = JSON.stringify(wishes);
}

function told({ detail: { state } }) {
  if (!state || typeof state !== "object") return;
  shared.state = state;
  say(element("thing"), state.thing ?? "Monitor");
  document.title = `${view.title} · ${state.thing ?? "Monitor"}`;
  element("out").hidden = state.auth === "off";
  offer(state);
  const online = state.core?.online !== false;
  element("lamp").className = `lamp ${!online || state.attention?.length ? "warn" : "good"}`;
  say(element("link"), online ? "Live" : "Live, core is offline");
  const count = state.attention?.length ?? 0;
  if (count !== attention) {
    if (attention !== null) shared.announce(count ? `${count} need attention` : "Nothing needs attention any more");
    attention = count;
  }
  view.state(state);
  wishAgain();
}

link.addEventListener("state", told);
link.addEventListener("result", ({ detail }) => view.result?.(detail));
link.addEventListener("record", ({ detail }) => view.record?.(detail));
link.addEventListener("event", ({ detail }) => view.event?.(detail));
link.addEventListener("reply", ({ detail: { camera, reply } }) => {
  if (["start", "stop"].includes(reply?.command)) shared.announce(`${camera}: ${reply.command} ${reply.ok === false ? reply.error : "done"}`);
});
link.addEventListener("picture", async ({ detail }) => {
  const { camera, frame_id: frame } = detail.header;
  await view.picture?.(detail);
  link.send({ shown: { camera, frame_id: frame } });
});
link.addEventListener("down", () => {
  element("lamp").className = "lamp bad";
  say(element("link"), "Reconnecting");
  document.body.classList.add("stale");
});
link.addEventListener("up", () => {
  say(element("link"), "Connected");
  document.body.classList.remove("stale");
});

chooseTheme(element("theme"));
// The fragment is the view's address, so this link may not change it.
element("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => open({ focus: true }));
open({ focus: false });
link.start();
