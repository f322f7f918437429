// The dashboard: what runs here, live. It talks to nobody but the server that it came from, keeps the token for
// this tab only, and builds every node by hand: nothing that an app says is ever read as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const POINTS = 1800;
const LINES = 2000;
const SPARK = 60;
const SPANS = [[300, "5 min"], [900, "15 min"], [3600, "1 h"], [86400, "24 h"]];

const state = {
  token: null, processes: [], host: null, history: new Map(), share: new Map(), at: 0,
  machine: { at: [], cpu: [], memory: [], load: [], received: [], sent: [] }, machine_past: null, machine_span: 3600,
  chosen: null, details: null, past: null, span: 300, paused: false, rows: new Map(), busy: new Map(), held: [],
};

/** A node with attributes and children; functions listen. */
function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}
function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
const color = (at) => `var(--w${at % 8})`;
const dot = (at) => {
  const made = node("i", { class: "dot", "aria-hidden": "true" });
  made.style.background = color(at);
  return made;
};
const ICONS = {
  reload: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5v3h-3",
  restart: "M3 8a5 5 0 1 0 1.6-3.7M3 2.5v3h3M8 5.5V8l1.8 1.2",
  stop: "M4 4h8v8H4z",
  start: "M5 3.5 12 8l-7 4.5z",
  delete: "M3 4.5h10M6.5 4V2.5h3V4M4.5 4.5l.6 9h5.8l.6-9",
};
const icon = (name) => svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));

function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 1000 && at < 4) { value /= 1024; at += 1; }
  return `${value < 10 && at > 0 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}
const percent = (value) => value == null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
function time(seconds) {
  if (!(seconds >= 0)) return "–";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds % 86400 / 3600)} h`;
}
const kind = (status) => ({ online: "online", errored: "errored", stopped: "down", scheduled: "down" })[status] || "busy";
const sum = (values) => values.reduce((all, value) => all + (value || 0), 0);

// Talking to the server ------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${state.token}`, ...options.headers };
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (answer.status === 401) {
    const { error } = await answer.json().catch(() => ({}));
    knock(error || "this is not the token");
    throw new Error("no token");
  }
  return answer;
}

/** The events of an answer, one after the other. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const parts = text.split("\n\n");
      text = parts.pop();
      for (const part of parts) {
        const found = /^event: (.*)\ndata: (.*)$/s.exec(part);
        if (found) yield [found[1], JSON.parse(found[2])];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Follows a stream for as long as this page is open, whatever happens to it. */
class Follower {
  constructor(path, hear, told) { Object.assign(this, { path, hear, told }); this.run(); }
  stop() { this.over = true; this.abort?.abort(); }
  async run() {
    let wait = 500;
    while (!this.over) {
      this.abort = new AbortController();
      try {
        const answer = await ask(this.path, { signal: this.abort.signal });
        if (!answer.ok) throw new Error((await answer.json()).error);
        wait = 500;
        for await (const [name, data] of events(answer)) this.hear(name, data);
      } catch (error) {
        if (this.over || error.message === "no token") return;
      }
      if (this.over) return;
      this.told?.("lost");
      await pause(wait);
      wait = Math.min(wait * 2, 8000);
    }
  }
}

let watching = null;
let reading = null;

function open() {
  watching?.stop();
  watching = new Follower("/api/v1/events", heard, link);
  follow();
}
function follow() {
  reading?.stop();
  $("lines").replaceChildren();
  state.held = [];
  state.looked_back = false;
  note("");
  const app = state.chosen && group(state.chosen);
  $("logs-of").textContent = app ? app.name : "all apps";
  const target = app ? target_of(app) : "all";
  reading = new Follower(`/api/v1/logs?lines=${app ? 200 : 30}&target=${encodeURIComponent(target)}`, (name, data) => {
    if (name === "lines") hear_lines(data);
    else if (name === "faults") note(all_faults(data));
  });
}
function link(word, text) {
  const shown = $("link");
  shown.className = `link ${word}`;
  const says = text || ({ live: "live", lost: "reconnecting" })[word] || word;
  if (shown.lastChild.textContent !== says) shown.lastChild.textContent = says;
}

let asked_again = 0;
function heard(name, data) {
  if (name === "processes") {
    link("live");
    take(data);
  } else if (name === "lost") {
    link("lost", data.error);
  } else if (name === "process") {
    const row = state.processes.find((one) => one.id === data.id);
    const words = { online: "online", spawned: "launching", stopping: "stopping", stopped: "stopped", errored: "errored", waiting: "waiting restart" };
    if (row && words[data.kind]) { row.status = words[data.kind]; draw(); }
    if (data.kind === "deleted") { state.processes = state.processes.filter((one) => one.id !== data.id); draw(); }
    if (["errored", "reload-failed", "unhealthy", "leak"].includes(data.kind)) {
      toast(`${data.name}(${data.id}) ${data.kind.replace("-", " ")}`, data.detail, true);
    }
    const now = Date.now();
    if (state.chosen && now - asked_again > 500) { asked_again = now; describe(); }
  }
}

function take({ at, host, processes }) {
  const gap = state.at ? Math.min((at - state.at) / 1000, 10) : 0;
  if (state.host) note_machine(host, state.host, at, (at - state.at) / 1000);
  state.at = at;
  state.host = host;
  state.processes = processes;
  const alive = new Set();
  for (const one of processes) {
    alive.add(one.id);
    const past = state.history.get(one.id) || { at: [], cpu: [], memory: [] };
    past.at.push(at); past.cpu.push(one.cpu ?? 0); past.memory.push(one.memory ?? 0);
    if (past.at.length > POINTS) for (const list of Object.values(past)) list.shift();
    state.history.set(one.id, past);
    state.share.set(one.id, (state.share.get(one.id) || 0) + (one.cpu || 0) * gap);
  }
  for (const id of state.history.keys()) if (!alive.has(id)) { state.history.delete(id); state.share.delete(id); }
  draw();
}

// Drawing --------------------------------------------------------------------------------------------------

function groups() {
  const found = new Map();
  for (const one of state.processes) {
    const key = `${one.namespace}\n${one.name}`;
    if (!found.has(key)) found.set(key, { key, name: one.name, namespace: one.namespace, members: [] });
    found.get(key).members.push(one);
  }
  return [...found.values()].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
}
const group = (key) => groups().find((app) => app.key === key);
/** A number would be an id. */
const target_of = (app) => /^\d+$/.test(app.name) ? String(app.members[0].id) : app.name;

function status_of(app) {
  const counts = new Map();
  for (const one of app.members) counts.set(one.status, (counts.get(one.status) || 0) + 1);
  const order = ["errored", "waiting restart", "launching", "stopping", "waiting", "online", "scheduled", "stopped"];
  const worst = order.find((status) => counts.has(status));
  const text = counts.size === 1 ? worst : `${counts.get("online") || 0}/${app.members.length} online`;
  return { kind: kind(worst), text };
}
function total(app, what) {
  const pasts = app.members.map((one) => state.history.get(one.id)).filter(Boolean);
  const length = Math.max(0, ...pasts.map((past) => past.at.length));
  const from = Math.max(0, length - SPARK);
  return Array.from({ length: length - from }, (_, at) =>
    sum(pasts.map((past) => past[what][past.at.length - length + from + at])));
}
function curve(values, width, height, top, from = 0) {
  const step = width / Math.max(1, SPARK - 1);
  const start = width - (values.length - 1) * step;
  return values.map((value, at) => `${at ? "L" : "M"}${(start + at * step).toFixed(1)} ${(height - (value - from) / (top - from) * height).toFixed(1)}`).join("");
}
function spark(holder, values, least, share) {
  if (!holder.line) {
    holder.area = svg("path", { class: "area" });
    holder.line = svg("path");
    holder.append(holder.area, holder.line);
  }
  const top = Math.max(least, ...values) * 1.15 || 1;
  // Memory hardly ever comes near nothing: what changes is shown.
  const from = values.length ? Math.min(...values) * share : 0;
  const d = curve(values, 96, 26, top, from);
  holder.line.setAttribute("d", d);
  holder.area.setAttribute("d", values.length > 1 ? `${d}L96 26L${(96 - (values.length - 1) * 96 / (SPARK - 1)).toFixed(1)} 26Z` : "");
}
const put = (where, text) => { if (where.textContent !== text) where.textContent = text; };

function draw() {
  if (document.hidden) return;
  const apps = groups();
  const wanted = $("filter").value.trim().toLowerCase();
  const shown = apps.filter((app) => `${app.name} ${app.namespace}`.toLowerCase().includes(wanted));
  facts(apps);
  draw_machine();
  $("none").hidden = apps.length > 0;
  const body = $("rows");
  const kept = new Set();
  shown.forEach((app, at) => {
    kept.add(app.key);
    let row = state.rows.get(app.key);
    if (!row) { row = new_row(app.key); state.rows.set(app.key, row); }
    fill_row(row, app);
    if (body.children[at] !== row.tr) body.insertBefore(row.tr, body.children[at] || null);
  });
  for (const [key, row] of state.rows) if (!kept.has(key)) { row.tr.remove(); state.rows.delete(key); }
  draw_detail();
}

function facts(apps) {
  const host = state.host;
  if (!host) return;
  put($("host"), host.hostname);
  const online = state.processes.filter((one) => one.status === "online").length;
  const errored = state.processes.filter((one) => one.status === "errored").length;
  const cpu = sum(state.processes.map((one) => one.cpu));
  const memory = sum(state.processes.map((one) => one.memory));
  const used = host.memory - host.memory_available;
  const all = [
    ["Apps", String(apps.length), `${state.processes.length} ${state.processes.length === 1 ? "process" : "processes"}`],
    ["Online", String(online), errored ? `${errored} errored` : ""],
    ["CPU of all apps", percent(cpu), `of ${host.processors * 100} %`, cpu / (host.processors * 100)],
    ["Memory of all apps", bytes(memory), "", memory / host.memory],
    ["Memory of this machine", bytes(used), `of ${bytes(host.memory)}`, used / host.memory],
    ["Load", host.load[0].toFixed(2), `${host.load[1].toFixed(2)} ${host.load[2].toFixed(2)}`, host.load[0] / host.processors],
  ];
  const list = $("facts");
  if (!list.children.length) {
    for (const [name] of all) {
      list.append(node("div", {}, node("dt", {}, name), node("dd", {}, node("span"), " ", node("small"), node("div", { class: "meter" }, node("b")))));
    }
  }
  all.forEach(([, value, more, share], at) => {
    const dd = list.children[at].lastChild;
    put(dd.querySelector("span"), value);
    put(dd.querySelector("small"), more);
    dd.querySelector(".meter").hidden = share == null;
    if (share != null) dd.querySelector("b").style.width = `${Math.min(100, share * 100)}%`;
  });
}

function new_row(key) {
  const row = { key };
  row.name = node("button", { class: "name", click: () => choose(key) });
  row.sub = node("span", { class: "sub" });
  row.word = node("span");
  row.status = node("span", { class: "status" }, node("i", { "aria-hidden": "true" }), row.word);
  row.uptime = node("td", { class: "wide" });
  row.restarts = node("td", { class: "wide num" });
  row.cpu = node("span"); row.memory = node("span");
  row.cpu_spark = svg("svg", { class: "spark", viewBox: "0 0 96 26", preserveAspectRatio: "none", "aria-hidden": "true" });
  row.memory_spark = svg("svg", { class: "spark", viewBox: "0 0 96 26", preserveAspectRatio: "none", "aria-hidden": "true" });
  row.acts = node("div", { class: "acts" });
  row.tr = node("tr", {},
    node("td", {}, row.name, row.sub),
    node("td", {}, row.status),
    row.uptime, row.restarts,
    node("td", {}, node("div", { class: "use" }, row.cpu, row.cpu_spark)),
    node("td", { class: "memory" }, node("div", { class: "use" }, row.memory, row.memory_spark)),
    node("td", {}, row.acts));
  return row;
}
function fill_row(row, app) {
  // What is under way says more than where each of its steps is.
  const doing = state.busy.get(app.key);
  const { kind: word, text } = doing ? { kind: "busy", text: DOING[doing].toLowerCase() } : status_of(app);
  put(row.name, app.name);
  row.name.setAttribute("aria-expanded", String(state.chosen === app.key));
  const first = app.members[0];
  const mode = first.cluster ? "cluster" : "fork";
  const many = app.members.length > 1 ? `${mode} × ${app.members.length}` : `${mode}, id ${first.id}`;
  put(row.sub, app.namespace === "default" ? many : `${app.namespace}, ${many}`);
  row.status.className = `status ${word}`;
  put(row.word, text);
  row.status.title = app.members.map((one) => one.reason).filter(Boolean).join("\n");
  row.memory.title = app.members.filter((one) => one.leak).map(leaking).join("\n");
  row.memory.classList.toggle("leak", Boolean(row.memory.title));
  const since = Math.min(...app.members.map((one) => one.since || Infinity));
  const up = app.members.some((one) => one.pid);
  put(row.uptime, up && since < Infinity ? time((state.at - since) / 1000) : "–");
  put(row.restarts, String(sum(app.members.map((one) => one.restarts))));
  put(row.cpu, up ? percent(sum(app.members.map((one) => one.cpu))) : "–");
  put(row.memory, up ? bytes(sum(app.members.map((one) => one.memory))) : "–");
  spark(row.cpu_spark, total(app, "cpu"), 5, 0);
  spark(row.memory_spark, total(app, "memory"), 1 << 20, 0.7);
  row.tr.classList.toggle("chosen", state.chosen === app.key);
  const acts = up || app.members.some((one) => one.status === "waiting restart") ? ["reload", "restart", "stop"] : ["start", "delete"];
  const sign = acts.join();
  if (row.acts.dataset.sign !== sign) {
    const had = row.acts.contains(document.activeElement);
    row.acts.dataset.sign = sign;
    row.acts.replaceChildren(...acts.map((act) => button(act, app.key)));
    if (had) row.acts.firstChild.focus();
  }
  for (const one of row.acts.children) one.disabled = state.busy.has(app.key);
}
function button(act, key) {
  const name = key.split("\n")[1];
  const label = `${act[0].toUpperCase()}${act.slice(1)} ${name}`;
  return node("button", { "aria-label": label, title: label, "data-act": act, click: () => perform(act, key) }, icon(act));
}

// This machine ---------------------------------------------------------------------------------------------

/** What it used since the values before, as far as they tell. */
function note_machine(host, before, at, seconds) {
  const idle = ({ spent }) => (spent.idle || 0) + (spent.iowait || 0);
  const all = ({ spent }) => sum(Object.values(spent));
  const outside = (one, what) => sum(one.network.filter(({ name }) => name !== "lo").map((link) => link[what]));
  const rate = (what) => seconds > 0 ? Math.max(0, (outside(host, what) - outside(before, what)) / seconds) : null;
  const ticks = all(host) - all(before);
  const past = state.machine;
  past.at.push(at);
  past.cpu.push(ticks > 0 ? Math.min(100, Math.max(0, 100 - 100 * (idle(host) - idle(before)) / ticks)) : null);
  past.memory.push(host.memory - host.memory_available);
  past.load.push(host.load[0]);
  past.received.push(rate("received"));
  past.sent.push(rate("sent"));
  if (past.at.length > POINTS) for (const list of Object.values(past)) list.shift();
}
const per_second = (value) => value == null ? "–" : `${bytes(value)}/s`;
const MACHINE = [
  chart("CPU", percent, ["cpu"], 10),
  chart("Memory", bytes, ["memory"], 1 << 20),
  chart("Load", (value) => value.toFixed(2), ["load"], 1),
  chart("Network", per_second, ["received", "sent"], 1 << 10, ["in", "out"], (values) => values.map(per_second).join(", ")),
];
// It is a share of all processors.
MACHINE[0].most = 100;
const machine_spans = SPANS.map(([seconds, text]) =>
  node("button", { "aria-pressed": "false", click: () => { state.machine_span = seconds; draw_machine(); } }, text));
for (const one of MACHINE) one.draw = () => draw_machine_chart(one);
$("machine-spans").append(...machine_spans);
$("machine-charts").append(...MACHINE.map((one) => one.figure));

function draw_machine() {
  if (!state.at) return;
  machine_spans.forEach((one, at) => one.setAttribute("aria-pressed", String(SPANS[at][0] === state.machine_span)));
  recall_machine();
  for (const one of MACHINE) one.draw();
}
function draw_machine_chart(made) {
  const old = state.machine_span >= 3600 ? state.machine_past : null;
  const lines = (start) => made.what.map((what) => points_of(old?.at && old, state.machine, what, start));
  draw_chart(made, lines, state.machine_span, old?.step, "this machine", "");
}
/** What was before this page was opened. */
async function recall_machine() {
  if (state.machine_span < 3600 || !state.token) return;
  const span = state.machine_span === 3600 ? "hour" : "day";
  const known = state.machine_past;
  if (known?.span === span && Date.now() - known.asked < 60000) return;
  state.machine_past = { ...known, span, asked: Date.now() };
  const asked = state.machine_past;
  try {
    const answer = await ask(`/api/v1/host/history?span=${span}`);
    if (!answer.ok) return;
    const told = await answer.json();
    if (state.machine_past !== asked) return;
    Object.assign(asked, told);
    draw_machine();
  } catch { /* It is asked again with a later change. */ }
}

// One app --------------------------------------------------------------------------------------------------

function choose(key) {
  const same = state.chosen === key;
  state.chosen = same ? null : key;
  state.details = null;
  state.past = null;
  const panel = $("detail");
  panel.hidden = same;
  panel.parts = null;
  document.querySelector(".columns").classList.toggle("open", !same);
  follow();
  draw();
  if (!same) { describe(); panel.querySelector("h2")?.focus({ preventScroll: true }); }
}
async function describe() {
  const key = state.chosen;
  const app = key && group(key);
  if (!app) return;
  try {
    const answer = await ask(`/api/v1/processes/${encodeURIComponent(target_of(app))}`);
    if (!answer.ok || state.chosen !== key) return;
    state.details = (await answer.json()).filter((one) => one.namespace === app.namespace && one.name === app.name);
    draw_detail();
  } catch { /* It is asked again with the next change. */ }
}

/** What was before this page was opened, as far as the server has it in its files. */
async function recall() {
  const key = state.chosen;
  const app = key && group(key);
  if (!app || state.span < 3600) return;
  const span = state.span === 3600 ? "hour" : "day";
  const known = state.past;
  if (known?.span === span && Date.now() - known.asked < 30000) return;
  state.past = { span, asked: Date.now(), step: known?.step || 0, of: known?.of || new Map() };
  const asked = state.past;
  try {
    const answer = await ask(`/api/v1/processes/${encodeURIComponent(target_of(app))}/history?span=${span}`);
    if (!answer.ok) return;
    const { step, processes } = await answer.json();
    if (state.past !== asked) return;
    Object.assign(asked, { step, of: new Map(processes.map((one) => [one.id, one])) });
    draw_detail();
  } catch { /* It is asked again with a later change. */ }
}
/** The values of something since a moment: first what the server remembers, then what this page saw. */
function points_of(old, seen, what, start) {
  const points = [];
  const first = seen?.at[0] ?? Infinity;
  if (old) old.at.forEach((at, index) => { if (at >= start && at < first && old[what][index] != null) points.push([at, old[what][index]]); });
  if (seen) seen.at.forEach((at, index) => { if (at >= start && seen[what][index] != null) points.push([at, seen[what][index]]); });
  return points;
}

function build_detail(panel) {
  const parts = panel.parts = {};
  parts.title = node("h2", { id: "detail-title", tabindex: "-1" });
  const close = node("button", { class: "icon", "aria-label": "Close", click: () => leave_detail() });
  close.append(svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: "M4 4l8 8M12 4l-8 8" })));
  const act = (name, text) => node("button", { "data-act": name, class: name === "delete" ? "danger" : "", click: () => perform(name, state.chosen) }, text);
  parts.acts = ["reload", "restart", "start", "stop", "reset", "delete"].map((name) => act(name, name[0].toUpperCase() + name.slice(1)));
  parts.fewer = node("button", { "aria-label": "One instance fewer", click: () => perform("fewer", state.chosen) }, "−");
  parts.count = node("span", { class: "mono" });
  parts.more = node("button", { "aria-label": "One instance more", click: () => perform("more", state.chosen) }, "+");
  parts.spans = SPANS.map(([seconds, text]) =>
    node("button", { "aria-pressed": "false", click: () => { state.span = seconds; draw_detail(); } }, text));
  parts.cpu = chart("CPU", percent, "cpu", 10);
  parts.memory = chart("Memory", bytes, "memory", 1 << 20);
  for (const one of [parts.cpu, parts.memory]) one.draw = () => draw_app_chart(one);
  parts.workers = node("ol", { class: "workers" });
  parts.about = node("p", { class: "muted" });
  parts.facts = node("dl", { class: "list" });
  parts.exits = node("div");
  panel.replaceChildren(
    node("div", { class: "bar" }, parts.title, close),
    node("div", { class: "row" }, ...parts.acts),
    node("div", { class: "row" }, node("h3", {}, "Instances"), parts.fewer, parts.count, parts.more,
      node("span", { class: "span push", role: "group", "aria-label": "How far back" }, ...parts.spans)),
    parts.cpu.figure, parts.memory.figure,
    node("div", {}, node("h3", {}, "Balance"), parts.about, parts.workers),
    node("div", {}, node("h3", {}, "Facts"), parts.facts),
    parts.exits);
}
function leave_detail() {
  const key = state.chosen;
  choose(key);
  state.rows.get(key)?.name.focus();
}
/** `tell` puts the values of all curves into words, of which `names` are the names. */
function chart(name, write, what, least, names = [], tell = (values) => write(sum(values))) {
  const made = { write, what, least, tell };
  made.now = node("output", { class: "muted" });
  made.drawing = svg("svg", { class: "chart", viewBox: "0 0 400 120", preserveAspectRatio: "none", role: "img" });
  made.high = node("span"); made.low = node("span");
  made.figure = node("figure", {}, node("figcaption", {}, node("h3", {}, name, ...names.flatMap((one, at) => [dot(at), one])), made.now), made.drawing,
    node("div", { class: "axis" }, made.low, made.high));
  made.name = [name, names.join(" and ")].filter(Boolean).join(" ");
  made.drawing.addEventListener("pointermove", (event) => {
    const box = made.drawing.getBoundingClientRect();
    made.cross = (event.clientX - box.left) / box.width;
    made.draw();
  });
  made.drawing.addEventListener("pointerleave", () => { made.cross = null; made.draw(); });
  return made;
}
function draw_app_chart(made) {
  const app = state.chosen && group(state.chosen);
  if (!app) return;
  const old = (id) => state.span >= 3600 ? state.past?.of.get(id) : null;
  const lines = (start) => app.members.map((one) => points_of(old(one.id), state.history.get(one.id), made.what, start));
  draw_chart(made, lines, state.span, state.past?.step, app.name, " for one process");
}
/** Curves, each a list of times and values. */
function draw_chart(made, lines_since, span, step, whose, most_of) {
  const end = state.at;
  const start = end - span * 1000;
  const lines = lines_since(start);
  let top = made.least;
  for (const points of lines) for (const [, value] of points) top = Math.max(top, value);
  const highest = top;
  top = Math.min(top * 1.1, made.most ?? Infinity);
  const x = (at) => (at - start) / (end - start) * 400;
  const y = (value) => 118 - value / top * 114;
  const children = [0.25, 0.5, 0.75].map((part) => svg("line", { class: "grid", x1: 0, x2: 400, y1: 120 * part, y2: 120 * part }));
  // Where nobody looked there is no line.
  const gap = Math.max(90000, 3 * (step || 0));
  lines.forEach((points, at) => {
    const d = points.map(([time_at, value], index) => `${index && time_at - points[index - 1][0] < gap ? "L" : "M"}${x(time_at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const path = svg("path", { d });
    path.style.stroke = color(at);
    children.push(path);
  });
  const now = made.tell(lines.map((points) => points.at(-1)?.[1]));
  let text = `now ${now}`;
  if (made.cross != null) {
    const at = start + made.cross * (end - start);
    children.push(svg("line", { class: "cross", x1: made.cross * 400, x2: made.cross * 400, y1: 0, y2: 120 }));
    const near = (points) => points.reduce((best, point) => !best || Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best, null);
    const values = lines.map((points) => near(points)?.[1]);
    const when = new Date(at);
    text = `${span > 3600 ? when.toLocaleString() : when.toLocaleTimeString()}: ${made.tell(values)}`;
  }
  put(made.now, text);
  made.drawing.replaceChildren(...children);
  made.drawing.setAttribute("aria-label", `${made.name} of ${whose} over ${time(span)}: now ${now}, at most ${made.write(highest)}${most_of}`);
  put(made.low, `${time(span)} ago`);
  put(made.high, `up to ${made.write(top)}`);
}

function draw_detail() {
  const panel = $("detail");
  if (!state.chosen) return;
  const app = group(state.chosen);
  if (!app) return choose(state.chosen);
  if (!panel.parts) build_detail(panel);
  const parts = panel.parts;
  put(parts.title, app.name);
  const up = app.members.some((one) => one.pid);
  const busy = state.busy.has(app.key);
  for (const one of parts.acts) {
    const act = one.dataset.act;
    one.hidden = act === "start" ? up : ["reload", "restart", "stop"].includes(act) && !up;
    one.disabled = busy;
  }
  put(parts.count, String(app.members.length));
  parts.fewer.disabled = busy || app.members.length < 2;
  parts.more.disabled = busy;
  parts.spans.forEach((one, at) => one.setAttribute("aria-pressed", String(SPANS[at][0] === state.span)));
  recall();
  parts.cpu.draw();
  parts.memory.draw();
  draw_workers(parts, app);
  draw_facts(parts, app);
}
function draw_workers(parts, app) {
  // What was accepted says more than what it cost, where it is known.
  const counted = app.members.some((one) => one.accepted != null);
  const amount = (one) => counted ? one.accepted || 0 : state.share.get(one.id) || 0;
  const all = sum(app.members.map(amount));
  put(parts.about, app.members.length === 1 ? "One process does all the work." :
    counted ? "Share of accepted connections." : "Share of the processor time since this page was opened.");
  while (parts.workers.children.length > app.members.length) parts.workers.lastChild.remove();
  app.members.forEach((one, at) => {
    let item = parts.workers.children[at];
    if (!item) {
      item = node("li", {}, node("i", { class: "dot", "aria-hidden": "true" }), node("span", { class: "mono" }),
        node("div", { class: "balance", "aria-hidden": "true" }, node("b")), node("span", { class: "mono num" }));
      item.firstChild.style.background = color(at);
      item.querySelector("b").style.background = color(at);
      parts.workers.append(item);
    }
    const share = all > 0 ? amount(one) / all : 0;
    put(item.children[1], `#${one.id}`);
    item.children[1].title = one.pid ? `pid ${one.pid}` : one.status;
    item.querySelector("b").style.width = `${share * 100}%`;
    put(item.children[3], one.status === "online" ? `${Math.round(share * 100)} %` : one.status);
  });
}
function leaking(one) {
  const { rate, limit, reached_in: left } = one.leak;
  const end = limit ? `, and reaches ${bytes(limit)} in ${time(left / 1000)}` : "";
  return `#${one.id} grows by ${bytes(rate)} per hour${end}`;
}
function draw_facts(parts, app) {
  const details = state.details || [];
  const first = details[0];
  const rows = [["Pids", app.members.map((one) => one.pid).filter(Boolean).join(", ")], ["User", app.members[0].user]];
  if (first) {
    const causes = {};
    for (const one of details) for (const [cause, count] of Object.entries(one.by_cause)) causes[cause] = (causes[cause] || 0) + count;
    rows.push(["Script", first.script], ["Folder", first.cwd], ["Listens", [...new Set(details.flatMap((one) => one.listens))].join(", ")],
      ["Balance", first.cluster ? first.balance : ""], ["Waiting", details.flatMap((one) => one.queues).filter((queue) => queue.waiting).map((queue) => `${queue.waiting} of ${queue.most}`).join(", ")],
      ["Open files", details.some((one) => one.fds != null) ? String(sum(details.map((one) => one.fds))) : ""],
      ["Logged", sum(details.map((one) => one.log_bytes)) ? bytes(sum(details.map((one) => one.log_bytes))) : ""],
      ["Node", first.node_version], ["Health", first.health && `${first.health} ${first.health_error || ""}`],
      ["Restarts", Object.entries(causes).map(([cause, count]) => `${cause} ${count}`).join(", ")], ["Last restart", first.last_restart],
      ["Beside", details.filter((one) => one.beside).map((one) => `${one.beside.pid} ${one.beside.phase}`).join(", ")]);
  }
  rows.push(["Leak", app.members.filter((one) => one.leak).map(leaking).join(", ")]);
  rows.push(["Reason", app.members.map((one) => one.reason).find(Boolean)], ["Says", app.members.map((one) => one.says).find(Boolean)]);
  const shown = rows.filter(([, value]) => value);
  const sign = JSON.stringify(shown);
  if (parts.facts.dataset.sign !== sign) {
    parts.facts.dataset.sign = sign;
    parts.facts.replaceChildren(...shown.flatMap(([name, value]) => [node("dt", {}, name), node("dd", {}, value)]));
  }
  const exits = details.flatMap((one) => one.exits.map((exit) => ({ ...exit, id: one.id }))).sort((a, b) => b.at - a.at).slice(0, 6);
  const last = details.map((one) => one.last_lines).find((lines) => lines.length) || [];
  const mark = JSON.stringify([exits, last]);
  if (parts.exits.dataset.sign === mark) return;
  parts.exits.dataset.sign = mark;
  parts.exits.hidden = !exits.length;
  parts.exits.replaceChildren(node("h3", {}, "Last exits"), node("ol", { class: "exits" }, ...exits.map((exit) =>
    node("li", {}, node("span", { class: "muted" }, `${new Date(exit.at).toLocaleTimeString()} #${exit.id} `),
      `${exit.text} after ${time(exit.lived / 1000)}${exit.why ? ` (${exit.why})` : ""}`))),
    last.length ? node("pre", { tabindex: "0", "aria-label": "Last lines" }, last.map(plain).join("\n")) : null);
}

// Doing something ------------------------------------------------------------------------------------------

const DOING = { reload: "Reloading", restart: "Restarting", stop: "Stopping", start: "Starting", delete: "Deleting", reset: "Resetting", more: "Scaling", fewer: "Scaling" };
const DONE = { reload: "reloaded", restart: "restarted", stop: "stopped", start: "started", delete: "deleted", reset: "counts from zero", more: "scaled", fewer: "scaled" };

async function perform(act, key) {
  const app = group(key);
  if (!app || state.busy.has(key)) return;
  if (act === "stop" && !await sure(`Stop ${app.name}?`, `${farewell(app)}It answers nobody until it is started again.`, "Stop")) return;
  if (act === "delete" && !await sure(`Delete ${app.name}?`, `${farewell(app)}It is stopped and forgotten.`, "Delete")) return;
  state.busy.set(key, act);
  draw();
  const bar = node("progress", { max: app.members.length, value: 0, "aria-label": `${DOING[act]} ${app.name}` });
  const card = toast(`${DOING[act]} ${app.name}`, null, false, bar);
  try {
    const scales = act === "more" || act === "fewer";
    const path = `/api/v1/processes/${encodeURIComponent(scales ? app.name : target_of(app))}`;
    const headers = { Accept: "text/event-stream" };
    const options = act === "delete" ? { method: "DELETE", headers } : { method: "POST", headers };
    if (scales) {
      headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(act === "more" ? { add: 1 } : { remove: 1 });
    }
    const answer = await ask(act === "delete" ? path : `${path}/${scales ? "scale" : act}`, options);
    if (!answer.ok) throw new Error((await answer.json()).error);
    let ended = false;
    for await (const [name, data] of events(answer)) {
      if (name === "progress") {
        bar.max = data.total;
        bar.value = data.settled;
        put(card.title, `${DOING[act]} ${app.name}: ${data.settled} of ${data.total}`);
      } else if (name === "failed") {
        throw new Error(data.error);
      } else if (name === "done") {
        ended = true;
        const failed = data.outcomes.filter((outcome) => outcome.failure);
        if (failed.length) {
          const { reason, last_lines: lines } = failed[0].failure;
          throw Object.assign(new Error(`${failed[0].name}(${failed[0].id}): ${reason}`), { lines });
        }
        const many = data.outcomes.length;
        card.end(`${app.name} ${DONE[act]}${many > 1 ? `: ${many} of ${many}` : ""}`);
      }
    }
    if (!ended) throw new Error("the connection ended before the answer");
  } catch (error) {
    if (error.message === "no token") card.remove();
    else card.end(`${app.name}: ${act} failed`, error.message, error.lines);
  } finally {
    state.busy.delete(key);
    draw();
    describe();
  }
}
const farewell = (app) => app.name === "pmx-web" ? "It serves this page, which ends with it. " : "";
function toast(title, text, bad, more) {
  const heading = node("strong", {}, title);
  const body = node("p", { class: "muted" }, text || "");
  const card = node("div", { class: bad ? "toast bad" : "toast" },
    node("div", { class: "row" }, heading, node("button", { "aria-label": "Dismiss", click: () => card.remove() }, "×")), body, more);
  card.title = heading;
  const later = (ms) => setTimeout(() => card.remove(), ms);
  $("toasts").append(card);
  while ($("toasts").children.length > 5) $("toasts").firstChild.remove();
  const made = {
    title: heading,
    remove: () => card.remove(),
    end: (said, fault, lines) => {
      heading.textContent = said;
      body.textContent = fault || "";
      card.classList.toggle("bad", Boolean(fault));
      more?.remove();
      if (lines?.length) card.append(node("pre", { tabindex: "0", "aria-label": "Last lines" }, lines.map(plain).join("\n")));
      later(fault ? 30000 : 6000);
    },
  };
  if (!more) later(bad ? 15000 : 6000);
  return made;
}
function sure(title, text, yes) {
  const dialog = $("sure");
  $("sure-title").textContent = title;
  $("sure-text").textContent = text;
  $("sure-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

// Logs -----------------------------------------------------------------------------------------------------

/** Without what a terminal would obey. */
// eslint-disable-next-line no-control-regex
const plain = (text) => text.replace(/\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)/g, "").replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "·");

function fits(line, wanted) {
  return (!$("errors").checked || line.stream === "error") && (!wanted || line.plain.toLowerCase().includes(wanted));
}
function write(item, line, wanted) {
  const text = item.lastChild;
  if (!wanted) { text.textContent = line.plain; return; }
  const low = line.plain.toLowerCase();
  const parts = [];
  let at = 0;
  for (let found = low.indexOf(wanted); found >= 0 && parts.length < 50; found = low.indexOf(wanted, at)) {
    parts.push(line.plain.slice(at, found), node("mark", {}, line.plain.slice(found, found + wanted.length)));
    at = found + wanted.length;
  }
  text.replaceChildren(...parts, line.plain.slice(at));
}
function hear_lines(lines) {
  if (!state.paused) { show_lines(lines); return; }
  state.held.push(...lines);
  state.held.splice(0, state.held.length - LINES);
  $("pause").textContent = `Go on (${state.held.length})`;
}
function show_lines(lines) {
  const list = $("lines");
  const at_end = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const wanted = $("search").value.trim().toLowerCase();
  const all = document.createDocumentFragment();
  for (const line of lines.slice(-LINES)) {
    line.plain = plain(line.text);
    const who = line.ids.length > 1 ? line.name : `${line.ids[0]}|${line.name}`;
    const item = node("li", { class: line.stream, title: new Date(line.at).toISOString() }, node("span", { class: "who" }, who), node("span", { class: "text" }));
    item.line = line;
    item.hidden = !fits(line, wanted);
    write(item, line, wanted);
    all.append(item);
  }
  list.append(all);
  while (list.children.length > LINES) list.firstChild.remove();
  if (at_end) list.scrollTop = list.scrollHeight;
}
/** Says something about what is shown of logs; `back`: how far back they were looked through, if not to their beginning. */
function note(text, back) {
  put($("note").firstChild, text);
  $("note").hidden = !text;
  $("further").hidden = !back;
  state.back = back;
}
const all_faults = (faults) => faults.length > 3 ? `${faults.slice(0, 3).join("; ")}; and ${faults.length - 3} more` : faults.join("; ");

/** Looks for the text in all that was logged, in old files too, and not only in what is on the page. */
async function look_back(until) {
  const wanted = $("search").value.trim();
  const app = state.chosen && group(state.chosen);
  const target = app ? target_of(app) : "all";
  if (!wanted) return;
  const newer = () => until ? [...$("lines").children].map((item) => item.line).filter((line) => line.at > Date.parse(until)) : [];
  const query = new URLSearchParams({ search: wanted, lines: Math.max(1, LINES - newer().length) });
  if (until) query.set("until", until);
  if ($("errors").checked) query.set("stream", "error");
  note("Looking through old logs …");
  let told;
  try {
    const answer = await ask(`/api/v1/processes/${encodeURIComponent(target)}/logs?${query}`);
    told = await answer.json();
    if (!answer.ok) throw new Error(told.error);
  } catch (error) {
    note("");
    if (error.message !== "no token") toast(`search for ${wanted}`, error.message, true);
    return;
  }
  note("");
  // Something else is looked at by now.
  if (wanted !== $("search").value.trim() || app?.name !== (state.chosen && group(state.chosen))?.name) return;
  state.looked_back = true;
  // Those before it came again.
  const lines = [...told.lines, ...newer()];
  $("lines").replaceChildren();
  show_lines(lines);
  search();
  const back = told.read_back_to;
  const cut = told.complete ? "" : `Not all is here: what is older than ${new Date(back).toLocaleString()} was not looked through.`;
  note([cut, all_faults(told.faults)].filter(Boolean).join(" "), back === until ? null : back);
}
function search() {
  const wanted = $("search").value.trim().toLowerCase();
  if (!wanted && state.looked_back) { follow(); return; }
  const list = $("lines");
  let count = 0;
  for (const item of list.children) {
    item.hidden = !fits(item.line, wanted);
    if (!item.hidden) { count += 1; write(item, item.line, wanted); }
  }
  $("found").textContent = wanted ? `${count} ${count === 1 ? "line" : "lines"}` : "";
  list.scrollTop = list.scrollHeight;
}

// The door, and the rest -----------------------------------------------------------------------------------

function knock(fault) {
  watching?.stop();
  reading?.stop();
  state.token = null;
  sessionStorage.removeItem("pmx-token");
  link("lost", "closed");
  $("door-fault").textContent = fault || "";
  const door = $("door");
  if (!door.open) door.showModal();
  $("token").focus();
}
function enter(token) {
  state.token = token;
  sessionStorage.setItem("pmx-token", token);
  if ($("door").open) $("door").close();
  $("token").value = "";
  open();
}
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  if (token) enter(token);
});
// There is nothing behind the door without a token.
$("door").addEventListener("cancel", (event) => event.preventDefault());
$("leave").addEventListener("click", () => knock());
$("filter").addEventListener("input", draw);
$("search").addEventListener("input", search);
$("search").addEventListener("keydown", (event) => { if (event.key === "Enter") look_back(); });
$("further").addEventListener("click", () => look_back(state.back));
$("errors").addEventListener("change", search);
$("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  $("pause").textContent = state.paused ? "Go on" : "Pause";
  if (!state.paused) show_lines(state.held.splice(0));
});
const shade = (theme) => { document.documentElement.dataset.theme = theme; };
$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "light" ? "dark" : "light";
  localStorage.setItem("pmx-theme", theme);
  shade(theme);
});
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "/" && !typing && !document.querySelector("dialog[open]")) { event.preventDefault(); $("search").focus(); }
  if (event.key === "Escape" && state.chosen && !document.querySelector("dialog[open]")) {
    if (typing && event.target.value) return;
    leave_detail();
  }
  if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target.classList?.contains("name")) {
    const names = [...document.querySelectorAll("#rows .name")];
    const next = names[names.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) { event.preventDefault(); next.focus(); }
  }
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) draw(); });

const light = matchMedia("(prefers-color-scheme: light)");
shade(localStorage.getItem("pmx-theme") || (light.matches ? "light" : "dark"));
light.addEventListener("change", () => { if (!localStorage.getItem("pmx-theme")) shade(light.matches ? "light" : "dark"); });
// The token may come behind a #, which is never sent to anybody.
const given = /^#token=([^&]+)$/.exec(location.hash);
if (given) history.replaceState(null, "", location.pathname);
const token = given ? decodeURIComponent(given[1]) : sessionStorage.getItem("pmx-token");
if (token) enter(token);
else knock();
