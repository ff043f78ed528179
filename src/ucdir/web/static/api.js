// The service's routes, as in its OpenAPI page. The token lives in this module's memory and nowhere else.

const BUSY_WAIT = 2; // s, when a 503 does not say how long
let token = "";

export function useToken(text) {
  token = text;
}

export function hasToken() {
  return token !== "";
}

/** What the service answered instead of an answer: `status` 0 means that it did not answer at all. */
export class Refusal extends Error {
  constructor(status, sentence, wait = null) {
    super(sentence);
    this.status = status;
    this.wait = wait; // s, only for 503
  }
}

export function health() {
  return json("health");
}

export function galleries() {
  return json("galleries");
}

/** The hits of one query. `fields` holds `image` (a File or Blob) or `image_id`, and what else /search takes; "" is left out. */
export function search(fields, signal) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value === "" || value === null || value === undefined) continue;
    if (value instanceof Blob) body.append(name, value, value.name ?? "drawing.png");
    else body.append(name, value);
  }
  return json("search", { method: "POST", body, signal });
}

/** The bytes of a picture of the service. */
export async function picture(path, signal) {
  return (await answer(path, { signal })).blob();
}

/** Points `image` at a picture of the service; resolves when it is loaded or rejects with the service's Refusal. */
export async function show(image, path, signal) {
  if (token) {
    await showBlob(image, path, signal);
    return;
  }
  try {
    await loaded(image, address(path));
  } catch {
    await showBlob(image, path, signal); // an image element does not say why it failed
  }
}

/** Forgets what `show` made for the image. */
export function forget(image) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
}

async function showBlob(image, path, signal) {
  const blob = await picture(path, signal);
  signal.throwIfAborted();
  await loaded(image, URL.createObjectURL(blob));
}

function loaded(image, source) {
  return new Promise((resolve, reject) => {
    image.onload = () => resolve();
    image.onerror = () => reject(new Refusal(415, "Your browser cannot show this picture."));
    image.src = source;
  });
}

/** Paths are joined to the page's own address, so the service may live under a prefix. */
function address(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI).href;
}

async function json(path, options = {}) {
  const response = await answer(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(response.status, "The answer is not what this page expects: is another program at this address?");
  }
}

async function answer(path, options) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(address(path), { ...options, headers, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const said = await response.json().catch(() => ({}));
  const sentence = typeof said.detail === "string" ? said.detail : `The server answered with an error (${response.status}).`;
  return new Refusal(response.status, sentence, response.status === 503 ? seconds(response.headers.get("Retry-After")) : null);
}

/** Retry-After is a number of seconds or a date. */
function seconds(text) {
  if (!text) return BUSY_WAIT;
  const wait = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(wait) ? Math.max(1, Math.ceil(wait)) : BUSY_WAIT;
}
