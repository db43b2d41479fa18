// The status page: asks /status every two seconds and changes only what has changed, so that nothing flickers and a selection stays.
// Whatever comes from a run (prompts, host names, errors) is set as text, never as markup, by put(), make() and mark().
"use strict";

const EVERY_MS = 2000, AWAY_MS = 5000, HIDDEN_MS = 30000, PATIENCE_MS = 20000;
const pages = { workers: 0, set_aside: 0 };
let last = null, lastAt = null, timer = null, asking = false, again = false, polls = 0;

// ---------------------------------------------------------------- parts of the page

// field of the document, class, word on the page
const STATES = [["done", "done", "done"], ["leased", "leased", "leased"], ["waiting", "waiting", "waiting"], ["set_aside", "failed", "failed"]];

// What the wire calls otherwise than people do.
const WORDS = { drawing: "generating", waiting_llm: "waits for LLM", warming_up: "warming up", cooling: "backoff", off: "disabled" };
const word = state => WORDS[state] || state;

function buildDataset() {
  const card = make("article", "dataset");
  const left = make("div", "", card);
  const top = make("div", "title", left);
  card.title_ = make("h2", "", top);
  card.report = make("a", "", top);
  const figures = make("dl", "figures", left);
  card.figures = ["images", "images/h", "left", "accepted"].map(name => {
    const pair = make("div", "", figures);
    const label = make("dt", "", pair, name);
    return { label, value: make("dd", "", pair) };
  });
  card.bar = make("div", "bar", left);
  card.bar.setAttribute("role", "img");
  card.legend = make("ul", "legend", left);
  card.notes = make("p", "notes muted", left);
  card.segments = STATES.map(([, style, label]) => {
    const item = make("li", "", card.legend);
    make("i", style, item).setAttribute("aria-hidden", "true");
    return { span: make("span", style, card.bar), count: make("span", "", item), label };
  });
  const plot = card.plot = make("figure", "plot", card);
  card.plotText = make("figcaption", "", plot);
  card.plotTop = make("span", "top", plot);
  card.zero = make("span", "zero", plot, "0");
  const svg = card.svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 600 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  card.paths = ["area", "line"].map(name => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", name);
    svg.append(path);
    return path;
  });
  plot.append(svg);
  const times = make("div", "times", plot);
  card.from = make("span", "", times);
  card.to = make("span", "", times);
  card.origins = make("details", "origins", card);
  card.summary = make("summary", "", card.origins);
  const tables = make("div", "tables", card.origins);
  card.tables = ORIGINS.map(([, title]) => buildOrigins(tables, title));
  return card;
}

// field of the document, heading of its table
const ORIGINS = [["llm", "LLM"], ["source", "Source"]];

function buildOrigins(parent, title) {
  const box = make("div", "scroll", parent), table = make("table", "", box), head = make("tr", "", make("thead", "", table));
  for (const [name, style] of [["tabindex", 0], ["role", "region"], ["aria-label", `Table: ${title}`]]) box.setAttribute(name, style);
  const heads = [title, "Captions", "Images", "Accepted"].map((text, k) => make("th", k ? "number" : "", head, text));
  for (const th of heads) th.scope = "col";
  return { box, accepted: heads[3], body: make("tbody", "", table) };
}

/** Captions and images by LLM and by source, folded up: the summary says the most. */
function showOrigins(card, set) {
  const judged = !!set.acceptance, { llm, source } = set.origins;
  card.origins.hidden = !llm.length;
  const parts = llm.slice(0, 3).map(row => `${row.name} ${judged ? percent(row.images, row.images + row.rejected) : number(row.images)}`);
  put(card.summary, `${judged ? "Accepted" : "Images"} by LLM: ${parts.join(", ")}${llm.length > 3 ? ", …" : ""}`);
  for (const [k, [kind]] of ORIGINS.entries()) {
    const { box, accepted, body } = card.tables[k];
    box.hidden = !set.origins[kind].length;
    accepted.hidden = !judged;
    sync(body, set.origins[kind], r => r.name, row(["", "number", "number", "number"]), (tr, r) => {
      const texts = [r.name, number(r.captions), number(r.images), percent(r.images, r.images + r.rejected)];
      for (const [k, text] of texts.entries()) put(tr.children[k], text);
      tr.children[3].hidden = !judged;
    });
  }
}

function showDataset(card, set) {
  put(card.title_, set.name);
  card.report.hidden = !set.report;
  if (set.report) {
    mark(card.report, "href", set.report.address);
    put(card.report, `Report of ${when(set.report.time)}`);
  }
  const [images, speed, left, accepted] = card.figures, open = set.waiting + set.leased;
  put(images.value, number(set.images));
  put(images.label, `of ${number(set.images_expected)} images`);
  put(speed.value, number(set.images_per_hour));
  put(speed.label, "images an hour");
  const a = set.acceptance, judged = a ? a.accepted + a.rejected : 0;
  accepted.value.parentNode.hidden = !judged;
  put(accepted.value, a && percent(a.accepted, judged));
  put(accepted.label, `accepted of ${compact(judged)} tries`);
  put(left.value, open ? duration(set.eta_s) : "finished");
  put(left.label, open && set.eta_s != null ? `left, until ${when(Date.now() / 1000 + set.eta_s)}` : open ? "left: not known yet" : "no prompt waits");
  for (const [k, [name]] of STATES.entries()) {
    const { span, count, label } = card.segments[k];
    span.style.flexGrow = set.total ? set[name] / set.total : 0;
    span.classList.toggle("some", set[name] > 0);
    put(count, `${number(set[name])} ${label}` + (name === "done" && set.short ? ` (${number(set.short)} incomplete)` : ""));
  }
  mark(card.bar, "aria-label", `${number(set.total)} prompts: ` + STATES.map(([name, , label]) => `${number(set[name])} ${label} (${percent(set[name], set.total)})`).join(", "));
  const back = Object.entries(set.given_back).filter(([, n]) => n).map(([reason, n]) => `${number(n)} ${reason}`).join(", ");
  put(card.notes, [
    set.sum_ok ? `Together ${number(set.total)} prompts, ${percent(set.done, set.total)} done.` : `These do not add up to ${number(set.total)} prompts: please report it, with the ledger.`,
    set.detached ? "Its folder is gone; nothing waits for it." : "",
    set.short ? `${number(set.short_images)} images fewer in incomplete prompts.` : "",
    set.truncated ? `${number(set.truncated)} texts are longer than the model reads.` : "",
    refused(a, judged),
    set.packed && set.packed.folders ? `${number(set.packed.folders)} of ${number(set.packed.of)} folders packed, with ${number(set.packed.images)} images.` : "",
    back ? `Prompts released: ${back}.` : "",
    set.model ? `Model ${set.model}.` : "",
  ].filter(Boolean).join(" "));
  showPlot(card, set);
  showOrigins(card, set);
}

/** What --accept has refused, in a sentence. */
function refused(a, judged) {
  if (!judged) return "";
  const parts = a.parts.map(part => `${part.text}: ${percent(part.refused, judged)}`).join(", ");
  return `Refused by ${parts}.` + (a.not_accepted ? ` ${number(a.not_accepted)} captions given up.` : "");
}

/** Images an hour over the life of the run, from the counts [[unix seconds, images], …], in at most 60 steps. */
function speeds(history) {
  const first = history[0], end = history[history.length - 1], span = end[0] - first[0];
  const steps = Math.min(60, history.length - 1), result = [];
  let k = 0, before = first[1];
  for (let i = 1; i <= steps; i++) {
    const t = first[0] + span * i / steps;
    while (k < history.length - 2 && history[k + 1][0] < t) k++;
    const [t0, n0] = history[k], [t1, n1] = history[k + 1];
    const n = t1 > t0 ? n0 + (n1 - n0) * (t - t0) / (t1 - t0) : n1;
    result.push(Math.max(0, (n - before) / (span / steps) * 3600));
    before = n;
  }
  return result;
}

function showPlot(card, set) {
  const history = set.history, enough = history.length >= 3 && history[history.length - 1][0] - history[0][0] >= 20;
  card.plot.hidden = !enough;
  if (!enough) return;
  const rates = speeds(history), top = Math.max(...rates) || 1, width = 600 / rates.length;
  const start = history[0], end = history[history.length - 1];
  const mean = (end[1] - start[1]) / (end[0] - start[0]) * 3600;
  const steps = rates.map((rate, i) => `H${(i * width).toFixed(1)}V${(100 - 96 * rate / top).toFixed(1)}H${((i + 1) * width).toFixed(1)}`).join("");
  mark(card.paths[0], "d", `M0 100${steps}V100Z`);
  mark(card.paths[1], "d", "M0 " + (100 - 96 * rates[0] / top).toFixed(1) + steps);
  const text = `Images an hour over the life of the run: mean ${number(mean)}, highest ${number(top)}`;
  put(card.plotText, text);
  mark(card.svg, "aria-label", `${text}, last ${number(rates[rates.length - 1])}, from ${when(start[0])} to ${when(end[0])}`);
  put(card.plotTop, number(top));
  put(card.from, when(start[0]));
  put(card.to, when(end[0]));
}

const HEALTH = { storm: "bad", draining: "warn", rebuilding: "warn", idle: "warn", finished: "good", fair: "calm" };

function showHealth(health) {
  const box = el("health");
  mark(box, "class", "banner " + (HEALTH[health.state] || "warn"));
  put(el("health-heading"), health.headline);
  put(el("health-when"), [health.reason ? `Reason: ${health.reason}.` : "", health.since ? `Since ${when(health.since)}.` : "",
    health.probe_in_s != null ? `Next probe in ${duration(health.probe_in_s)}.` : ""].filter(Boolean).join(" "));
  list(el("health-todo"), health.what_to_do);
  list(el("health-errors"), health.errors.map(error => [when(error.time), error.reason, error.last_error, error.host, logName(error.log)].filter(Boolean).join(" · ")));
  for (const id of ["health-when", "health-todo", "health-errors"]) el(id).hidden = !el(id).textContent;
  box.hidden = health.state === "fair";
}

function list(parent, texts) {
  sync(parent, texts.map((text, k) => [k, text]), ([k]) => k, () => document.createElement("li"), (node, [, text]) => put(node, text));
}

const TONE = { drawing: "good", healthy: "good", waiting_llm: "warn", silent: "warn", cooling: "warn", off: "bad" };
const pill = state => `span pill ${TONE[state] || ""}`.trim();

function showWorkers(workers) {
  const states = Object.entries(workers.by_state).map(([state, n]) => `${number(n)} ${word(state)}`).join(", ");
  put(el("workers-summary"), workers.total ? `${number(workers.total)} ${workers.total === 1 ? "client" : "clients"}: ${states}` + (workers.slow ? `; ${number(workers.slow)} slow` : "") + "." : "No client is there.");
  sync(el("workers"), workers.rows, w => w.client_id, row(["", "", "number", "number wide", "wide", "number", "wide"]), (tr, w) => {
    mark(tr, "class", w.slow ? "slow" : null);
    const [who, state, speed, images, prompts, heartbeat, log] = tr.children;
    lines(who, [[w.host || "unknown host", "span"], [[w.gpu, w.restart ? `restart ${w.restart}` : ""].filter(Boolean).join(" · "), "small"]]);
    lines(state, [[word(w.state), pill(w.state)], [w.slow ? "slow" : "", "b"]]);
    put(speed, number(w.images_per_hour));
    put(images, number(w.images));
    put(prompts, [w.drawing.join(", "), w.drawing_more ? `and ${w.drawing_more} more` : ""].filter(Boolean).join(" ") + (w.dataset && w.drawing.length && last.datasets.length > 1 ? ` of ${w.dataset}` : ""));
    put(heartbeat, `${duration(Math.floor(w.beat_age_s))} ago`);
    put(log, w.log);
  });
  pager("workers", workers);
}

function showLlm(llm) {
  el("llm-section").hidden = !llm.backends.length;
  put(el("llm-summary"), `${number(llm.calls)} calls, ${number(llm.failures)} failed, ${usd(llm.usd)} spent` + (llm.budget_usd != null ? ` of ${usd(llm.budget_usd)}` : "") +
    (llm.reserved_usd ? `, ${usd(llm.reserved_usd)} reserved` : "") + "." + (llm.budget_usd != null && llm.paid_off ? ` Paid backends are disabled: ${llm.paid_off}.` : ""));
  sync(el("llm"), llm.backends, b => b.name, row(["", "number", "number", "number wide", "number"]), (tr, b) => {
    const [name, calls, latency, tokens, cost] = tr.children;
    const until = b.until_s ? ` for ${duration(b.until_s)}` : "";
    lines(name, [[b.name, "span"], [b.model !== b.name ? b.model : "", "small"], [word(b.state) + until, pill(b.state)], [b.because, "small because"]]);
    const kinds = Object.entries(b.failures).filter(([, n]) => n);
    lines(calls, [[number(b.calls), "span"], ...kinds.map(([kind, n]) => [`${number(n)} ${kind}`, `small kind ${kind}`])]);
    put(latency, b.p50_s == null ? "–" : `${seconds(b.p50_s)} / ${seconds(b.p95_s)} s`);
    put(tokens, `${compact(b.prompt_tokens)} / ${compact(b.completion_tokens)}`);
    lines(cost, [[usd(b.usd), "span"], [b.budget_usd != null ? `of ${usd(b.budget_usd)}` : "", "small"]]);
  });
}

/** Errors that say the same become one, the newest, with how often it came and where. */
function merged(errors) {
  const groups = new Map();
  for (const error of errors) {
    const key = `${error.reason} ${error.error}`, group = groups.get(key) || { ...error, times: 0, hosts: [] };
    groups.set(key, { ...error, times: group.times + 1, host: null, gpu: null, hosts: [...new Set([...group.hosts, error.host])] });
  }
  return [...groups.values()].map(group => ({ ...group, host: group.hosts.filter(Boolean).join(", ") }));
}

const errorText = e => [when(e.time), `${e.times > 1 ? `${e.times} × ` : ""}${e.reason}: ${e.error}`, [e.host, e.gpu].filter(Boolean).join(" "), logName(e.log)].filter(Boolean).join(" · ");

function showTroubles(status) {
  const { quarantined, set_aside, errors } = status;
  el("quarantine-section").hidden = !quarantined.length;
  sync(el("quarantine"), quarantined, q => `${q.host} ${q.gpu}`, () => document.createElement("li"), (node, q) => {
    lines(node, [[[q.host, q.gpu].filter(Boolean).join(" "), "b"], [[q.since ? `since ${when(q.since)}` : "", q.probe_in_s != null ? `probe in ${duration(q.probe_in_s)}` : "",
      q.failures ? `${number(q.failures)} failures` : "", logName(q.log)].filter(Boolean).join(", "), "div muted"], ...merged(q.last_errors).map((e, k) => [errorText(e), `div error e${k}`]), [q.command, "pre command"]]);
  });

  el("failed-section").hidden = !set_aside.total;
  put(el("failed-heading"), `Failed prompts: ${number(set_aside.total)}`);
  put(el("failed-command"), set_aside.command);
  sync(el("failed"), set_aside.rows, r => `${r.dataset} ${r.index}`, row(["", ""]), (tr, r) => {
    lines(tr.children[0], [[r.prompt || "(text not published yet)", "span prompt"], [`${r.dataset} ${r.index}`, "small"]]);
    lines(tr.children[1], merged(r.errors).map((e, k) => [errorText(e), `div error e${k}`]));
  });
  pager("set_aside", set_aside, "failed");

  el("errors-section").hidden = !errors.length;
  sync(el("errors"), errors, e => e.reason, () => document.createElement("li"), (node, e) => {
    lines(node, [[`${e.reason}${e.count != null ? `, ${number(e.count)} times` : ""}`, "b"], [errorText({ ...e, error: e.last_error }), "div error"]]);
  });
}

/** name: of the table in the document and in the address; id: on the page. */
function pager(name, table, id = name) {
  const nav = el(id + "-pager");
  if (!nav.children.length) {
    for (const [label, step] of [["Previous", -1], ["Next", 1]]) {
      make("button", "", nav, label).addEventListener("click", () => { pages[name] = Math.max(0, pages[name] + step); ask(); });
    }
    nav.insertBefore(make("span"), nav.children[1]);
  }
  const [previous, text, next] = nav.children;
  nav.hidden = table.pages < 2;
  put(text, `Page ${number(table.page + 1)} of ${number(table.pages)}`);
  previous.disabled = table.page === 0;
  next.disabled = table.page >= table.pages - 1;
}

// ---------------------------------------------------------------- asking

function render(status) {
  last = status;
  const server = status.server;
  put(el("server"), `${server.hostname}:${server.port} · up ${duration(server.uptime_s)}, start ${number(server.epoch)} · version ${server.version} · ${server.output_root}`);
  showHealth(status.weather);
  // those with work first: what runs is not below what was finished long ago
  const open = set => !set.detached && set.waiting + set.leased > 0;
  const sets = [...status.datasets].sort((a, b) => open(b) - open(a));
  sync(el("datasets"), sets, set => set.name, buildDataset, showDataset);
  showNewest(status.newest);
  showRejected(status.rejected_lately);
  showWorkers(status.workers);
  showLlm(status.llm);
  showTroubles(status);
  const total = status.datasets.reduce((sum, set) => sum + set.total, 0), done = status.datasets.reduce((sum, set) => sum + set.done, 0);
  title((status.weather.state === "storm" ? "⚠ " : "") + (total ? `${percent(done, total)} · ` : "") + (status.datasets.length === 1 ? status.datasets[0].name : "Image generation"));
}

function title(text) { put(document.querySelector("title"), text); }

function away(text) {
  put(el("away-text"), text);
  el("away").hidden = !text;
  if (text) title("⚠ no answer · Image generation");
}

async function ask() {
  if (asking) { again = true; return; }
  asking = true;
  again = false;
  clearTimeout(timer);
  const asked = { ...pages };
  let status = null, why = "";
  try {
    const answer = await fetch(`/status?workers_page=${asked.workers}&set_aside_page=${asked.set_aside}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.ok) status = await answer.json();
    else why = answer.status === 401 ? "It wants the token again: open the link that --status shows on a terminal." : `It answers with error ${answer.status}.`;
  } catch {
    // no answer, or half of one: said below
  }
  asking = false;
  timer = setTimeout(ask, again ? 0 : document.hidden ? HIDDEN_MS : status ? EVERY_MS : AWAY_MS);
  if (!status) {
    away(`${why} ${lastAt ? `What stands below is as of ${lastAt.toLocaleTimeString("en-GB")}.` : ""} Trying again every ${AWAY_MS / 1000} s.`.trim());
    return;
  }
  away("");
  lastAt = new Date();
  for (const name of Object.keys(pages)) if (pages[name] === asked[name]) pages[name] = status[name].page;
  render(status);
  document.documentElement.dataset.polls = ++polls;
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
document.addEventListener("DOMContentLoaded", ask);  // newest.js is there by then
