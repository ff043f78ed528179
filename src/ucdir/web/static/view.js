// One hit in full size, with its facts.

import { forget, show } from "./api.js";

const byId = (id) => document.getElementById(id);
const LARGEST = 2.5; // times its own size: a small picture drawn larger is only a blur
const numbers = new Intl.NumberFormat("en");

export class View extends EventTarget {
  #dialog = byId("view");
  #image = byId("view-image");
  #hits = [];
  #at = 0;
  #showing = new AbortController();

  /** Fires "more" with the hit, and "closed" with the hit last seen. */
  constructor() {
    super();
    byId("previous").addEventListener("click", () => this.#go(-1));
    byId("next").addEventListener("click", () => this.#go(1));
    byId("view-close").addEventListener("click", () => this.#dialog.close());
    byId("view-more").addEventListener("click", () => this.#more());
    this.#dialog.addEventListener("keydown", (event) => this.#pressed(event));
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#closed());
    this.#swipe();
  }

  get isOpen() {
    return this.#dialog.open;
  }

  open(hits, hit, paper) {
    this.#hits = hits;
    paper.copyTo(byId("view-query"));
    this.#dialog.showModal();
    this.#show(hits.indexOf(hit));
    byId("view-close").focus();
  }

  #closed() {
    this.#showing.abort();
    forget(this.#image);
    this.#image.removeAttribute("src");
    this.#fire("closed");
  }

  #fire(name) {
    this.dispatchEvent(new CustomEvent(name, { detail: this.#hits[this.#at] }));
  }

  #more() {
    this.#dialog.close();
    this.#fire("more");
  }

  #go(step) {
    const at = this.#at + step;
    if (at >= 0 && at < this.#hits.length) this.#show(at);
  }

  #pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = { ArrowLeft: () => this.#go(-1), ArrowRight: () => this.#go(1), m: () => this.#more() };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** A finger that goes sideways over the picture turns to the neighbour. */
  #swipe() {
    let from = null;
    this.#image.addEventListener("pointerdown", (event) => (from = event.pointerType === "mouse" ? null : event.clientX));
    this.#image.addEventListener("pointerup", (event) => {
      const way = from === null ? 0 : event.clientX - from;
      from = null;
      if (Math.abs(way) > 40) this.#go(way < 0 ? 1 : -1);
    });
  }

  #show(at) {
    this.#at = at;
    const hit = this.#hits[at];
    this.#turn(byId("previous"), at === 0);
    this.#turn(byId("next"), at === this.#hits.length - 1);
    byId("view-name").textContent = hit.name;
    byId("view-facts").replaceChildren(...factsOf(hit, this.#hits.length).flatMap(rowOf));
    this.#picture(hit);
  }

  /** Focus must not fall out of the dialog when its button is switched off. */
  #turn(button, off) {
    if (off && document.activeElement === button) byId("view-close").focus();
    button.disabled = off;
  }

  async #picture(hit) {
    this.#showing.abort();
    this.#showing = new AbortController();
    const { signal } = this.#showing;
    const link = byId("view-original");
    link.removeAttribute("href");
    byId("view-gone").hidden = true;
    this.#image.alt = `${hit.name}, hit ${hit.rank}`;
    this.#dialog.dataset.state = "loading";
    try {
      await this.#load(hit, signal);
      link.href = this.#image.src; // with a token a blob, the only thing that a link can open
      this.#dialog.dataset.state = "shown";
    } catch (refusal) {
      if (signal.aborted) return;
      this.#dialog.dataset.state = "gone";
      byId("view-gone").textContent = refusal.status === 410 ? `Picture gone. ${refusal.message}` : refusal.message;
      byId("view-gone").hidden = false;
    }
  }

  /** The picture is loaded aside first: the former one stays until the new one is there. */
  async #load(hit, signal) {
    const next = this.#image.cloneNode();
    next.removeAttribute("src");
    await show(next, hit.image, signal);
    signal.throwIfAborted();
    forget(this.#image);
    await new Promise((resolve) => {
      this.#image.onload = this.#image.onerror = resolve;
      this.#image.src = next.src;
      this.#image.style.maxInlineSize = this.#image.style.maxBlockSize = `${LARGEST * Math.max(hit.width, hit.height)}px`;
    });
  }
}

function factsOf(hit, count) {
  return [
    ["Rank", `${hit.rank} of ${count}`],
    ["Similarity", hit.similarity.toFixed(4)],
    ["Domain", hit.domain],
    ["Class", hit.class],
    ["Folder", hit.folder],
    ["Name", hit.name],
    ["Size", `${numbers.format(hit.width)} × ${numbers.format(hit.height)} px, ${bytes(hit.bytes)}`],
  ].filter(([, value]) => value);
}

function rowOf([name, value]) {
  const [term, fact] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  fact.textContent = value;
  return [term, fact];
}

export function bytes(count) {
  if (count < 1000) return `${count} bytes`;
  if (count < 1e6) return `${numbers.format(Math.round(count / 1000))} kB`;
  return `${(count / 1e6).toFixed(1)} MB`;
}
