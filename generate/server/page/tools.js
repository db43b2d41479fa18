// Small tools of the page: numbers and times as text, and changing only what has changed.
"use strict";

const el = id => document.getElementById(id);

const number = n => n == null ? "–" : n.toLocaleString("en-US", { maximumFractionDigits: n < 10 && n % 1 ? 1 : 0 });
const compact = n => n == null ? "–" : n < 10000 ? number(n) : n.toLocaleString("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const usd = n => n == null ? "–" : "$" + n.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: n < 0.1 && n > 0 ? 4 : 2 });
const seconds = s => s == null ? "–" : s < 10 ? s.toFixed(1) : s.toFixed(0);
const percent = (part, whole) => whole ? (100 * part / whole).toFixed(part && part < whole ? 1 : 0) + " %" : "–";
const logName = log => log ? `log ${log}` : "";

function duration(s) {
  if (s == null) return "–";
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = Math.max(0, units.findIndex(([size]) => s >= size));
  if (s < 1) return "0 s";
  const first = Math.floor(s / units[at][0]), rest = units[at + 1] && units[at + 1][0] >= 60 ? Math.floor(s % units[at][0] / units[at + 1][0]) : 0;
  return `${first} ${units[at][1]}` + (rest ? ` ${rest} ${units[at + 1][1]}` : "");
}

function when(time) {  // ISO or unix seconds, as local time; with the day unless it is today
  if (time == null) return "";
  const date = new Date(typeof time === "number" ? time * 1000 : time), now = new Date();
  const clock = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return date.toDateString() === now.toDateString() ? clock : date.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short" }) + " " + clock;
}

/** Foreign text as visible() of common/console.py shows it: control, bidi and invisible characters as \x1b, \u202e. They would turn around or hide what stands beside them. */
const HARMFUL = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const visible = text => String(text).replace(HARMFUL, character => {
  const hex = character.codePointAt(0).toString(16);
  return hex.length < 3 ? "\\x" + hex.padStart(2, "0") : hex.length < 5 ? "\\u" + hex.padStart(4, "0") : "\\U" + hex.padStart(8, "0");
});

function put(node, text) {
  text = text == null ? "" : visible(text);
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, name, value) {
  if (value == null) { if (node.hasAttribute(name)) node.removeAttribute(name); }
  else if (node.getAttribute(name) !== (value = visible(value))) node.setAttribute(name, value);
}

function make(tag, classes, parent, text) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  if (text != null) put(node, text);
  if (parent) parent.append(node);
  return node;
}

/** Make the children of `parent` those of `items`: one that stays keeps its element (and focus); `build(item)` makes a new one, `update(node, item)` fills it. */
function sync(parent, items, key, build, update) {
  const old = new Map([...parent.children].map(node => [node.dataset.key, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let node = old.get(name);
    old.delete(name);
    if (!node) { node = build(item); node.dataset.key = name; }
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
  for (const node of old.values()) node.remove();
}

const row = classes => () => {
  const tr = document.createElement("tr");
  for (const name of classes) make("td", name, tr);
  return tr;
};

/** A cell of several lines: each [text, class]; empty ones are left out. */
function lines(cell, list) {
  sync(cell, list.filter(([text]) => text != null && text !== ""), ([, kind]) => kind, ([, kind]) => make(kind.split(" ")[0], kind.split(" ").slice(1).join(" ")),
    (node, [text]) => put(node, text));
}
