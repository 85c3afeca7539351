// The plots of a session, by uPlot.

import uPlot from "./vendor/uPlot/uPlot.esm.js";
import { byId, colour, count, score, seconds, short } from "./format.js";

const HEIGHT_PX = 190;
const FROM_ZERO = { range: (_, __, most) => [0, Math.max(most ?? 0, 1) * 1.08] };

// The step between ticks, what a tick is labelled with, and what the first one of a year, day or minute has below.
const TIMES = [
  [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, ":{ss}", "\n{HH}:{mm}", null, "\n{HH}:{mm}", null, "\n{HH}:{mm}", null, 1],
];

function axes(time) {
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  return [{ ...axis, space: time ? 70 : 50, size: time ? 42 : 28, ...(time && { values: TIMES }) }, { ...axis, size: 52, space: 34 }];
}

const line = (label, name, more = {}) => ({
  label,
  stroke: colour(name),
  width: 2,
  spanGaps: true,
  points: { size: 4 },
  ...more,
});

const bars = uPlot.paths.bars({ size: [0.9, 60] });

/** What each plot is made of; the columns are those of the answer to `series`. */
const OVER_TIME = {
  rate: {
    columns: ["per_hour"],
    series: () => [line("per hour", "--plot-1", { paths: bars, fill: colour("--plot-fill"), width: 1, points: { show: false } })],
  },
  picks: {
    columns: ["picks_median", "picks_low", "picks_high"],
    series: () => [
      line("median", "--plot-1"),
      line("tenth percentile", "--plot-1", { width: 0, points: { show: false } }),
      line("ninetieth percentile", "--plot-1", { width: 0, points: { show: false } }),
    ],
    bands: () => [{ series: [3, 2], fill: colour("--plot-fill") }],
    now: (last) => (last.picks_median == null ? "" : `median ${count(last.picks_median)}`),
  },
  latency: {
    columns: ["latency_median_s", "latency_most_s"],
    series: () => [line("median", "--plot-1"), line("longest", "--plot-2", { width: 1 })],
    now: (last) => (last.latency_median_s == null ? "" : `median ${seconds(last.latency_median_s)}, longest ${seconds(last.latency_most_s)}`),
  },
  backlog: {
    columns: ["backlog"],
    series: () => [line("micrographs", "--plot-1", { fill: colour("--plot-fill"), paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } })],
    now: (last) => count(last.backlog),
  },
};

export class Plots {
  constructor() {
    this.charts = {};
    this.answers = {};
    this.session = null;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    let width = 0;
    new ResizeObserver(() => {
      const now = byId("rate-plot").clientWidth;
      if (now && now !== width) {
        width = now;
        for (const [name, chart] of Object.entries(this.charts)) {
          chart.setSize({ width: byId(`${name}-plot`).clientWidth, height: HEIGHT_PX });
        }
      }
    }).observe(byId("rate-plot"));
  }

  /** Show the answers to `series` and `scores`. */
  put(series, scores) {
    this.answers = { series, scores };
    this.putSeries(series);
    this.putScores(scores);
  }

  redraw() {
    for (const chart of Object.values(this.charts)) chart.destroy();
    this.charts = {};
    const { series, scores } = this.answers;
    if (series) this.put(series, scores);
  }

  putSeries(series) {
    const step = series.step_s;
    this.step = step ?? 1;
    for (const [name, plot] of Object.entries(OVER_TIME)) {
      const at = step ? series.begins_at.map((begins) => begins + step / 2) : [];
      const data = [at, ...plot.columns.map((column) => (step ? series[column] : []))];
      this.draw(name, data, {
        axes: axes(true),
        series: [{}, ...plot.series()],
        bands: plot.bands?.() ?? [],
        scales: { x: { range: (plot) => this.span(plot.data[0]) }, y: FROM_ZERO },
      });
      const last = Object.fromEntries(plot.columns.map((column) => [column, step ? newest(series[column]) : null]));
      if (plot.now) byId(`${name}-now`).textContent = step ? plot.now(last) : "";
    }
  }

  /** From where the first step begins to where the last one ends: uPlot makes a year of one step alone. */
  span(at) {
    return [(at[0] ?? 0) - this.step / 2, (at.at(-1) ?? 0) + this.step / 2];
  }

  putScores({ picks, in_force: threshold }) {
    const heights = picks.slice(0, -1).map((here, n) => here - picks[n + 1]);
    heights[heights.length - 1] += picks.at(-1);
    const at = heights.map((_, n) => (n + 0.5) / 100);
    const cut = threshold ?? 0;
    const first = Math.round(cut * 100);
    const chosen = heights.map((height, n) => (n >= first ? height : null));
    const others = heights.map((height, n) => (n < first ? height : null));
    const bar = (label, name, fill) => line(label, name, { paths: bars, fill, width: 1, points: { show: false } });
    this.draw("scores", [at, others, chosen], {
      axes: axes(false),
      series: [{}, bar("below the threshold", "--dim", colour("--grid")), bar("picks", "--plot-1", colour("--plot-fill"))],
      scales: { x: { time: false, range: [0, 1] }, y: FROM_ZERO },
    });
    byId("scores-now").textContent = threshold == null ? "" : `${short(picks[first])} of ${short(picks[0])} from ${score(threshold)}`;
  }

  draw(name, data, options) {
    const box = byId(`${name}-plot`);
    if (this.charts[name]) {
      this.charts[name].setData(data);
      return;
    }
    const common = { width: box.clientWidth || 320, height: HEIGHT_PX, cursor: { y: false, drag: { x: false } }, legend: { show: false } };
    this.charts[name] = new uPlot({ ...common, ...options }, data, box);
  }
}

function newest(column) {
  for (let n = column.length - 1; n >= 0; n -= 1) if (column[n] != null) return column[n];
  return null;
}
