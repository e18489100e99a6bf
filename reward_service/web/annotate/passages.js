// The first view's right half: passages, whose sentences are marked where the response lacks them.

import { at, make } from "./dom.js";
import { keyOf } from "./history.js";

export class Passages {
  #types;
  #history = null;

  constructor(missingTypes) {
    this.#types = missingTypes;
    at("missing-types").replaceChildren(
      ...missingTypes.map((name, index) => {
        const radio = make("input", { type: "radio", name: "missing", value: name, checked: index === 0 });
        const label = make("label", { className: `m${index}` }, radio, make("kbd", { textContent: String(index + 1) }));
        label.append(` ${name}`);
        return label;
      }),
    );
    at("passages").addEventListener("keydown", (event) => this.#key(event));
  }

  open(passages, history) {
    this.#history = history;
    at("passages").replaceChildren(
      ...passages.map((passage, index) =>
        make("div", { className: "passage" }, ...passage.map((text, number) => this.#makeEntry(index + 1, number, text))),
      ),
    );
    const first = at("passages").querySelector(".entry");
    if (first) first.tabIndex = 0;
    this.show();
  }

  show() {
    for (const entry of at("passages").querySelectorAll(".entry")) {
      const type = this.#history.state.missing[entry.dataset.key];
      for (const index of this.#types.keys()) entry.classList.toggle(`m${index}`, this.#types[index] === type);
      entry.ariaPressed = String(type !== undefined);
      entry.title = type ?? "";
    }
  }

  #makeEntry(passage, number, text) {
    const className = number === 0 ? "entry title" : "entry";
    const entry = make("button", { type: "button", className, tabIndex: -1, dir: "auto", textContent: text });
    entry.dataset.key = keyOf(passage, number);
    entry.hidden = number === 0 && !text.trim();
    entry.addEventListener("click", () => {
      const type = document.querySelector("input[name=missing]:checked").value;
      this.#mark(entry, this.#history.state.missing[entry.dataset.key] === type ? null : type);
    });
    return entry;
  }

  #mark(entry, type) {
    const missing = { ...this.#history.state.missing };
    if (type === null) delete missing[entry.dataset.key];
    else missing[entry.dataset.key] = type;
    this.#history.change({ missing });
  }

  // Arrows go from sentence to sentence, digits mark, Delete unmarks.
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const entry = event.target.closest(".entry");
    if (!entry) return;
    const entries = [...at("passages").querySelectorAll(".entry:not([hidden])")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const type = /^[1-9]$/.test(event.key) ? this.#types[Number(event.key) - 1] : undefined;
    if (step) {
      const next = entries[entries.indexOf(entry) + step];
      if (next) {
        entry.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      }
    } else if (type) {
      this.#mark(entry, type);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (entry.dataset.key in this.#history.state.missing) this.#mark(entry, null);
    } else {
      return;
    }
    event.preventDefault();
  }
}
