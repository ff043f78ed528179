// Connects the parts: the paper, the search, the hits.

import { galleries, hasToken, health, picture, search, useToken } from "./api.js";
import { Hits } from "./hits.js";
import { Pace } from "./pace.js";
import { Paper } from "./paper.js";
import { bytes, View } from "./view.js";

const COUNTS = [12, 24, 48, 96];
const USUAL_COUNT = 24;
const SHOWN_SIDE = 1024; // px, longer side of a picture kept for the paper
const OFFLINE_WAIT = 5; // s between tries when the server does not answer
const QUIET = 900; // ms without a newer answer before one is read out
const TYPING = 450; // ms after the last letter of a folder

const byId = (id) => document.getElementById(id);
const numbers = new Intl.NumberFormat("en");

const paper = new Paper(byId("canvas"));
const hits = new Hits(byId("hits"));
const view = new View();
const pace = new Pace(ask);
let served = { galleries: [], limits: null };
let answered = null; // the answer on show
let ticking = null; // until the next try
let focusFirst = false; // after "more like this", the first new hit gets the focus

// ---- start, token

async function start() {
  clearTimeout(ticking);
  try {
    if ((await health()).token_required && !hasToken()) {
      askToken();
      return;
    }
    served = await galleries();
  } catch (refusal) {
    refused(refusal, start);
    return;
  }
  quietNotice();
  byId("token-form").hidden = true;
  byId("main").hidden = false;
  fillFilters();
  if (paper.isEmpty) showEmpty();
  else pace.now();
}

/** Takes `#token=...` from the address and removes it there. */
function tokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return false;
  useToken(token);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

function askToken() {
  pace.stop();
  byId("token-problem").textContent = hasToken() ? "This token was refused. Check it, or ask the person who runs the server." : "";
  byId("main").hidden = true;
  byId("token-form").hidden = false;
  byId("token").select();
  byId("token").focus();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value.trim());
  start();
});

addEventListener("hashchange", () => tokenFromAddress() && start());

// ---- where to search

function chosenGallery() {
  return served.galleries.find((gallery) => gallery.name === byId("gallery").value);
}

function fillFilters() {
  const most = served.limits.max_k;
  const counts = COUNTS.filter((count) => count < most).concat(Math.min(most, 192));
  const usual = Math.min(USUAL_COUNT, most);
  fillSelect(byId("gallery"), served.galleries.map(({ name, count }) => [name, `${name} (${numbers.format(count)})`]));
  fillSelect(byId("count"), [...new Set(counts)].map((count) => [String(count), String(count)]), String(usual));
  fillDomains();
}

function fillDomains() {
  const domains = (chosenGallery()?.domains ?? []).map(({ name, count }) => [name, `${name} (${numbers.format(count)})`]);
  fillSelect(byId("domain"), [["", "all"], ...domains]);
  const known = chosenGallery()?.known_domains ?? [];
  fillSelect(byId("as"), [["", "recognised"], ...known.map((name) => [name, name])]);
  byId("as-field").hidden = known.length === 0;
  byId("sense-field").hidden = !chosenGallery()?.expand;
  sayFilters();
}

/** Keeps what was chosen where it still exists. */
function fillSelect(select, options, usual = "") {
  const kept = select.value || usual;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === kept)) select.value = kept;
}

function sayFilters() {
  const { value: under } = byId("under");
  const domain = byId("domain").value || "all domains";
  byId("filters-said").textContent = [byId("gallery").value, domain, under.trim(), `${byId("count").value} hits`].filter(Boolean).join(", ");
}

function searchElsewhere() {
  sayFilters();
  if (paper.isEmpty) showEmpty();
  else pace.now();
}

let typing = null;
byId("gallery").addEventListener("change", () => {
  fillDomains();
  searchElsewhere();
});
byId("domain").addEventListener("change", searchElsewhere);
byId("as").addEventListener("change", searchElsewhere);
byId("sense").addEventListener("change", searchElsewhere);
byId("count").addEventListener("change", searchElsewhere);
byId("under").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(searchElsewhere, TYPING);
});
byId("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  searchElsewhere();
});
byId("filters-open").addEventListener("click", ({ currentTarget: button }) => {
  button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true"));
});
byId("none-action").addEventListener("click", () => {
  byId("domain").value = "";
  byId("under").value = "";
  searchElsewhere();
});

// ---- one search

async function ask(signal, drawing) {
  clearTimeout(ticking);
  busy(true);
  try {
    const answer = await search(await fields(), signal);
    await hits.show(answer, signal);
    quietNotice();
    showAnswer(answer, drawing);
  } catch (refusal) {
    if (signal.aborted) return;
    if (refusal.status === 404 && isFiltered()) showNone(refusal.message);
    else refused(refusal, () => pace.now());
  } finally {
    if (!signal.aborted) busy(false);
  }
}

/** An untouched picture is sent as it came; anything drawn is sent as it looks. */
async function fields() {
  const where = {
    gallery: byId("gallery").value,
    domain: byId("domain").value,
    under: byId("under").value.trim().replace(/^\/+|\/+$/g, ""),
    k: byId("count").value,
    expand: byId("sense-field").hidden ? "" : byId("sense").value,
  };
  const source = paper.picture?.source;
  const upload = { ...where, as: byId("as").value };
  if (!source) return { ...upload, image: await paper.toBlob() };
  if (source.id && (source.gallery === where.gallery || !source.file)) return { ...where, image_id: source.id };
  return { ...upload, image: source.file };
}

function showAnswer(answer, drawing) {
  answered = answer;
  const count = answer.hits.length;
  if (count === 0) {
    showNone(`Gallery '${answer.gallery}' has no other image here.`);
    return;
  }
  setState("hits");
  const best = answer.hits[0].similarity;
  const title = count === 1 ? "1 hit" : `${count} hits`;
  byId("results-title").textContent = title;
  byId("searched").textContent = `best ${best.toFixed(3)}, ${numbers.format(answer.searched)} images searched in ${duration(answer.seconds)}${takenFor(answer.query)}${sureOf(answer)}`;
  if (!drawing) announce(`${title}, best ${best.toFixed(2)}`);
  if (focusFirst) hits.focus(hits.hits[0], { preventScroll: true });
  focusFirst = false;
}

/** Which domain an upload was searched as, and whether it looks unlike all its images. */
function takenFor({ kind, domain, is_strange: isStrange }) {
  if (kind !== "upload" || !domain) return "";
  return isStrange ? `, searched as ${domain}, though it looks unlike its images` : `, searched as ${domain}`;
}

/** How likely anything like the query is there, where it is not. */
function sureOf({ confidence }) {
  return confidence === null || confidence >= 0.5 ? "" : `; perhaps nothing like it is here (${Math.round(100 * confidence)} % likely)`;
}

function duration(seconds) {
  return seconds < 1 ? `${Math.max(1, Math.round(1000 * seconds))} ms` : `${seconds.toFixed(1)} s`;
}

function isFiltered() {
  return byId("domain").value !== "" || byId("under").value.trim() !== "";
}

/** Nothing to show, and why. */
function showNone(sentence) {
  quietNotice();
  hits.clear();
  setState("none");
  byId("none-why").textContent = sentence;
  byId("none-action").hidden = !isFiltered();
  announce("No hits");
}

function showEmpty() {
  pace.stop();
  busy(false);
  quietNotice();
  hits.clear();
  answered = null;
  const gallery = chosenGallery();
  byId("empty-more").textContent = gallery
    ? `The nearest of ${numbers.format(gallery.count)} images in '${gallery.name}' appear here while you draw.`
    : "This server has no gallery yet.";
  setState("empty");
}

function setState(state) {
  byId("results").dataset.state = state;
  byId("empty").hidden = state !== "empty";
  byId("none").hidden = state !== "none";
  byId("meaning").hidden = state !== "hits";
  if (state !== "hits") byId("searched").textContent = "";
  if (state !== "hits") byId("results-title").textContent = state === "none" ? "No hits" : "Hits";
}

function busy(searching) {
  byId("searching").hidden = !searching;
  byId("results").toggleAttribute("data-searching", searching);
}

let reading = null;
function announce(sentence) {
  clearTimeout(reading);
  reading = setTimeout(() => (byId("live").textContent = sentence), QUIET);
}

// ---- when it does not work

/** Says why; what may work later is tried again by itself. `again` is what "Try again" does. */
function refused(refusal, again) {
  focusFirst = false;
  if (refusal.status === 401) askToken();
  else if (refusal.status === 503) notice(`${refusal.message} Trying again automatically.`, again, refusal.wait);
  else if (refusal.status === 0) notice(`${refusal.message} Trying again every few seconds.`, again, OFFLINE_WAIT);
  else failed(refusal.message, again);
}

/** The service will not answer this query: its former hits would only mislead. */
function failed(sentence, again) {
  hits.clear();
  setState("error");
  notice(sentence, again);
}

function notice(sentence, again, wait = null) {
  quietNotice();
  const button = byId("notice-action");
  byId("notice").hidden = false;
  byId("notice-text").textContent = sentence;
  byId("results").toggleAttribute("data-stale", true);
  if (byId("results").dataset.state === "empty") setState("error");
  button.hidden = again === null;
  button.onclick = again;
  if (wait !== null) countDown(button, wait, again);
  else button.textContent = "Try again";
}

function countDown(button, wait, again) {
  button.textContent = `Try now (${wait})`;
  ticking = setTimeout(() => (wait > 1 ? countDown(button, wait - 1, again) : again()), 1000);
}

function quietNotice() {
  clearTimeout(ticking);
  byId("notice").hidden = true;
  byId("notice-text").textContent = "";
  byId("results").toggleAttribute("data-stale", false);
}

// ---- the paper and its tools

paper.addEventListener("change", ({ detail: { drawing } }) => {
  showTools();
  if (!served.limits) return;
  if (paper.isEmpty && !drawing) showEmpty();
  else if (!paper.isEmpty) pace.changed(drawing);
});

function showTools() {
  const { picture: laid } = paper;
  byId("undo").disabled = !paper.canUndo;
  byId("redo").disabled = !paper.canRedo;
  byId("clear").disabled = paper.isEmpty;
  byId("invitation").hidden = !paper.isEmpty || paper.isDrawing;
  byId("unshown").hidden = !laid || laid.bitmap !== null;
  byId("unshown").textContent = laid && !laid.bitmap ? `No preview of '${laid.source.name}'.` : "";
  byId("asked").hidden = !laid;
  byId("asked").textContent = laid ? `${laid.source.id ? "Like" : "Query:"} ${laid.source.name}` : "";
  const content = paper.isEmpty ? "empty" : laid ? laid.source.name : "your drawing";
  byId("canvas").setAttribute("aria-label", `Drawing paper, ${content}`);
}

function takeTool(tool) {
  paper.tool = tool;
  byId("pen").setAttribute("aria-pressed", String(tool === "pen"));
  byId("eraser").setAttribute("aria-pressed", String(tool === "eraser"));
}

/** With the keyboard: the paper is where the next stroke goes. */
function goToPaper(tool) {
  takeTool(tool);
  byId("canvas").focus();
}

function setWidth(width) {
  const slider = byId("width");
  slider.value = width;
  paper.width = Number(slider.value);
}

byId("pen").addEventListener("click", () => takeTool("pen"));
byId("eraser").addEventListener("click", () => takeTool("eraser"));
byId("width").addEventListener("input", ({ target }) => setWidth(target.value));
byId("undo").addEventListener("click", () => paper.undo());
byId("redo").addEventListener("click", () => paper.redo());
byId("clear").addEventListener("click", () => paper.clear());

/** A ring shows how much the eraser takes. */
function showRing(event) {
  const ring = byId("ring");
  ring.hidden = paper.tool !== "eraser" || event.type === "pointerleave";
  const box = byId("canvas").getBoundingClientRect();
  ring.style.inlineSize = `${paper.lineWidth * box.width}px`;
  ring.style.translate = `calc(${event.clientX - box.left}px - 50%) calc(${event.clientY - box.top}px - 50%)`;
}
for (const name of ["pointermove", "pointerdown", "pointerleave"]) byId("canvas").addEventListener(name, showRing);

// ---- pictures that are brought

async function bring(files) {
  const [file] = files;
  const most = served.limits?.max_bytes;
  if (!file || !most) return;
  if (file.size > most) {
    pace.stop();
    failed(`'${file.name}' has ${bytes(file.size)}, this server takes at most ${bytes(most)}. Choose a smaller file.`, null);
    return;
  }
  paper.lay(await small(file), { name: file.name, file });
  pace.now();
  if (files.length > 1) announce(`Searching with the first of ${files.length} files only`);
}

/** "More like this": the hit becomes the query, as a picture that can be drawn over. */
async function more(hit) {
  const { gallery } = answered;
  const file = await picture(`${hit.thumbnail}&side=${SHOWN_SIDE}`).catch(() => null);
  paper.lay(file && (await small(file)), { name: hit.name, id: hit.id, gallery, file });
  focusFirst = true;
  pace.now();
  scrollTo({ top: 0, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth" });
}

/** The picture, no larger than the paper needs, or null where the browser cannot show it. */
async function small(file) {
  const whole = await createImageBitmap(file).catch(() => null);
  const scale = whole && SHOWN_SIDE / Math.max(whole.width, whole.height);
  if (!whole || scale >= 1) return whole;
  const [resizeWidth, resizeHeight] = [whole.width, whole.height].map((side) => Math.max(1, Math.round(side * scale)));
  const kept = await createImageBitmap(whole, { resizeWidth, resizeHeight, resizeQuality: "high" });
  whole.close();
  return kept;
}

byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", async ({ target }) => {
  await bring(target.files);
  target.value = "";
});

addEventListener("paste", (event) => {
  if (event.clipboardData.files.length === 0) return;
  event.preventDefault();
  bring(event.clipboardData.files);
});

let inside = 0; // elements entered and not left by what is dragged
addEventListener("dragenter", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  inside += 1;
  byId("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  inside -= 1;
  byId("drop").hidden = inside <= 0;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  byId("drop").hidden = true;
  if (event.dataTransfer.files.length) bring(event.dataTransfer.files);
});

// ---- hits, view, keys

hits.addEventListener("open", ({ detail }) => view.open(hits.hits, detail, paper));
hits.addEventListener("more", ({ detail }) => more(detail));
view.addEventListener("more", ({ detail }) => more(detail));
view.addEventListener("closed", ({ detail }) => hits.focus(detail));

const help = byId("help");
byId("help-open").addEventListener("click", () => help.showModal());
byId("help-close").addEventListener("click", () => help.close());
help.addEventListener("click", (event) => event.target === help && help.close());

/** The folder field may be folded away on a narrow page. */
function goTo(id) {
  byId("filters-open").setAttribute("aria-expanded", "true");
  byId(id).focus();
}

const KEYS = {
  d: () => goToPaper("pen"),
  e: () => goToPaper("eraser"),
  x: () => paper.clear(),
  u: () => byId("file").click(),
  g: () => goTo("gallery"),
  h: () => hits.focus(),
  "/": () => goTo("under"),
  "[": () => setWidth(paper.width - 1),
  "]": () => setWidth(paper.width + 1),
  "?": () => help.showModal(),
};

function actionOf(event) {
  const key = event.key.toLowerCase();
  if (event.altKey) return null;
  if (!event.ctrlKey && !event.metaKey) return KEYS[key];
  if (key === "z") return () => (event.shiftKey ? paper.redo() : paper.undo());
  return key === "y" ? () => paper.redo() : null;
}

document.addEventListener("keydown", (event) => {
  const typed = event.target.closest("input:not([type=range]), select, textarea, dialog");
  const action = typed || byId("main").hidden || event.defaultPrevented ? null : actionOf(event);
  if (!action) return;
  event.preventDefault();
  action();
});

tokenFromAddress();
start();
