// Numbers and times as a person reads them.
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export function number(value, digits = 1) {
  if (!isNumber(value)) return value === null || value === undefined ? "–" : String(value).slice(0, 200);
  const size = Math.abs(value);
  return value.toLocaleString("en", { maximumFractionDigits: size >= 100 ? 0 : size >= 1 || size === 0 ? digits : 3 });
}

export const percent = (value) => (isNumber(value) ? `${Math.round(value * 100)} %` : "–");
export const ms = (value) => (isNumber(value) ? `${number(value)} ms` : "–");

/** How a pipeline does, as far as that is known. */
export const pace = ({ fps, p50_ms: half, p99_ms: slowest }) =>
  [isNumber(fps) ? `${number(fps)}/s` : "", isNumber(half) ? `p50 ${ms(half)}` : "", isNumber(slowest) ? `p99 ${ms(slowest)}` : ""].filter(Boolean).join(" · ");

const UNITS = { celsius: "°C", ratio: "%", seconds: "s", bytes: "", bytes_per_day: "/day" };

/** A value of the device with its unit, and what it is a part of: bytes in the largest unit that gives at least 1. */
export function quantity(value, unit, whole) {
  if (!isNumber(value)) return "–";
  if (whole) return `${quantity(value, unit)} of ${quantity(whole, unit)}`;
  if (unit === "ratio") return `${number(value * 100)} %`;
  if (unit === "seconds") return ago(1, 1 + value) || "0 s";
  if (!unit?.startsWith("bytes")) return `${number(value)}${unit ? ` ${UNITS[unit] ?? unit}` : ""}`;
  const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)));
  return `${number(value / 1000 ** power)} ${["B", "kB", "MB", "GB", "TB"][power]}${UNITS[unit] ?? ""}`;
}

/** How long ago Unix time `since` is at Unix time `now`, both in seconds. */
export function ago(since, now) {
  if (!isNumber(since) || since <= 0) return "";
  const s = Math.max(0, now - since);
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}

/** That something moves before a camera, and since when. */
export const motion = (camera) => (camera.motion ? ["Motion", clock(camera.motion_since || null)].filter(Boolean).join(" since ") : "");

export const clock = (at) => (isNumber(at) ? new Date(at * 1000).toLocaleTimeString("en-GB") : "");

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isPoint = (point) => Array.isArray(point) && point.length >= 2 && point.slice(0, 2).every(Number.isFinite);

/** A result as views may rely on it: whoever publishes results says what he likes. */
export function sound(result) {
  if (!isObject(result)) return { results: [] };
  const { results } = result;
  if (!Array.isArray(results)) return { ...result, results: isObject(results) ? results : null };
  const found = results.filter(isObject).map((one) => ({ ...one, landmarks: Array.isArray(one.landmarks) ? one.landmarks.filter(isPoint) : [] }));
  return { ...result, results: found };
}

const short = (results) =>
  results
    .slice(0, 3)
    .map((one) => `${one?.label ?? "?"} ${percent(one?.score)}`)
    .join(", ") + (results.length > 3 ? ` and ${results.length - 3} more` : "");

function over({ values, thresholds }, at) {
  const [value, limit] = [values?.[at], thresholds?.[at]];
  return [isNumber(value) ? number(value, 3) : "", isNumber(limit) ? `(threshold ${number(limit, 3)})` : ""].filter(Boolean).join(" ");
}

/** The name of an anomaly's feature `at`. */
export const feature = (found, at) => String(found.features?.[at] || `feature ${at + 1}`).slice(0, 60);

/** One line about a result. */
export function summary(result) {
  const found = result?.results;
  if (result?.error) return `error: ${String(result.error).slice(0, 200)}`;
  if (Array.isArray(found)) return found.length ? short(found) : "nothing";
  if (Array.isArray(found?.anomalies)) {
    const odd = found.anomalies.flatMap((is, at) => (is === true ? [`${feature(found, at)} ${over(found, at)}`.trim()] : []));
    return odd.length ? `anomaly: ${odd.slice(0, 6).join(", ")}` : "as usual";
  }
  if (isNumber(found?.value)) return number(found.value, 2) + (isNumber(found.measured) ? `, measured ${number(found.measured, 2)}` : "");
  return JSON.stringify(found ?? null).slice(0, 200);
}
