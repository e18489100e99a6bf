// The second view: which of two responses is better, pair by pair.

import { at, make } from "./dom.js";

const PAIRS = [
  [1, 2],
  [1, 3],
  [1, 4],
  [2, 3],
  [2, 4],
  [3, 4],
];

export class Rank {
  #history = null;
  #pairs = [];
  #current = 0;

  constructor() {
    at("rank").addEventListener("keydown", (event) => this.#key(event));
  }

  get isPossible() {
    return this.#pairs.length > 0;
  }

  open(task, history) {
    this.#history = history;
    this.#pairs = task.pairs;
    this.#current = this.#pairs.find((pair) => history.state.preference[pair] === null) ?? this.#pairs[0] ?? 0;
    at("answers").replaceChildren(
      ...task.responses.map((text, index) => {
        const answer = make("article", { className: "answer", id: `answer-${index + 1}` });
        const shown = make("p", { className: "text", dir: "auto", textContent: text || "(empty)" });
        answer.append(make("h3", { textContent: `Response ${index + 1}` }), shown);
        return answer;
      }),
    );
    this.show();
  }

  show() {
    const focused = at("pairs").contains(document.activeElement) ? document.activeElement.id : null;
    at("pairs").replaceChildren(...this.#pairs.map((pair) => this.#makePair(pair)));
    for (const answer of at("answers").children) {
      const number = Number(answer.id.replace("answer-", ""));
      answer.classList.toggle("compared", this.isPossible && PAIRS[this.#current].includes(number));
    }
    if (focused) at(focused)?.focus();
    at("cycle").hidden = !this.#isCircular();
  }

  #makePair(pair) {
    const [first, second] = PAIRS[pair];
    const choice = this.#history.state.preference[pair];
    const choices = [
      [1, `${first} is better`],
      [0, "neither"],
      [2, `${second} is better`],
    ];
    const buttons = choices.map(([value, text]) => {
      const button = make("button", { type: "button", id: `pair-${pair}-${value}`, textContent: text });
      button.ariaPressed = String(choice === value);
      button.addEventListener("click", () => this.#decide(pair, choice === value ? null : value));
      return button;
    });
    const row = make("li", { role: "group", ariaLabel: `responses ${first} and ${second}` }, ...buttons);
    row.classList.toggle("current", pair === this.#current);
    return row;
  }

  #decide(pair, value) {
    const preference = this.#history.state.preference.map((choice, i) => (i === pair ? value : choice));
    this.#current = value === null ? pair : (this.#pairs.find((one) => preference[one] === null) ?? pair);
    this.#history.change({ preference });
  }

  // 1 beats 2, 2 beats 3 and 3 beats 1.
  #isCircular() {
    const beats = new Set();
    for (const [pair, [first, second]] of PAIRS.entries()) {
      const choice = this.#history.state.preference[pair];
      if (choice) beats.add(choice === 1 ? `${first}>${second}` : `${second}>${first}`);
    }
    const n = [1, 2, 3, 4];
    return n.some((a) =>
      n.some((b) => n.some((c) => beats.has(`${a}>${b}`) && beats.has(`${b}>${c}`) && beats.has(`${c}>${a}`))),
    );
  }

  // The number of the better response of the current pair, 0 for neither; up and down go to another pair.
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.isPossible) return;
    const place = this.#pairs.indexOf(this.#current);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const better = PAIRS[this.#current].indexOf(Number(event.key)) + 1;
    if (step) {
      this.#current = this.#pairs[Math.min(Math.max(place + step, 0), this.#pairs.length - 1)];
      this.show();
    } else if (event.key === "0" || (/^[1-4]$/.test(event.key) && better)) {
      this.#decide(this.#current, event.key === "0" ? 0 : better);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.#decide(this.#current, null);
    } else {
      return;
    }
    event.preventDefault();
  }
}
