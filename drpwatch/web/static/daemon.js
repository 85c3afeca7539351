// What the daemon is asked, and what it tells by itself.

const API = "api/v1";

export class Refused extends Error {}

async function get(path) {
  const answer = await fetch(`${API}${path}`, { headers: { accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Refused(body.error ?? answer.statusText);
  return body;
}

const of = (session) => `/sessions/${encodeURIComponent(session)}`;

export const about = () => get("/daemon");
export const sessions = async () => (await get("/sessions")).sessions;
export const series = (session) => get(`${of(session)}/series`);
export const map = (session) => get(`${of(session)}/map`);
export const scores = (session) => get(`${of(session)}/scores`);
export const micrograph = (session, id, show) => get(`${of(session)}/gallery/${id}?show=${show}`);
export const pictureUrl = (session, id, view) => `${API}${of(session)}/gallery/${id}/${view}`;

export function gallery(session, { show, limit, before }) {
  const query = new URLSearchParams({ show, limit, ...(before == null ? {} : { before }) });
  return get(`${of(session)}/gallery?${query}`);
}

const KINDS = ["micrograph", "picture", "found", "session"];

/**
 * Listen to the daemon for as long as the page is open. `changed(kind, data)` is called for each event,
 * `anew()` when events may have been missed, and `state` with live, away or connecting.
 */
export function listen({ changed, anew, state }) {
  let source = null;
  let lost = false;
  const open = () => {
    source = new EventSource(`${API}/events`);
    source.onopen = () => {
      state("live");
      if (lost) anew();
      lost = false;
    };
    source.onerror = () => {
      state("away");
      // The browser tries again by itself, but not after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) setTimeout(reopen, 2000);
    };
    source.addEventListener("reset", anew);
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => changed(kind, JSON.parse(event.data)));
    }
  };
  const reopen = () => {
    lost = true;
    source.close();
    open();
  };
  // A page that nobody looks at holds no connection: browsers have six for each daemon.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source.close();
    else if (source.readyState === EventSource.CLOSED) reopen();
  });
  open();
}

/**
 * Make a task of which one run is under way at a time, and the next begins `restMs` after the last began.
 * Calls in between become one run.
 */
export function throttled(task, restMs) {
  let running = false;
  let wanted = false;
  let last = -Infinity;
  let timer = null;
  const run = async () => {
    timer = null;
    running = true;
    wanted = false;
    last = performance.now();
    try {
      await task();
    } finally {
      running = false;
      if (wanted) ask();
    }
  };
  const ask = () => {
    wanted = true;
    if (running || timer !== null) return;
    timer = setTimeout(run, Math.max(0, last + restMs - performance.now()));
  };
  return ask;
}
