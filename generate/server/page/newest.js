// The newest images, each variation beside its original, the viewer that shows one of them large with its metadata, and what was rejected. Uses page.js.
"use strict";

function showNewest(newest) {
  el("newest-none").hidden = newest.length > 0;
  sync(el("newest"), newest, entry => `${entry.dataset} ${entry.index}`, () => {
    const item = document.createElement("li");
    item.original = picture(item, "of");
    item.image = picture(item, "");
    item.foot = make("p", "muted", item);
    return item;
  }, (item, entry) => {
    item.entry = entry;
    const alone = !entry.original;
    item.original.frame.hidden = alone;
    mark(item.image.frame, "class", alone ? "alone" : null);
    mark(item.image.button, "class", alone ? "alone-image" : null);
    if (!alone) fill(item.original, entry.original, `Original prompt: ${entry.original_prompt}`, "original");
    fill(item.image, entry.image, entry.prompt, entry.aug ? "variation" : "original");
    put(item.foot, `${entry.dataset} ${entry.index}_${entry.aug}, ${when(entry.time)}${judged(entry)}`);
  });
}

const scored = scores => Object.entries(scores).map(([name, value]) => `${name} ${value === null ? "–" : Number(value.toPrecision(3))}`).join(", ");

/** An image's scores and tries, where it has any. */
const judged = ({ scores, tries }) => scores ? `; ${scored(scores)}` + (tries > 1 ? `, accepted at try ${tries}` : "") : "";

function showRejected(rejected) {
  el("rejected-section").hidden = !rejected.length;
  sync(el("rejected"), rejected, row => `${row.dataset} ${row.index}_${row.aug}`, () => {
    const item = document.createElement("li");
    item.link = make("a", "", item);
    item.image = make("img", "", item.link);
    item.text = make("div", "", item);
    return item;
  }, (item, row) => {
    item.link.hidden = !row.image;
    mark(item.link, "href", row.image);
    mark(item.image, "src", row.image && row.image + "?small");
    mark(item.image, "alt", `Rejected: ${row.prompt}`);
    const because = row.refused_by.length ? row.refused_by.map(part => `fails ${part}`) : ["not accepted"];
    lines(item.text, [...because.map((text, k) => [text, `span pill bad b${k}`]), [scored(row.scores), "p scores"], [row.prompt, "p caption"],
      [`${row.dataset} ${row.index}_${row.aug}, try ${row.try}, ${when(row.time)}; seed ${row.seed}`, "p muted"]]);
  });
}

function picture(item, kind) {
  const frame = make("div", "", item), button = make("button", "", frame), image = make("img", "", button);
  button.type = "button";
  image.alt = "";
  image.decoding = "async";
  button.addEventListener("click", () => view(item, kind === "of"));
  return { frame, button, image, text: make("p", kind, frame) };
}

function fill(place, address, prompt, what) {
  mark(place.image, "src", address + "&small");
  mark(place.button, "aria-label", `Enlarge the ${what}: ${prompt}`);
  put(place.text, prompt);
}

let shown = null;  // {dataset, index, aug, …} in the viewer

function view(item, original) {
  show(original ? { ...item.entry, image: item.entry.original, aug: 0, prompt: item.entry.original_prompt, original: null } : item.entry);
  el("viewer").showModal();
}

async function show(entry) {
  shown = entry;
  const stem = `${entry.index}_${entry.aug}`;
  put(el("viewer-heading"), `${entry.dataset} ${stem}`);
  mark(el("viewer-image"), "src", entry.image);
  mark(el("viewer-image"), "alt", entry.prompt);
  put(el("viewer-prompt"), entry.prompt);
  el("viewer-original-figure").hidden = !entry.original;
  mark(el("viewer-original"), "src", entry.original);
  mark(el("viewer-original"), "alt", entry.original_prompt);
  put(el("viewer-original-prompt"), entry.original_prompt);
  const facts = el("viewer-facts");
  facts.replaceChildren();
  let sample;
  try {
    const answer = await fetch(`/sample/${encodeURIComponent(entry.dataset)}/${stem}`);
    sample = answer.ok ? await answer.json() : { metadata: "not written yet" };
  } catch {
    sample = { metadata: "the server does not answer" };
  }
  if (shown !== entry) return;
  for (const [name, value] of Object.entries(sample)) {
    make("dt", "", facts, name);
    make("dd", "", facts, value !== null && typeof value === "object" ? JSON.stringify(value) : value === null ? "–" : value);
  }
}

function step(by) {
  const entries = [...el("newest").children].map(item => item.entry);
  const at = entries.findIndex(entry => entry.dataset === shown.dataset && entry.index === shown.index);
  if (entries.length) show(entries[(Math.max(at, 0) + by + entries.length) % entries.length]);
}

el("viewer-close").addEventListener("click", () => el("viewer").close());
el("viewer-previous").addEventListener("click", () => step(-1));
el("viewer-next").addEventListener("click", () => step(1));
el("viewer").addEventListener("click", event => { if (event.target === el("viewer")) el("viewer").close(); });
el("viewer").addEventListener("close", () => {  // a large image is not kept in memory for a week
  shown = null;
  for (const id of ["viewer-image", "viewer-original"]) el(id).removeAttribute("src");
});
el("viewer").addEventListener("keydown", event => {
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") { event.preventDefault(); step(event.key === "ArrowLeft" ? -1 : 1); }
});
