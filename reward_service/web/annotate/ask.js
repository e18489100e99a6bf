// Talks to the service, and saves one annotation at a time. The key lives in its input alone.

import { at } from "./dom.js";

const RETRY_MS = 2000;
const TIMEOUT_MS = 30000;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  // The same request may succeed later: nobody refused it for what it says.
  get passing() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

export function annotator() {
  return at("name").value.trim();
}

export async function ask(path, options = {}, who = annotator()) {
  const headers = { "X-Client-Job": "annotate", ...options.headers };
  const key = at("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  const address = `annotate/api/${path}?${new URLSearchParams({ annotator: who })}`;
  let reply;
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    reply = await fetch(address, { signal, ...options, headers, cache: "no-store", credentials: "omit" });
  } catch {
    throw new Refused(0, "the service does not answer");
  }
  if (reply.ok) return reply;
  const content = await reply.json().catch(() => null);
  throw new Refused(reply.status, content?.error?.message ?? `HTTP ${reply.status}`);
}

export const askJson = async (path, options, who) => (await ask(path, options, who)).json();

// Keeps what is on the page and what is stored the same. One request at a time; the newest content wins. It is stored
// under the name that was there when the task was opened.
export class Saver {
  #id;
  #revision;
  #waiting = null;
  #running = null;
  #timer = null;
  #show;
  #who = annotator();
  refused = null;

  constructor(id, revision, show) {
    this.#id = id;
    this.#revision = revision;
    this.#show = show;
  }

  get unsaved() {
    return this.#waiting !== null || this.#running !== null;
  }

  // Content to be stored, after a pause in which newer content may take its place.
  put(content, pause_ms = 0) {
    this.#waiting = content;
    this.#tell();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.flush(), pause_ms);
  }

  // Try again what was refused, perhaps for its key.
  retry() {
    this.refused = null;
    return this.flush();
  }

  #tell() {
    if (this.refused) this.#show(`not saved: ${this.refused.message}`, true);
    else this.#show("saving…");
  }

  // Store what waits, and tell whether all is stored.
  async flush() {
    clearTimeout(this.#timer);
    while (this.#running) await this.#running;
    if (this.#waiting === null || this.refused) return this.#waiting === null;
    this.#running = this.#send();
    await this.#running;
    return this.#waiting === null ? true : this.refused ? false : this.flush();
  }

  async #send() {
    const content = this.#waiting;
    const body = JSON.stringify({ ...content, based_on: this.#revision });
    try {
      const headers = { "Content-Type": "application/json" };
      const path = `tasks/${encodeURIComponent(this.#id)}`;
      this.#revision = (await askJson(path, { method: "PUT", headers, body }, this.#who)).revision;
      if (this.#waiting === content) this.#waiting = null;
      if (this.#waiting === null) this.#show("saved");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.passing) {
        this.#show(`not saved: ${error.message}; trying again`, true);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      } else {
        this.refused = error;
        this.#tell();
      }
    } finally {
      this.#running = null;
    }
  }
}
