// The first view's left half: the response with its error spans, and the list of them.

import { at, make } from "./dom.js";
import { excerptOf, pieces, selectedUnits, selectSpan, selectUnits, spanAt, spanOf } from "./spans.js";

const EXCERPT_POINTS = 60;

export class Marks {
  #types;
  #categories;
  #text = "";
  #history = null;

  constructor(errorTypes) {
    this.#types = Object.values(errorTypes).flat();
    this.#categories = Object.values(errorTypes);
    const area = at("response");
    // It may be edited so that it has a caret, for the keyboard; nothing of it can be changed.
    for (const event of ["beforeinput", "dragstart", "drop"]) area.addEventListener(event, (e) => e.preventDefault());
    area.addEventListener("input", () => this.#showText());
    area.addEventListener("keydown", (event) => this.#key(event));
    this.#showTypes(errorTypes);
  }

  open(text, history) {
    this.#text = text;
    this.#history = history;
    this.show();
    getSelection().removeAllRanges();
  }

  show() {
    this.#showText();
    this.#showList();
  }

  #classOf(type) {
    return `c${this.#categories.findIndex((names) => names.includes(type))}`;
  }

  #showTypes(errorTypes) {
    const groups = Object.entries(errorTypes).map(([category, names]) => {
      const buttons = names.map((name) => {
        const number = this.#types.indexOf(name) + 1;
        const button = make("button", { type: "button", className: `type ${this.#classOf(name)}` });
        button.append(make("kbd", { textContent: String(number) }), ` ${name}`);
        button.addEventListener("mousedown", (event) => event.preventDefault()); // The selection stays.
        button.addEventListener("click", () => this.#mark(name));
        return button;
      });
      return make("span", { className: "group", role: "group", ariaLabel: category }, `${category} `, ...buttons);
    });
    at("types").replaceChildren(...groups);
  }

  #showText() {
    const area = at("response");
    const kept = document.activeElement === area ? selectedUnits(area) : null;
    area.replaceChildren(
      ...pieces(this.#text, this.#history.state.errors).map(({ text, spans }) => {
        if (!spans.length) return document.createTextNode(text);
        const type = spans.at(-1).type;
        const mark = make("span", { className: `mark ${this.#classOf(type)}` }, text);
        mark.classList.toggle("several", spans.length > 1);
        mark.title = spans.map((span) => [span.type, span.explanation].filter(Boolean).join(": ")).join("\n");
        return mark;
      }),
    );
    if (kept) selectUnits(area, kept);
  }

  #showList() {
    const { errors } = this.#history.state;
    at("spans").replaceChildren(
      ...errors.map((error, index) => {
        const whole = Array.from(excerptOf(this.#text, error).replace(/\s+/g, " "));
        const excerpt = whole.length > EXCERPT_POINTS ? `${whole.slice(0, EXCERPT_POINTS).join("")}…` : whole.join("");
        const go = make("button", { type: "button", className: `go ${this.#classOf(error.type)}` });
        go.append(make("b", { textContent: error.type }), make("bdi", { textContent: ` ${excerpt}` }));
        go.addEventListener("click", () => {
          at("response").focus();
          selectSpan(at("response"), this.#text, error);
        });
        const why = make("input", {
          value: error.explanation,
          placeholder: "why, or what it repeats",
          ariaLabel: `explanation of ${error.type} ${excerpt}`,
          dir: "auto",
        });
        why.addEventListener("input", () => this.#replace(index, { explanation: why.value }, `why-${index}`));
        why.addEventListener("blur", () => this.#history.leaveField());
        const drop = make("button", { type: "button", className: "drop", ariaLabel: `remove ${error.type} ${excerpt}` });
        drop.textContent = "×";
        drop.addEventListener("click", () => this.#remove(error));
        return make("li", {}, go, why, drop);
      }),
    );
  }

  #replace(index, changes, field = null) {
    const errors = this.#history.state.errors.map((error, i) => (i === index ? { ...error, ...changes } : error));
    this.#history.change({ errors }, field);
  }

  #remove(gone) {
    this.#history.change({ errors: this.#history.state.errors.filter((error) => error !== gone) });
  }

  #spanHere() {
    const units = selectedUnits(at("response"));
    return units && spanAt(this.#text, units.start, this.#history.state.errors);
  }

  // What is selected gets a type; with nothing selected the span around the caret gets another one.
  #mark(type) {
    const units = selectedUnits(at("response"));
    if (!units) return;
    const { errors } = this.#history.state;
    const chosen = units.start === units.end ? null : spanOf(this.#text, units.start, units.end);
    const same = chosen
      ? errors.find(({ start, end }) => start === chosen.start && end === chosen.end)
      : spanAt(this.#text, units.start, errors);
    if (same) {
      this.#replace(errors.indexOf(same), { type });
    } else if (chosen) {
      const added = [...errors, { type, explanation: "", ...chosen }];
      added.sort((a, b) => a.start - b.start || a.end - b.end);
      this.#history.change({ errors: added });
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const type = /^[1-9]$/.test(event.key) ? this.#types[Number(event.key) - 1] : undefined;
    if (type) {
      event.preventDefault();
      this.#mark(type);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      const here = this.#spanHere();
      if (here) this.#remove(here);
    }
  }
}
