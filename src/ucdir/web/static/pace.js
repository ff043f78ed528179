// When to search: soon after the last change, now and then during a long stroke, and only the last query counts.

const REST = 300; // ms after the last change
const STRIDE = 700; // ms between searches while the pen is down

export class Pace {
  #search;
  #timer = null;
  #since = 0; // ms, first change that no search has seen
  #started = 0; // ms, start of the last search
  #running = null;

  /** `search(signal, drawing)` does one search; it is aborted when a newer query makes it stale. */
  constructor(search) {
    this.#search = search;
  }

  /** Something changed; `drawing` while the pen is still down. */
  changed(drawing) {
    const now = performance.now();
    if (this.#timer === null) this.#since = now;
    else clearTimeout(this.#timer);
    const due = Math.min(now + REST, this.#since + STRIDE);
    const at = drawing ? Math.max(due, this.#started + STRIDE) : due;
    this.#timer = setTimeout(() => this.#fire(drawing), at - now);
  }

  /** Searches at once. */
  now() {
    this.stop();
    this.#run(false);
  }

  /** Forgets what is planned and drops what is under way. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#running?.abort();
    this.#running = null;
  }

  /** During a stroke an answer under way is still awaited: dropping it each time would show nothing on a slow server. */
  #fire(drawing) {
    this.#timer = null;
    if (drawing && this.#running) {
      this.changed(true);
      return;
    }
    this.#running?.abort();
    this.#run(drawing);
  }

  async #run(drawing) {
    const controller = new AbortController();
    this.#running = controller;
    this.#started = performance.now();
    try {
      await this.#search(controller.signal, drawing);
    } finally {
      if (this.#running === controller) this.#running = null;
    }
  }
}
