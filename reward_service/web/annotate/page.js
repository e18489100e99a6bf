// The page on which people annotate. Texts reach it as text nodes only, never as markup.

import { annotator, ask, askJson, Refused, Saver } from "./ask.js";
import { at, make } from "./dom.js";
import { fromWire, History, toWire } from "./history.js";
import { Marks } from "./marks.js";
import { Passages } from "./passages.js";
import { Rank } from "./rank.js";

const TYPING_PAUSE_MS = 400;

let tasks = [];
let number = -1;
let history = null;
let saver = null;
let done = false;
let marks = null;
let passages = null;
let rank = null;
let response = "";

function tell(text, isFault = false) {
  at("state").textContent = text;
  at("state").classList.toggle("fault", isFault);
}

function tellSaved(text, isFault = false) {
  at("saved").textContent = text;
  at("saved").classList.toggle("fault", isFault);
}

// --- who, and which task: in the address, so that a reload goes on there ---

const address = () => new URLSearchParams(location.hash.slice(1));

function remember() {
  const told = { annotator: annotator(), task: tasks[number]?.id ?? "" };
  window.history.replaceState(null, "", `#${new URLSearchParams(told)}`);
}

async function begin() {
  if (!annotator() && !at("key").value.trim()) return;
  if (saver && !(await saver.retry())) return;
  try {
    const told = await askJson("tasks");
    at("name").value = told.annotator;
    tasks = told.tasks;
    marks ??= new Marks(told.error_types);
    passages ??= new Passages(told.missing_types);
    rank ??= new Rank();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    at("work").hidden = true;
    tell(error.status === 401 ? "The service asks for an API key." : `Not loaded: ${error.message}.`, true);
    return;
  }
  showAgreement();
  if (!tasks.length) {
    tell("There are no tasks.");
    return;
  }
  const wanted = tasks.findIndex(({ id }) => id === address().get("task"));
  await open(wanted >= 0 ? wanted : Math.max(nextOpen(-1), 0));
}

// The next task that is to be done, after a place and round; -1 where all is done.
function nextOpen(from) {
  const order = tasks.map((_, i) => (from + 1 + i) % tasks.length);
  return order.find((i) => tasks[i].offered && tasks[i].state !== "done") ?? -1;
}

async function open(wanted) {
  if (wanted < 0 || wanted >= tasks.length || (saver && !(await saver.flush()))) return;
  let told;
  try {
    told = await askJson(`tasks/${encodeURIComponent(tasks[wanted].id)}`);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(`Not loaded: ${error.message}.`, true);
    return;
  }
  number = wanted;
  done = told.done;
  response = told.task.responses[0];
  history = new History(fromWire(told.annotation), changed);
  saver = new Saver(told.task.id, told.revision, tellSaved);
  tellSaved(told.revision ? "saved" : "");
  at("question").textContent = told.task.question;
  at("work").hidden = false;
  marks.open(response, history);
  passages.open(told.task.passages, history);
  rank.open(told.task, history);
  at("tab-rank").disabled = !rank.isPossible;
  view("mark");
  remember();
  show();
}

// --- what changes ---

// A change to what was done makes it a draft again, until it is told to be done anew.
function changed(field) {
  done = false;
  save(field === null ? 0 : TYPING_PAUSE_MS);
  show(field);
}

function save(pause_ms) {
  saver.put({ annotation: toWire(history.state), done }, pause_ms);
  tasks[number].state = done ? "done" : "draft";
}

// A text field that is being typed in shows what it shows.
function show(field = null) {
  if (field === null) {
    marks.show();
    passages.show();
    rank.show();
  }
  if (field !== "corrected") at("corrected").value = history.state.corrected;
  at("undo").disabled = !history.canUndo;
  at("redo").disabled = !history.canRedo;
  at("place").textContent = `${number + 1} of ${tasks.length}, ${tasks[number].state}`;
  const finished = tasks.filter(({ state }) => state === "done").length;
  const offered = tasks.filter((task) => task.offered).length;
  tell(`${finished} of ${offered} done`);
}

async function finish() {
  if (!history) return;
  done = true;
  history.leaveField();
  save(0);
  if (await saver.flush()) {
    showAgreement();
    const next = nextOpen(number);
    if (next >= 0) await open(next);
    else show();
    return;
  }
  // What was refused is kept as a draft; what is missing was told.
  const reason = saver.refused.message;
  tasks[number].state = "draft";
  done = false;
  saver.refused = null;
  saver.put({ annotation: toWire(history.state), done });
  if (await saver.flush()) tellSaved(`saved as a draft: ${reason}`, true);
  show();
}

function view(name) {
  for (const one of ["mark", "rank"]) {
    at(one).hidden = one !== name;
    at(`tab-${one}`).ariaSelected = String(one === name);
  }
  if (name === "rank") at("rank").focus({ preventScroll: true });
}

// --- what everybody said ---

const shown = (value) => (value === null ? "–" : value.toFixed(2));

async function showAgreement() {
  try {
    const told = await askJson("agreement");
    const parts = [`spans ${shown(told.spans)}`];
    for (const [name, value] of Object.entries(told.categories)) parts.push(`${name} ${shown(value)}`);
    parts.push(`missing ${shown(told.missing)}`, `preference ${shown(told.preference)}`);
    at("agreement").textContent = `${parts.join(", ")}; on ${told.tasks} tasks that several people finished`;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    at("agreement").textContent = `not known: ${error.message}`;
  }
}

async function download(format) {
  try {
    const link = make("a", { href: URL.createObjectURL(await (await ask(`export/${format}`)).blob()) });
    link.download = `${format}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(`Not downloaded: ${error.message}.`, true);
  }
}

// --- wiring ---

const isText = (element) => element.matches("textarea, input:not([type=radio])");

document.addEventListener("keydown", (event) => {
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (!history) return;
  if (control && key === "enter") finish();
  else if (control && !isText(event.target) && key === "z") event.shiftKey ? history.redo() : history.undo();
  else if (control && !isText(event.target) && key === "y") history.redo();
  else if (event.altKey && event.key === "ArrowRight") open(number + 1);
  else if (event.altKey && event.key === "ArrowLeft") open(number - 1);
  else if (event.altKey && event.code === "KeyM") view("mark");
  else if (event.altKey && event.code === "KeyR" && rank.isPossible) view("rank");
  else return;
  event.preventDefault();
});
at("undo").addEventListener("click", () => history.undo());
at("redo").addEventListener("click", () => history.redo());
at("done").addEventListener("click", finish);
at("previous").addEventListener("click", () => open(number - 1));
at("next").addEventListener("click", () => open(number + 1));
at("tab-mark").addEventListener("click", () => view("mark"));
at("tab-rank").addEventListener("click", () => view("rank"));
at("corrected").addEventListener("input", () => history.change({ corrected: at("corrected").value }, "corrected"));
at("corrected").addEventListener("blur", () => history.leaveField());
at("copy").addEventListener("click", () => {
  history.change({ corrected: response });
  at("corrected").focus();
});
for (const button of document.querySelectorAll(".download")) {
  button.addEventListener("click", () => download(button.value));
}
for (const field of ["name", "key"]) at(field).addEventListener("change", begin);
addEventListener("beforeunload", (event) => saver?.unsaved && event.preventDefault());
document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && saver?.flush());

async function follow() {
  at("name").value = address().get("annotator") ?? "";
  await begin();
}

addEventListener("hashchange", follow);
await follow();
