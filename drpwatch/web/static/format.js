// Numbers, times and elements: how things are written, in one place.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// Swedish is written as ISO 8601 is: 2026-11-24 11:59.
const dateAndTime = new Intl.DateTimeFormat("sv", { dateStyle: "short", timeStyle: "short" });

export const count = (value) => (value == null ? "–" : whole.format(value));

/** A score or a threshold, without the noise of its last binary digit. */
export const score = (value) => (value == null ? "–" : String(Number(value.toFixed(3))));

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** A number for where there is little room: 1.91M. */
export const short = (value) => (value == null ? "–" : value < 100_000 ? count(value) : compact.format(value));

export function seconds(value) {
  if (value == null) return "–";
  return `${value < 10 ? value.toFixed(1) : whole.format(value)} s`;
}

export const gigabytes = (bytes) => (bytes / 1e9).toFixed(bytes < 1e11 ? 1 : 0);

/** How long ago unix seconds are, in words that fit a caption. */
export function ago(at, now = Date.now() / 1000) {
  if (at == null) return "never";
  const past = Math.max(0, now - at);
  if (past < 60) return `${Math.floor(past)} s ago`;
  if (past < 5400) return `${Math.floor(past / 60)} min ago`;
  if (past < 129600) return `${Math.floor(past / 3600)} h ago`;
  return `${Math.floor(past / 86400)} days ago`;
}

export function clock(at) {
  if (at == null) return "–";
  return dateAndTime.format(at * 1000);
}

export const baseName = (name) => name.slice(name.lastIndexOf("/") + 1);

export function median(values) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1];
}

/** A new element: `element("p", { className: "dim" }, "text", child)`. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child != null));
  return made;
}

/** Fill a <dl> with pairs of term and description; those without a description are left out. */
export function fillList(list, pairs) {
  list.replaceChildren(
    ...pairs
      .filter(([, value]) => value != null && value !== "")
      .flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)]),
  );
}

export const byId = (id) => document.getElementById(id);

/** Read a colour of the style sheet, which follows the system's dark or light. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
