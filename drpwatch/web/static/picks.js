// Picks as circles, coloured by score: red is doubtful, blue is sure, also to the colour-blind.

const STOPS = [
  [0.0, [255, 88, 60]],
  [0.35, [255, 150, 50]],
  [0.6, [255, 224, 70]],
  [0.8, [130, 226, 170]],
  [1.0, [50, 205, 255]],
];

const HALO_FROM_PX = 9; // smaller circles would hide what they are around

const TABLE = Array.from({ length: 101 }, (_, step) => mix(STOPS, step / 100));

function mix(stops, at) {
  const next = Math.max(1, stops.findIndex(([place]) => place >= at));
  const [from, low] = stops[next - 1];
  const [to, high] = stops[next];
  const share = (at - from) / (to - from);
  return `rgb(${low.map((value, n) => Math.round(value + share * (high[n] - value))).join(" ")})`;
}

/** The colour of a score, 0 to 1. */
export const colourOf = (score) => TABLE[Math.max(0, Math.min(100, Math.round(score * 100)))];

/** The scale as a CSS gradient. */
export const gradient = () => `linear-gradient(90deg, ${STOPS.map(([at, [r, g, b]]) => `rgb(${r} ${g} ${b}) ${at * 100}%`)})`;

/**
 * Draw circles, `x, y, score per mille` each in pixels of the file, on a canvas.
 *
 * `place` is { scale, x, y }: from pixels of the file to those of the canvas. Only scores of at least
 * `least` are drawn, and with `below` the others too, thin and dashed.
 */
export function drawCircles(context, circles, radiusPx, place, { least = 0, below = false, lineWidth = 1.5 }) {
  const radius = radiusPx * place.scale;
  const byColour = new Map();
  const shown = [];
  const faint = [];
  const limit = Math.round(least * 1000);
  for (let n = 0; n < circles.length; n += 3) {
    if (circles[n + 2] < limit) {
      if (below) faint.push(n);
      continue;
    }
    shown.push(n);
    const colour = colourOf(circles[n + 2] / 1000);
    if (!byColour.has(colour)) byColour.set(colour, []);
    byColour.get(colour).push(n);
  }
  const draw = (places) => {
    context.beginPath();
    for (const n of places) {
      const x = circles[n] * place.scale + place.x;
      const y = circles[n + 1] * place.scale + place.y;
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, 2 * Math.PI);
    }
    context.stroke();
  };
  context.save();
  if (faint.length) {
    context.setLineDash([3, 3]);
    context.lineWidth = lineWidth * 0.7;
    context.strokeStyle = "rgb(255 255 255 / 65%)";
    draw(faint);
    context.setLineDash([]);
  }
  if (radius >= HALO_FROM_PX) {
    context.lineWidth = lineWidth * 2;
    context.strokeStyle = "rgb(0 0 0 / 40%)";
    draw(shown);
  }
  context.lineWidth = lineWidth;
  for (const [colour, places] of byColour) {
    context.strokeStyle = colour;
    draw(places);
  }
  context.restore();
}

/** How many circles have a score of at least `least`. */
export function countFrom(circles, least) {
  const limit = Math.round(least * 1000);
  let found = 0;
  for (let n = 2; n < circles.length; n += 3) if (circles[n] >= limit) found += 1;
  return found;
}
