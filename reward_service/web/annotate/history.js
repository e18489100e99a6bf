// What has been said of a task, step by step. A state never changes; each change makes another one.

export class History {
  #past = [];
  #future = [];
  #field = null;
  #changed;

  // `changed(state, field)` is called after each change.
  constructor(state, changed) {
    this.state = state;
    this.#changed = changed;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  // Changes of one text field that follow each other are one step.
  change(changes, field = null) {
    if (field === null || field !== this.#field) this.#past.push(this.state);
    this.#field = field;
    this.#future = [];
    this.state = Object.freeze({ ...this.state, ...changes });
    this.#changed(field);
  }

  leaveField() {
    this.#field = null;
  }

  undo() {
    this.#step(this.#past, this.#future);
  }

  redo() {
    this.#step(this.#future, this.#past);
  }

  #step(from, to) {
    if (!from.length) return;
    to.push(this.state);
    this.state = from.pop();
    this.#field = null;
    this.#changed(null);
  }
}

export const keyOf = (passage, sentence) => `${passage}.${sentence}`;

// The wire has QA-Feedback's names; the page wants a sentence's mark by its place.
export function fromWire({ feedback, preference }) {
  const missing = {};
  for (const entry of feedback["missing-info"]) {
    for (const sentence of entry.sentence_id) missing[keyOf(entry.passage_id, sentence)] = entry["error type"];
  }
  const errors = feedback.errors.map((error) => ({
    type: error["error type"],
    explanation: error.explanation ?? "",
    start: error.start,
    end: error.end,
  }));
  return Object.freeze({ errors, missing, corrected: feedback["corrected-prediction"], preference });
}

export function toWire({ errors, missing, corrected, preference }) {
  const places = Object.keys(missing).map((key) => [...key.split(".").map(Number), missing[key]]);
  places.sort(([a, b], [c, d]) => a - c || b - d);
  const byPlace = [...errors].sort((a, b) => a.start - b.start || a.end - b.end);
  return {
    feedback: {
      errors: byPlace.map(({ type, explanation, start, end }) => ({ "error type": type, explanation, start, end })),
      "missing-info": places.map(([passage, sentence, type]) => ({
        "error type": type,
        passage_id: passage,
        sentence_id: [sentence],
      })),
      "corrected-prediction": corrected,
    },
    preference,
  };
}
