// The map: a cell for every micrograph, a row for every directory. A grid square that goes bad turns dark.

import { byId, clock, colour, count, element, median } from "./format.js";

const CELL = { width: 9, height: 15, gap: 1 };
const BAD_SHARE = 0.3; // of the session's median: as in the alert rules
const LEAST_JUDGED = 4; // micrographs of a directory
// Dark to bright, also to the colour-blind (viridis).
const STOPS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]];

const shade = (share) => {
  const at = Math.max(0, Math.min(1, share)) * (STOPS.length - 1);
  const low = STOPS[Math.floor(at)];
  const high = STOPS[Math.ceil(at)];
  return `rgb(${low.map((value, n) => Math.round(value + (at % 1) * (high[n] - value))).join(" ")})`;
};

export class SquareMap {
  /** `open(id)` is called for a cell that is chosen. */
  constructor(open) {
    this.open = open;
    this.box = byId("map");
    this.groups = [];
    let width = 0;
    new ResizeObserver(() => {
      if (this.box.clientWidth !== width) {
        width = this.box.clientWidth;
        this.draw();
      }
    }).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  put({ groups }) {
    this.groups = groups.toReversed(); // what the microscope does now comes first
    this.draw();
  }

  draw() {
    const picks = this.groups.flatMap((group) => group.n_picks.filter((n) => n >= 0)).sort((a, b) => a - b);
    const usual = median(picks);
    const most = picks[Math.floor((picks.length - 1) * 0.95)] || 1;
    const below = this.box.scrollTop;
    const rows = this.groups.map((group) => this.row(group, usual, most));
    const bad = rows.filter((row) => row.classList.contains("bad"));
    // What has gone bad is seen without scrolling.
    this.box.replaceChildren(...bad, ...rows.filter((row) => !bad.includes(row)));
    byId("map-told").textContent = bad.length ? `${count(bad.length)} of ${count(rows.length)} with few picks` : "";
    // Widths are known once the rows are there.
    for (const row of this.box.children) row.paint();
    this.box.scrollTop = below;
    tellScale(most);
  }

  row(group, usual, most) {
    const picked = group.n_picks.filter((n) => n >= 0);
    const own = median(picked);
    const bad = picked.length >= LEAST_JUDGED && usual > 0 && own < BAD_SHARE * usual;
    const canvas = element("canvas");
    const strip = element("div", { className: "strip" }, canvas);
    const name = group.name || "(top directory)";
    const failed = group.n_picks.length - picked.length;
    const told = picked.length ? `median ${count(own)} of ${count(group.id.length)}` : `${count(failed)} failed`;
    const row = element(
      "div",
      { className: bad ? "row bad" : "row", title: `${name}: ${clock(group.first_at)} to ${clock(group.last_at)}, ${failed} failed` },
      element("span", { className: "group" }, element("bdi", {}, name)),
      strip,
      element("span", { className: "median" }, told),
    );
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${name}: ${told}, ${failed} failed`);
    row.paint = () => this.paint(canvas, strip.clientWidth, group, most);
    return row;
  }

  paint(canvas, width, group, most) {
    const ratio = window.devicePixelRatio || 1;
    const across = Math.max(1, Math.floor(width / CELL.width));
    const rows = Math.ceil(group.id.length / across);
    canvas.width = Math.round(Math.min(across, group.id.length) * CELL.width * ratio);
    canvas.height = Math.round(rows * CELL.height * ratio);
    canvas.style.width = `${canvas.width / ratio}px`;
    canvas.style.height = `${canvas.height / ratio}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const bad = colour("--bad");
    group.n_picks.forEach((picks, n) => {
      const x = (n % across) * CELL.width;
      const y = Math.floor(n / across) * CELL.height;
      context.fillStyle = picks < 0 ? bad : shade(picks / most);
      context.fillRect(x, y, CELL.width - CELL.gap, CELL.height - CELL.gap);
    });
    const cellAt = (event) => {
      const box = canvas.getBoundingClientRect();
      const n = Math.floor((event.clientY - box.top) / CELL.height) * across + Math.floor((event.clientX - box.left) / CELL.width);
      return group.id[n] === undefined ? null : n;
    };
    canvas.onclick = (event) => {
      const n = cellAt(event);
      if (n !== null) this.open(group.id[n]);
    };
    canvas.onmousemove = (event) => {
      const n = cellAt(event);
      canvas.title = n === null ? "" : group.n_picks[n] < 0 ? "failed" : `${count(group.n_picks[n])} picks`;
    };
  }
}

function tellScale(most) {
  const box = byId("map-scale");
  if (box.dataset.most === String(most)) return;
  box.dataset.most = most;
  const bar = element("i");
  bar.style.background = `linear-gradient(90deg, ${STOPS.map((_, n) => shade(n / (STOPS.length - 1)))})`;
  const failed = element("i", { className: "cell" });
  failed.style.background = "var(--bad)";
  box.replaceChildren("0", bar, `${count(most)} picks`, failed, "failed");
}
