// One micrograph in large: zoom, pan, the score under the pointer, another threshold tried, its power spectrum.

import * as daemon from "./daemon.js";
import { baseName, byId, clock, count, fillList, score, seconds } from "./format.js";
import { countFrom, drawCircles } from "./picks.js";

const MOST_ZOOM = 40;
const STEP = 1.35;

export class Viewer {
  /** `moved(id)` is called with the micrograph that is shown, null when closed. */
  constructor(moved) {
    this.moved = moved;
    this.dialog = byId("viewer");
    this.canvas = byId("stage");
    this.slider = byId("threshold");
    this.below = byId("candidates");
    this.one = null;
    this.image = null;
    this.asked = null; // stands for the latest question
    this.pointers = new Map();
    this.pointer = null; // where it hovers
    this.circles = true; // whether they are drawn
    byId("viewer-close").addEventListener("click", () => this.dialog.close());
    byId("newer").addEventListener("click", () => this.step("newer_id"));
    byId("next-older").addEventListener("click", () => this.step("older_id"));
    byId("fit").addEventListener("click", () => this.fit());
    byId("zoom-in").addEventListener("click", () => this.zoomBy(STEP));
    byId("zoom-out").addEventListener("click", () => this.zoomBy(1 / STEP));
    byId("copy").addEventListener("click", () => this.copy());
    this.slider.addEventListener("input", () => this.tellThreshold());
    this.below.addEventListener("change", () => this.draw());
    this.dialog.addEventListener("close", () => {
      this.one = this.image = this.asked = null;
      this.moved(null);
    });
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    this.followPointers();
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** Show a micrograph; `show` says which ones are next to it. */
  async open(session, id, show) {
    this.session = session;
    this.show = show;
    const asked = (this.asked = Symbol());
    const one = await daemon.micrograph(session, id, show);
    if (asked !== this.asked) return; // closed, or another one was asked for
    const keepView = this.one !== null && String(this.one.shape_yx) === String(one.shape_yx);
    this.one = one;
    this.image = null;
    if (!this.isOpen) this.dialog.showModal();
    this.canvas.focus({ preventScroll: true });
    this.tellFacts();
    this.resetThreshold();
    this.resize();
    if (!keepView) this.fit();
    this.moved(id);
    if (one.pictures && !one.failed) await this.load(one);
    this.askScores();
  }

  async load(one) {
    const image = new Image();
    image.src = daemon.pictureUrl(this.session, one.id, "large");
    try {
      await image.decode();
    } catch {
      return; // it made room for newer ones a moment ago
    }
    if (this.one !== one) return;
    this.image = image;
    this.draw();
  }

  async step(which) {
    const id = this.one?.[which];
    if (id != null) await this.open(this.session, id, this.show);
  }

  // ---- what is told beside the picture ---------------------------------------------------------

  tellFacts() {
    const one = this.one;
    byId("viewer-name").textContent = baseName(one.name);
    byId("newer").disabled = one.newer_id == null;
    byId("next-older").disabled = one.older_id == null;
    const stages = Object.entries(one.seconds);
    const total = stages.reduce((sum, [, value]) => sum + value, 0);
    const picks = one.failed ? "failed" : `${count(one.n_picks)} of ${count(one.n_candidates)} candidates`;
    fillList(byId("viewer-facts"), [
      ["picks", picks],
      ["reason", one.failed ? one.reason : null],
      ["recorded", clock(one.recorded_at)],
      ["file", one.name],
      ["frame", one.shape_yx ? `${one.shape_yx[1]} × ${one.shape_yx[0]} px` : null],
      ["particle", one.diameter_px ? `${Math.round(one.diameter_px)} px across` : null],
      ["work", total ? `${seconds(total)}: ${stages.map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ")}` : null],
      ["generation", one.generation > 1 ? `${one.generation}: it was picked again` : null],
      ["parameters", one.params_version ? `version ${one.params_version}` : null],
      ["weights", one.weights_sha256 ? `${baseName(one.model ?? "")} ${one.weights_sha256.slice(0, 12)}` : null],
    ]);
    const note = byId("stage-note");
    note.hidden = one.pictures && !one.failed;
    note.textContent = one.failed ? one.reason : "There is no picture of this micrograph; its picks are drawn where they are.";
    byId("threshold-panel").hidden = one.failed;
    const spectrum = byId("spectrum");
    byId("spectrum-panel").hidden = !one.pictures || one.failed;
    if (one.pictures && !one.failed) spectrum.src = daemon.pictureUrl(this.session, one.id, "spectrum");
    else spectrum.removeAttribute("src");
    const title = one.failed ? "failed" : `${count(one.n_picks)} picks`;
    this.canvas.setAttribute("aria-label", `The micrograph ${one.name}: ${title}`);
  }

  async askScores() {
    const session = this.session;
    const scores = await daemon.scores(session);
    if (session !== this.session) return;
    this.scores = scores;
    this.tellThreshold();
  }

  resetThreshold() {
    this.slider.value = this.one.threshold ?? 0;
    this.tellThreshold();
  }

  get least() {
    // What was cut at 0.123 is shown as cut there, until the slider is moved.
    const moved = this.slider.valueAsNumber;
    const own = this.one?.threshold ?? 0;
    return Math.abs(moved - own) < 0.0051 ? own : moved;
  }

  tellThreshold() {
    if (!this.one || this.one.failed) return;
    const least = this.least;
    byId("threshold-value").textContent = score(least);
    const here = countFrom(this.one.circles, least);
    byId("picks-here").textContent = change(this.one.n_picks, here);
    if (this.scores) {
      const session = this.scores.picks[Math.round(least * 100)];
      byId("picks-session").textContent = change(this.scores.picks[Math.round((this.one.threshold ?? 0) * 100)], session);
    }
    byId("apply").hidden = least === this.one.threshold;
    byId("command").textContent = `drpwatch session rethreshold ${this.session} ${score(least)}`;
    byId("copy").textContent = "Copy";
    this.draw();
  }

  async copy() {
    const text = byId("command").textContent;
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
    } else {
      // Over plain HTTP from another machine, browsers have the old way only.
      getSelection().selectAllChildren(byId("command"));
      document.execCommand("copy");
    }
    byId("copy").textContent = "Copied";
  }

  // ---- the picture -----------------------------------------------------------------------------

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) {
      const first = this.canvas.width === 300 && this.canvas.height === 150;
      Object.assign(this.canvas, { width, height });
      if (first || !this.place) this.fit();
    }
    this.draw();
  }

  /** Let the whole frame be seen. */
  fit() {
    if (!this.one?.shape_yx) return;
    const [height, width] = this.one.shape_yx;
    const scale = Math.min(this.canvas.width / width, this.canvas.height / height) * 0.98;
    this.least_scale = scale / 2;
    this.place = {
      scale,
      x: (this.canvas.width - width * scale) / 2,
      y: (this.canvas.height - height * scale) / 2,
    };
    this.draw();
  }

  zoomBy(factor, at = { x: this.canvas.width / 2, y: this.canvas.height / 2 }) {
    if (!this.place) return;
    const scale = Math.max(this.least_scale, Math.min(this.least_scale * MOST_ZOOM, this.place.scale * factor));
    const real = scale / this.place.scale;
    this.place = { scale, x: at.x - (at.x - this.place.x) * real, y: at.y - (at.y - this.place.y) * real };
    this.draw();
  }

  draw() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.one?.shape_yx || !this.place) return;
    const [height, width] = this.one.shape_yx;
    const { scale, x, y } = this.place;
    if (this.image) context.drawImage(this.image, x, y, width * scale, height * scale);
    else {
      context.strokeStyle = "rgb(255 255 255 / 25%)";
      context.strokeRect(x, y, width * scale, height * scale);
    }
    const lineWidth = 1.5 * (window.devicePixelRatio || 1);
    if (this.circles) drawCircles(context, this.one.circles, this.radiusPx, this.place, {
      least: this.least,
      below: this.below.checked,
      lineWidth,
    });
    this.tellUnder();
  }

  get radiusPx() {
    const [height, width] = this.one.shape_yx;
    return (this.one.diameter_px ?? Math.max(height, width) / 40) / 2;
  }

  /** Say the score of the pick under the pointer. */
  tellUnder() {
    const found = this.pointer && this.place ? this.pickAt(this.pointer) : null;
    const output = byId("under");
    output.hidden = found === null;
    if (found !== null) {
      const [x, y, perMille] = this.one.circles.slice(found, found + 3);
      output.textContent = `score ${(perMille / 1000).toFixed(2)} at ${x}, ${y}`;
    }
  }

  pickAt(pointer) {
    const x = (pointer.x - this.place.x) / this.place.scale;
    const y = (pointer.y - this.place.y) / this.place.scale;
    const limit = this.below.checked ? 0 : Math.round(this.least * 1000);
    let [best, found] = [this.radiusPx, null];
    const { circles } = this.one;
    for (let n = 0; n < circles.length; n += 3) {
      const apart = Math.hypot(circles[n] - x, circles[n + 1] - y);
      if (circles[n + 2] >= limit && apart < best) [best, found] = [apart, n];
    }
    return found;
  }

  followPointers() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const ratio = this.canvas.width / box.width;
      return { x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio };
    };
    const spread = ([one, other]) => ({
      x: (one.x + other.x) / 2,
      y: (one.y + other.y) / 2,
      apart: Math.hypot(one.x - other.x, one.y - other.y),
    });
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), at(event));
    }, { passive: false });
    this.canvas.addEventListener("dblclick", (event) => this.zoomBy(2, at(event)));
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
    });
    this.canvas.addEventListener("pointermove", (event) => {
      this.pointer = at(event);
      const before = this.pointers.get(event.pointerId);
      if (before && this.place) {
        const old = [...this.pointers.values()];
        this.pointers.set(event.pointerId, this.pointer);
        if (old.length === 1) {
          this.place = { ...this.place, x: this.place.x + this.pointer.x - before.x, y: this.place.y + this.pointer.y - before.y };
        } else if (old.length === 2) {
          const [from, to] = [spread(old), spread([...this.pointers.values()])];
          this.place = { ...this.place, x: this.place.x + to.x - from.x, y: this.place.y + to.y - from.y };
          this.zoomBy(to.apart / from.apart, to);
        }
        this.draw();
      } else {
        this.tellUnder();
      }
    });
    const up = (event) => this.pointers.delete(event.pointerId);
    this.canvas.addEventListener("pointerup", up);
    this.canvas.addEventListener("pointercancel", up);
    this.canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.tellUnder();
    });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === this.slider) return;
    const act = {
      ArrowLeft: () => this.step("newer_id"),
      ArrowRight: () => this.step("older_id"),
      f: () => this.fit(),
      c: () => this.below.click(),
      "+": () => this.zoomBy(STEP),
      "=": () => this.zoomBy(STEP),
      "-": () => this.zoomBy(1 / STEP),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }
}

function change(before, after) {
  if (before === after) return `${count(before)} picks`;
  const share = before ? ` (${after > before ? "+" : "−"}${Math.abs(Math.round((100 * (after - before)) / before))} %)` : "";
  return `${count(before)} → ${count(after)} picks${share}`;
}
