// One WebSocket carries everything. It comes back by itself, sooner at first, later when the device stays away.
import { list } from "./dom.js";
import { sound } from "./words.js";

const FIRST_MS = 500;
const LAST_MS = 15000;
const SILENT_MS = 20000; // state comes each second while a device lives
const DECODER = new TextDecoder();

/** {header, jpeg} of a binary message: 4 bytes length, JSON header, JPEG. Throws what JSON.parse throws. */
export function picture(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const header = JSON.parse(DECODER.decode(new Uint8Array(buffer, 4, length)));
  header.results = list(header.results).map((one) => ({ pipeline: String(one.pipeline), result: sound(one.result) }));
  return { header, jpeg: new Blob([new Uint8Array(buffer, 4 + length)], { type: "image/jpeg" }) };
}

/** Milliseconds from capture to now. Device and browser clocks may differ: then the fastest message seen is taken as instant. */
export class Latency {
  fastest = Infinity;

  of({ captured_at: captured, sent_at: sent }, now = Date.now() / 1000) {
    this.fastest = Math.min(this.fastest, now - sent);
    const offset = this.fastest >= 0 && this.fastest < 1 ? 0 : this.fastest;
    return 1000 * (now - offset - captured);
  }
}

export class Link extends EventTarget {
  #socket = null;
  #waited = FIRST_MS;
  #timer = 0;
  #heard = 0;
  #wishes = { watch: {}, follow: [], records: false };

  start() {
    this.#open();
    setInterval(() => {
      if (this.#socket?.readyState === WebSocket.OPEN && Date.now() - this.#heard > SILENT_MS) this.#socket.close();
    }, 5000);
    addEventListener("online", () => this.#soon(0));
    document.addEventListener("visibilitychange", () => {
      this.#sendWishes(); // nothing is encoded for a page that nobody sees
      if (!document.hidden && this.#timer) this.#soon(0);
    });
  }

  /** What this page wants from now on: {watch: {camera: {max_width}}, follow: [pipeline], records: boolean}. */
  wish(wishes) {
    this.#wishes = { watch: {}, follow: [], records: false, ...wishes };
    this.#sendWishes();
  }

  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #sendWishes() {
    this.send({ ...this.#wishes, ...(document.hidden ? { watch: {} } : {}) });
  }

  #say(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #soon(wait) {
    if (this.#socket?.readyState <= WebSocket.OPEN) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), wait);
  }

  #open() {
    this.#timer = 0;
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      this.#waited = FIRST_MS;
      this.#heard = Date.now();
      this.#sendWishes();
      this.#say("up");
    };
    socket.onmessage = ({ data }) => this.#take(data);
    socket.onclose = () => this.#lost();
  }

  async #lost() {
    this.#say("down");
    this.#soon(this.#waited * (0.75 + Math.random() / 2));
    this.#waited = Math.min(LAST_MS, this.#waited * 1.6);
    try {
      const answer = await fetch("/api/state", { redirect: "manual", signal: AbortSignal.timeout(5000) });
      if (answer.status === 401 || answer.type === "opaqueredirect") location.assign("/sign-in"); // the session ended
    } catch {
      // the device is away; the timer tries again
    }
  }

  #take(data) {
    this.#heard = Date.now();
    try {
      if (typeof data === "string") {
        const message = JSON.parse(data);
        this.#say(message.type, "result" in message ? { ...message, result: sound(message.result) } : message);
      } else this.#say("picture", picture(data));
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error; // one bad message is left out
    }
  }
}
