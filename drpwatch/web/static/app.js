// The page: which session is shown, and when what is asked again.

import * as daemon from "./daemon.js";
import { ago, byId, clock, count, element, fillList, gigabytes, median, score, seconds } from "./format.js";
import { Gallery } from "./gallery.js";
import { SquareMap } from "./map.js";
import { gradient } from "./picks.js";
import { Plots } from "./plots.js";
import { Viewer } from "./viewer.js";

const OVERVIEW_MS = 700;
const GALLERY_MS = 400;
const FIGURES_MS = 3000;
const ANYWAY_MS = 15000; // what no event tells, such as the end of a wait
const NEWEST = 20; // micrographs that tell what the microscope does now

const state = { sessions: [], name: null, series: null, map: null, threshold: null };

// ---- which session, and which micrograph, as in the address: #apo1 or #apo1/123 -----------------

function fromAddress() {
  const [name, id] = decodeURIComponent(location.hash.slice(1)).split("/");
  return { name: name || null, id: /^\d+$/.test(id ?? "") ? Number(id) : null };
}

function toAddress(name, id = null) {
  history.replaceState(null, "", `#${encodeURIComponent(name)}${id === null ? "" : `/${id}`}`);
}

const gallery = new Gallery((id) => open(id));
const squares = new SquareMap((id) => open(id));
const viewer = new Viewer((id) => {
  toAddress(state.name, id);
  if (id === null) focusTile();
});
const plots = new Plots();
let opened = null; // the tile that the large view was opened from

function open(id) {
  opened = id;
  return viewer.open(state.name, id, gallery.show).catch(told);
}

function focusTile() {
  document.querySelector(`.tile[data-id="${opened}"]`)?.focus();
}

/** An answer that is a refusal is shown; that the daemon is away is told by the stream of events. */
function told(error) {
  if (error instanceof daemon.Refused) byId("live").title = error.message;
  else if (!(error instanceof TypeError)) throw error;
}

// ---- the parts, each asked anew at its own pace --------------------------------------------------

const overview = daemon.throttled(() => showOverview().catch(told), OVERVIEW_MS);
const tiles = daemon.throttled(() => gallery.refresh().catch(told), GALLERY_MS);
const figures = daemon.throttled(() => showFigures().catch(told), FIGURES_MS);

async function showOverview() {
  const [sessions, { devices }] = await Promise.all([daemon.sessions(), daemon.about()]);
  Object.assign(state, { sessions });
  tellDevices(devices);
  const names = state.sessions.map((one) => one.name);
  byId("nothing").hidden = names.length > 0;
  byId("session-view").hidden = names.length === 0;
  tellNames(names);
  if (!names.length) return;
  if (!names.includes(state.name)) await enter(names.includes(fromAddress().name) ? fromAddress().name : names[0]);
  tellSession(state.sessions.find((one) => one.name === state.name));
}

/** What picks: its name and state in short, and all that is known of it below the pointer. */
function tellDevices(devices) {
  const told = devices.map((device) => {
    const { title, text, kind } = inWords(device);
    const item = element("li", { title }, text);
    item.dataset.state = kind;
    return item;
  });
  const list = byId("devices");
  const same = told.length === list.children.length && told.every((item, n) => item.isEqualNode(list.children[n]));
  if (!same) list.replaceChildren(...told);
}

function inWords({ name, not_ready: reason, released, memory_bytes: memory, tile_px: tile }) {
  const kind = reason !== null ? "away" : released ? "released" : "ready";
  const words = { away: "not ready", released: "released", ready: "ready" }[kind];
  const parts = [`${name ?? "no device yet"}: ${words}`];
  if (kind === "ready" && memory.total) parts.push(`${gigabytes(memory.total - memory.free)} of ${gigabytes(memory.total)} GB`);
  const more = [
    reason ?? (released ? "nothing to pick, so that the models are off it" : null),
    memory.total ? `${gigabytes(memory.reserved)} GB held by drpwatch` : null,
    tile === null ? null : `tiles of ${tile} px`,
  ];
  return { kind, text: parts.join(", "), title: more.filter(Boolean).join("; ") };
}

function tellNames(names) {
  const select = byId("session");
  const labels = state.sessions.map((one) => `${one.name} (${one.state})`);
  const same = select.options.length === names.length && labels.every((label, n) => select.options[n].text === label);
  if (!same) select.replaceChildren(...names.map((name, n) => element("option", { value: name }, labels[n])));
  if (state.name) select.value = state.name;
}

async function enter(name) {
  state.name = name;
  state.series = state.map = state.threshold = null;
  byId("session").value = name;
  showFigures().catch(told);
  await gallery.enter(name);
  const { name: wanted, id } = fromAddress();
  if (wanted === name && id !== null && !viewer.isOpen) await open(id);
  else if (!viewer.isOpen) toAddress(name);
}

async function showFigures() {
  const { name } = state;
  if (name === null) return;
  const [series, map, scores] = await Promise.all([daemon.series(name), daemon.map(name), daemon.scores(name)]);
  if (name !== state.name) return;
  Object.assign(state, { series, map, threshold: scores.in_force });
  squares.put(map);
  const session = state.sessions.find((one) => one.name === name);
  plots.put(series, scores);
  if (session) tellSession(session);
}

// ---- the head of a session -----------------------------------------------------------------------

function tellSession(session) {
  document.title = `${session.name}: ${count(session.picks)} picks - drpwatch`;
  byId("session-name").textContent = session.name;
  byId("session-state").textContent = session.idle ? `${session.state}, idle` : session.state;
  byId("session-state").dataset.state = session.state;
  byId("session-about").textContent = `${session.params.diameter_angstrom} Å, since ${clock(session.created_at)}`;
  const problems = byId("problems");
  problems.hidden = session.problems.length === 0;
  problems.replaceChildren(...session.problems.map((problem) => element("li", {}, problem)));
  tellFigures(session);
  tellAbout(session);
}

function tellFigures(session) {
  const { picked, failed, ready, waiting } = session.micrographs;
  const [now, all] = medians();
  const latency = state.series?.latency_median_s?.filter((value) => value != null).at(-1);
  const low = now !== null && all > 0 && now < 0.3 * all;
  const figures = [
    ["micrographs", count(picked), failed ? `${count(failed)} failed` : "none failed", failed ? "warn" : ""],
    ["picks", count(session.picks), picked ? `${count(session.picks / picked)} on average` : "", ""],
    ["picks now", count(now), all === null ? "" : `median of ${Math.min(NEWEST, picked)}; all: ${count(all)}`, low ? "bad" : ""],
    ["per hour", count(session.micrographs_per_hour), session.idle ? "idle" : "", ""],
    ["to be picked", count(ready), waiting ? `${count(waiting)} incomplete` : "all whole", ""],
    ["latency", seconds(latency), "whole to recorded", ""],
    ["last recorded", ago(session.last_recorded_at), clock(session.last_recorded_at), ""],
  ];
  const list = byId("figures");
  if (list.children.length !== figures.length) {
    list.replaceChildren(...figures.map(() => element("div", {}, element("dt"), element("dd", { className: "value" }), element("dd", { className: "note" }))));
  }
  figures.forEach(([term, value, note, kind], n) => {
    const box = list.children[n];
    box.className = kind;
    [term, value, note].forEach((text, part) => {
      if (box.children[part].textContent !== text) box.children[part].textContent = text;
    });
  });
}

/** Medians of the picks of the newest micrographs, and of all. */
function medians() {
  if (!state.map) return [null, null];
  const cells = state.map.groups.flatMap((group) => group.id.map((id, n) => [id, group.n_picks[n]]));
  const picked = cells.filter(([, picks]) => picks >= 0).sort(([a], [b]) => b - a).map(([, picks]) => picks);
  return [median(picked.slice(0, NEWEST)), median(picked)];
}

/** What the newest micrographs tell of the diameter, where it is clearly more than what was given. */
function seenDiameter(session) {
  const seen = session.seen_diameter_angstrom;
  return seen === null ? "" : ` given; rings in the newest power spectra tell of ${Math.round(seen)} Å, and so they are picked`;
}

function tellAbout(session) {
  const { params } = session;
  fillList(byId("about"), [
    ["watches", session.watch_root],
    ["files", session.glob],
    ["writes to", session.out_dir],
    ["particle", `${params.diameter_angstrom} Å${seenDiameter(session)}${params.negative_stain ? ", bright (negative stain)" : ""}`],
    ["pixel size", session.pixel_size_angstrom ? `${Number(session.pixel_size_angstrom.toFixed(4))} Å` : "not known yet"],
    ["threshold", params.threshold == null ? `${score(state.threshold)}, that of the model` : score(params.threshold)],
    ["model", `${params.model}${session.weights_sha256 ? `, ${session.weights_sha256.slice(0, 12)}` : ""}`],
    ["parameters", `version ${session.params_version}${session.outdated ? `; ${count(session.outdated)} micrographs picked otherwise` : ""}`],
    ["expected end", session.expected_end_at ? clock(session.expected_end_at) : null],
  ]);
}

// ---- what brings it to life ----------------------------------------------------------------------

function everything() {
  overview();
  tiles();
  figures();
}

daemon.listen({
  changed(kind, data) {
    overview();
    if (data.session !== null && data.session !== state.name) return;
    if (kind === "found") return;
    tiles();
    if (kind !== "picture") figures();
  },
  anew: everything,
  state(now) {
    byId("live").dataset.state = now;
    byId("live").textContent = now === "away" ? "daemon away" : now;
  },
});

byId("session").addEventListener("change", (event) => enter(event.target.value).then(overview).catch(told));
window.addEventListener("hashchange", () => {
  const { name, id } = fromAddress();
  if (name !== null && name !== state.name && state.sessions.some((one) => one.name === name)) enter(name).then(overview).catch(told);
  else if (id !== null) open(id);
});

/** Draw circles around picks, or leave the pictures as they are: in tiles and in large. */
function showCircles(on) {
  viewer.circles = on;
  byId("tiles").classList.toggle("bare", !on);
  for (const button of document.querySelectorAll(".circles")) button.setAttribute("aria-pressed", String(on));
  if (viewer.isOpen) viewer.draw();
}

for (const button of document.querySelectorAll(".circles")) button.addEventListener("click", () => showCircles(!viewer.circles));

const help = byId("help");
byId("help-button").addEventListener("click", () => help.showModal());
byId("help-close").addEventListener("click", () => help.close());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=range]")) return;
  const across = Math.max(1, getComputedStyle(byId("tiles")).gridTemplateColumns.split(" ").length);
  const inList = !viewer.isOpen && !help.open;
  const act = {
    "?": () => (help.open ? help.close() : help.showModal()),
    p: () => showCircles(!viewer.circles),
    ...(inList && {
      f: () => gallery.chooseNext().catch(told),
      ArrowLeft: () => gallery.step(-1),
      ArrowRight: () => gallery.step(1),
      ...(document.activeElement?.matches(".tile") && {
        ArrowUp: () => gallery.step(-across),
        ArrowDown: () => gallery.step(across),
      }),
    }),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

byId("scale").style.background = gradient();
setInterval(everything, ANYWAY_MS);
setInterval(() => {
  const session = state.sessions.find((one) => one.name === state.name);
  if (session) tellFigures(session);
}, 1000);
everything();
