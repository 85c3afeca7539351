// The newest micrographs as tiles, each with its picks.

import * as daemon from "./daemon.js";
import { ago, baseName, byId, count, element } from "./format.js";
import { drawCircles } from "./picks.js";

const PAGE = 24;
const MOST_ASKED = 100;
const DRAWN_PX = 440; // of a tile's canvas: sharp on any screen, and small
const SHOWS = [["all", "All"], ["picked", "With picks"], ["empty", "Empty"], ["failed", "Failed"]];

const kindOf = (one) => (one.failed ? "failed" : one.n_picks ? "picked" : "empty");

export class Gallery {
  /** `open(id)` is called for a tile that is chosen. */
  constructor(open) {
    this.open = open;
    this.show = "all";
    this.session = null;
    this.tiles = new Map(); // by id, newest first as the list has them
    this.wanted = PAGE;
    this.asking = Promise.resolve();
    this.list = byId("tiles");
    byId("older").addEventListener("click", () => this.older());
    this.buttons = SHOWS.map(([show, label]) => {
      const button = element("button", { type: "button" }, label, element("b"));
      button.dataset.show = show;
      button.addEventListener("click", () => this.choose(show));
      return button;
    });
    byId("show").append(...this.buttons);
    setInterval(() => this.tellAges(), 1000);
  }

  /** Show another session. */
  async enter(session) {
    this.session = session;
    this.clear();
    await this.refresh();
  }

  async choose(show) {
    this.show = show;
    this.clear();
    await this.refresh();
  }

  chooseNext() {
    const place = SHOWS.findIndex(([show]) => show === this.show);
    return this.choose(SHOWS[(place + 1) % SHOWS.length][0]);
  }

  clear() {
    this.tiles.clear();
    this.list.replaceChildren();
    this.wanted = PAGE;
  }

  /** Ask for what is shown, and change what differs. */
  async refresh() {
    const { session, show } = this;
    if (session === null) return;
    const answer = await daemon.gallery(session, { show, limit: Math.min(this.wanted, MOST_ASKED) });
    if (session !== this.session || show !== this.show) return;
    this.tellCounts(answer.counts);
    this.put(answer.micrographs, { keepOlder: this.wanted > MOST_ASKED });
  }

  /** Ask for older ones; each page begins where the one before ended, however quickly they are asked for. */
  older() {
    const next = () => this.askOlder();
    this.asking = this.asking.then(next, next);
    return this.asking;
  }

  async askOlder() {
    const { session, show } = this;
    const last = [...this.tiles.values()].at(-1);
    if (!last) return;
    const answer = await daemon.gallery(session, { show, limit: PAGE, before: last.one.seq });
    if (session !== this.session || show !== this.show) return;
    this.wanted += PAGE;
    this.put([...[...this.tiles.values()].map((tile) => tile.one), ...answer.micrographs], {});
    this.tellCounts(answer.counts);
  }

  /** Let the tiles be these, newest first; tiles that are the same stay. */
  put(micrographs, { keepOlder = false }) {
    const first = this.tiles.size === 0;
    const oldest = micrographs.at(-1)?.seq ?? 0;
    const rest = keepOlder ? [...this.tiles.values()].map((tile) => tile.one).filter((one) => one.seq < oldest) : [];
    const next = new Map();
    for (const one of [...micrographs, ...rest]) {
      const old = this.tiles.get(one.id);
      const same = old && old.one.threshold === one.threshold && old.one.pictures === one.pictures;
      const tile = same ? old : this.make(one);
      tile.item.firstChild.classList.toggle("new", !old && !first);
      next.set(one.id, tile);
    }
    this.tiles = next;
    // Only what is not in its place is moved: a tile that stays keeps the focus.
    let after = this.list.firstChild;
    for (const { item } of next.values()) {
      if (item === after) after = after.nextSibling;
      else this.list.insertBefore(item, after);
    }
    while (after) {
      const gone = after;
      after = after.nextSibling;
      gone.remove();
    }
    this.tellAges();
  }

  make(one) {
    const kind = kindOf(one);
    const frame = element("span", { className: "frame" });
    if (one.pictures && !one.failed) {
      frame.append(this.picture(one), circlesOf(one));
    } else {
      frame.append(element("span", { className: "instead" }, one.failed ? one.reason : "no picture"));
    }
    const picks = { failed: "failed", empty: "no picks", picked: `${count(one.n_picks)} picks` }[kind];
    const age = element("span", { className: "age" });
    const button = element(
      "button",
      { type: "button", className: "tile", title: one.name },
      frame,
      element(
        "span",
        { className: "caption" },
        element("span", { className: "name" }, element("bdi", {}, baseName(one.name))),
        element("span", { className: "picks" }, picks),
        age,
      ),
    );
    button.dataset.kind = kind;
    button.dataset.id = one.id;
    button.addEventListener("click", () => this.open(one.id));
    return { one, age, item: element("li", {}, button) };
  }

  picture(one) {
    return element("img", {
      src: daemon.pictureUrl(this.session, one.id, "small"),
      alt: "",
      loading: "lazy",
      decoding: "async",
    });
  }

  tellCounts(counts) {
    for (const button of this.buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.show === this.show));
      button.lastChild.textContent = count(counts[button.dataset.show]);
    }
    const there = counts[this.show];
    byId("no-tiles").hidden = there > 0;
    byId("older").hidden = there <= Math.max(PAGE, this.wanted);
  }

  tellAges() {
    for (const { one, age } of this.tiles.values()) {
      const text = ago(one.recorded_at);
      if (age.textContent !== text) age.textContent = text;
    }
  }

  /** Move the focus by some tiles. */
  step(by) {
    const buttons = [...this.list.querySelectorAll("button.tile")];
    const place = buttons.indexOf(document.activeElement);
    const next = buttons[place < 0 ? 0 : Math.max(0, Math.min(buttons.length - 1, place + by))];
    next?.focus();
  }
}

function circlesOf(one) {
  const [height, width] = one.shape_yx;
  const scale = DRAWN_PX / Math.max(height, width);
  const canvas = element("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
  const radiusPx = (one.diameter_px ?? Math.max(height, width) / 40) / 2;
  const lineWidth = Math.max(1.5, Math.min(3, (radiusPx * scale) / 5)); // thin where there are many
  drawCircles(canvas.getContext("2d"), one.circles, radiusPx, { scale, x: 0, y: 0 }, { lineWidth });
  return canvas;
}
