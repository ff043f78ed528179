// The grid of hits. A card that stays a hit keeps its element, so its picture is not loaded again.

import { forget, show } from "./api.js";

const AT_ONCE = 8; // pictures awaited before new hits replace old ones
const PATIENCE = 500; // ms, at most, for those pictures
const LIKELY = 0.5; // confidence below which a hit is marked as unsure
const NEAR = "600px"; // further below the window a picture is not asked for yet

export class Hits extends EventTarget {
  #list;
  #cards = new Map(); // gallery/id -> card
  #near = new IntersectionObserver((seen) => this.#seen(seen), { rootMargin: NEAR });
  hits = [];

  /** Fires "open" and "more" with `detail` = the hit. */
  constructor(list) {
    super();
    this.#list = list;
    list.addEventListener("click", (event) => this.#clicked(event));
    list.addEventListener("keydown", (event) => this.#pressed(event));
    list.addEventListener("focusin", (event) => this.#focused(event.target.closest(".card")));
  }

  /** Shows these hits; the old ones stay until the first new pictures are there. */
  async show(answer, signal) {
    const cards = answer.hits.map((hit) => this.#cardOf(hit, answer.gallery));
    const loading = cards.slice(0, AT_ONCE).map((card) => load(card));
    await Promise.race([Promise.allSettled(loading), rest(PATIENCE)]);
    if (signal.aborted) {
      for (const card of cards) if (this.#cards.get(card.key) !== card) drop(card);
      signal.throwIfAborted();
    }
    this.#replace(cards, answer.hits);
  }

  clear() {
    this.#replace([], []);
  }

  focus(hit = this.hits[0], options = {}) {
    this.#opener(hit)?.focus(options);
  }

  #replace(cards, hits) {
    const kept = new Map(cards.map((card) => [card.key, card]));
    for (const [key, card] of this.#cards) if (kept.get(key) !== card) drop(card);
    const held = document.activeElement;
    this.#near.disconnect();
    cards.forEach((card, at) => fill(card, hits[at]));
    this.#list.replaceChildren(...cards.map((card) => card.element));
    this.#cards = kept;
    this.hits = hits;
    for (const card of cards) this.#near.observe(card.element);
    this.#keepFocus(held, cards[0]);
  }

  /** A card that is put in its new place loses the focus: it gets it back. */
  #keepFocus(held, first) {
    const stays = this.#list.contains(held);
    this.#focused(stays ? held.closest(".card") : first?.element);
    if (stays) held.focus({ preventScroll: true });
  }

  #seen(entries) {
    const near = new Set(entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target));
    for (const card of this.#cards.values()) if (near.has(card.element)) load(card);
  }

  #cardOf(hit, gallery) {
    const key = `${gallery}/${hit.id}`;
    return this.#cards.get(key) ?? makeCard(key, hit);
  }

  #opener(hit) {
    return this.#list.children[this.hits.indexOf(hit)]?.querySelector(".open");
  }

  #hitOf(element) {
    return this.hits[[...this.#list.children].indexOf(element.closest(".card"))];
  }

  #clicked(event) {
    const button = event.target.closest("button");
    if (button) this.#fire(button.classList.contains("more") ? "more" : "open", this.#hitOf(button));
  }

  #fire(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** Only one card is in the tab order; arrow keys go from card to card. */
  #focused(current) {
    for (const card of this.#list.children) {
      for (const button of card.querySelectorAll("button")) button.tabIndex = card === current ? 0 : -1;
    }
  }

  #pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.toLowerCase() === "m") {
      event.preventDefault();
      this.#fire("more", this.#hitOf(event.target));
      return;
    }
    const target = this.#neighbour(event.key, event.target.closest(".card"));
    if (!target) return;
    event.preventDefault();
    target.querySelector(".open").focus();
  }

  #neighbour(key, card) {
    const cards = [...this.#list.children];
    const columns = cards.filter((other) => other.offsetTop === cards[0].offsetTop).length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -Infinity, End: Infinity };
    const step = steps[key];
    if (!step || !card) return null;
    const at = cards.indexOf(card) + step;
    if (Number.isFinite(step)) return cards[at];
    return step < 0 ? cards[0] : cards.at(-1);
  }
}

function rest(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** A card without its picture: see `load`. */
function makeCard(key, hit) {
  const element = document.createElement("li");
  element.className = "card";
  element.innerHTML = `
    <button type="button" class="open">
      <span class="picture"><img alt="" draggable="false" decoding="async"></span>
      <span class="score"><span class="rank"></span><span class="domain"></span><span class="unsure" hidden>unsure</span><span class="similarity"></span></span>
      <span class="thin" aria-hidden="true"><span></span></span>
      <span class="name"></span>
    </button>
    <button type="button" class="more">More like this</button>`;
  return { key, element, image: element.querySelector("img"), path: hit.thumbnail, leaving: new AbortController(), ready: null };
}

/** Asks for the card's picture, once; settles when it is there or cannot be. */
function load(card) {
  const { signal } = card.leaving;
  card.ready ??= show(card.image, card.path, signal).then(
    () => card.element.classList.add("drawn"),
    (refusal) => signal.aborted || sayGone(card.element, refusal),
  );
  return card.ready;
}

function sayGone(element, refusal) {
  const text = document.createElement("span");
  text.className = "gone";
  text.textContent = refusal.status === 410 ? `Picture gone. ${refusal.message}` : `No picture. ${refusal.message}`;
  element.querySelector(".picture").replaceChildren(text);
}

function drop(card) {
  card.leaving.abort();
  forget(card.image);
}

function fill({ element }, hit) {
  const similarity = hit.similarity.toFixed(3);
  const part = (name) => element.querySelector(name);
  element.dataset.id = hit.id;
  element.title = [hit.domain, hit.folder, hit.name].filter(Boolean).join("/");
  part(".rank").textContent = hit.rank;
  const chance = hit.confidence === null ? "" : `, ${Math.round(100 * hit.confidence)} % likely of this kind`;
  part(".unsure").hidden = hit.confidence === null || hit.confidence >= LIKELY;
  part(".unsure").title = chance.slice(2);
  part(".similarity").textContent = similarity;
  part(".thin > span").style.inlineSize = `${100 * Math.max(0, Math.min(1, hit.similarity))}%`;
  part(".name").textContent = hit.name;
  part(".domain").textContent = hit.domain;
  part(".open").setAttribute("aria-label", `Hit ${hit.rank}: ${hit.name}, ${hit.domain}, similarity ${similarity}${chance}`);
  part(".more").setAttribute("aria-label", `More like this: ${hit.name}`);
}
