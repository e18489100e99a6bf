// Asks the service for scores and shows them. Texts reach the page as text nodes only, never as markup.

import { shown_ms, watch } from "./live.js";

const TIMEOUT_S = 60;
const LOW = 0.5;

const at = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// The key lives in its input alone: neither in the address nor in any storage.
function ask(path, options = {}) {
  const headers = { "X-Client-Job": "ui", ...options.headers };
  const key = at("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  return fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
}

// --- what is served ---

let served = [];

const fieldsOf = (model) => [...model.template.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);

function chosen() {
  return served.filter((model) => at(`model-${model.name}`)?.checked);
}

function showFields() {
  const given = new Map([...at("fields").querySelectorAll("textarea")].map((area) => [area.name, area.value]));
  const names = [...new Set(chosen().flatMap(fieldsOf))].filter((name) => name !== "prompt");
  at("fields").replaceChildren(
    ...names.flatMap((name) => [
      make("label", { htmlFor: `field-${name}`, textContent: name }),
      make("textarea", { id: `field-${name}`, name, rows: 2, dir: "auto", value: given.get(name) ?? "" }),
    ]),
  );
}

async function showModels() {
  try {
    const reply = await ask("v1/models");
    if (!reply.ok) {
      at("state").textContent = reply.status === 401 ? "The service asks for an API key." : `HTTP ${reply.status}`;
      return;
    }
    served = (await reply.json()).models.filter((model) => ["ready", "failed"].includes(model.state));
  } catch {
    at("state").textContent = "The service does not answer.";
    return;
  }
  at("state").textContent = `${served.length} ${served.length === 1 ? "model" : "models"} served`;
  at("models").replaceChildren(
    ...served.map((model) =>
      make("label", {}, make("input", { type: "checkbox", id: `model-${model.name}`, checked: true }), model.name),
    ),
  );
  showFields();
}

// --- what was said ---

const tip = at("tip");

function showTip(segment, text) {
  tip.textContent = text;
  tip.hidden = false;
  segment.setAttribute("aria-describedby", "tip");
  const place = segment.getClientRects()[0] ?? segment.getBoundingClientRect();
  const below = place.bottom + 8;
  const top = below + tip.offsetHeight > innerHeight ? place.top - tip.offsetHeight - 8 : below;
  tip.style.top = `${Math.max(top, 4)}px`;
  tip.style.left = `${Math.max(Math.min(place.left, innerWidth - tip.offsetWidth - 8), 4)}px`;
}

function hideTip(segment) {
  tip.hidden = true;
  segment?.removeAttribute("aria-describedby");
}

// Where a segment stands between bad (0) and good (1); null where that is not known.
function goodness(model, score) {
  if (model.kind !== "sequence_regression") return score;
  const calibration = model.calibration;
  return calibration ? 1 / (1 + Math.exp(-(score - calibration.mean) / calibration.std)) : null;
}

function makeSegment(model, points, { start, end, score, label }) {
  const text = points.slice(start, end).join("");
  const said = `${label === null ? "score" : label}: ${score.toPrecision(6)}\ncharacters ${start} to ${end}`;
  const t = goodness(model, score);
  const segment = make("span", { className: "segment", tabIndex: 0 }, text);
  segment.classList.toggle("scalar", t === null);
  segment.classList.toggle("low", t !== null && t < LOW);
  if (t !== null) segment.style.setProperty("--t", String(t));
  const shown = label === null ? score.toPrecision(3) : `${label} ${score.toFixed(2)}`;
  segment.append(make("span", { className: "score", dir: "ltr", textContent: shown }));
  for (const event of ["mouseenter", "focus"]) segment.addEventListener(event, () => showTip(segment, said));
  for (const event of ["mouseleave", "blur"]) segment.addEventListener(event, () => hideTip(segment));
  return segment;
}

// Spans count Unicode code points, JavaScript's strings UTF-16 units: Array.from makes the one of the other.
function makeText(model, response, segments) {
  const points = Array.from(response);
  const text = make("p", { className: "text", dir: "auto" });
  let end = 0;
  for (const segment of segments) {
    text.append(points.slice(end, segment.start).join(""), makeSegment(model, points, segment));
    end = segment.end;
  }
  text.append(points.slice(end).join(""));
  return text;
}

function makeFault(error, request_id, retry_after) {
  const again = error.retryable ? "The same request may succeed later" : "The request must be changed";
  const wait = retry_after ? `, after ${retry_after} s` : "";
  return make(
    "div",
    { className: "fault", role: "alert" },
    make("p", {}, make("b", { textContent: error.code }), ` ${error.message}`),
    make("p", { className: "hint", textContent: `${again}${wait}.${request_id ? ` Request ${request_id}` : ""}` }),
  );
}

function makeModel(model, score, response) {
  const total = score.sequence_score === null ? "no score" : score.sequence_score.toPrecision(4);
  const heading = make("header", {}, make("h2", { textContent: score.model }));
  if (!score.error) heading.append(make("span", { className: "total", textContent: total }));
  const facts = [`version ${score.version}`, score.runtime, score.granularity.replace("_", "-")];
  if (score.cached) facts.push("from the cache");
  if (score.truncated_tokens) facts.push(`${score.truncated_tokens} tokens cut`);
  const body = score.error ? makeFault(score.error) : makeText(model, response, score.segments);
  const nothing = !score.error && !score.segments.length && !response.trim();
  return make(
    "article",
    {},
    heading,
    nothing ? make("p", { className: "empty", textContent: "The response is empty." }) : body,
    make("p", { className: "facts", textContent: facts.join(" · ") }),
  );
}

function makeTiming(header, whole_ms) {
  const stages = [...(header ?? "").matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, value]) => [name, Number(value)]);
  const list = make("dl", { className: "stages" });
  for (const [name, value] of [...stages, ["whole", whole_ms]]) {
    const bar = make("dd", { className: "bar", ariaHidden: "true" }, make("i"));
    bar.firstChild.style.width = `${Math.min(value / whole_ms, 1) * 100}%`;
    list.append(make("dt", { textContent: name }), bar, make("dd", { textContent: shown_ms(value / 1000) }));
  }
  const legend = make(
    "span",
    { className: "legend" },
    make("i", { className: "bad", textContent: "low score" }),
    make("i", { className: "good", textContent: "high score" }),
  );
  return make("div", { className: "timing" }, list, make("p", { className: "facts" }, legend));
}

// --- asking ---

function request() {
  const areas = [...at("fields").querySelectorAll("textarea")].filter((area) => area.value);
  return {
    items: [
      {
        prompt: at("prompt").value,
        response: at("response").value,
        fields: Object.fromEntries(areas.map((area) => [area.name, area.value])),
      },
    ],
    models: chosen().map((model) => model.name),
    timeout_s: TIMEOUT_S,
  };
}

async function answer(body) {
  const begin_ms = performance.now();
  const headers = { "Content-Type": "application/json" };
  const reply = await ask("v1/score", { method: "POST", headers, body: JSON.stringify(body) });
  const content = await reply.json();
  if (!reply.ok) return [makeFault(content.error, content.error.request_id, reply.headers.get("Retry-After"))];
  const scores = Object.values(content.results[0].scores);
  const byName = new Map(served.map((model) => [model.name, model]));
  const response = body.items[0].response;
  return [
    ...scores.map((score) => makeModel(byName.get(score.model), score, response)),
    makeTiming(reply.headers.get("Server-Timing"), performance.now() - begin_ms),
  ];
}

async function send(event) {
  event.preventDefault();
  const results = at("results");
  at("send").disabled = true;
  results.setAttribute("aria-busy", "true");
  hideTip();
  try {
    results.replaceChildren(...(await answer(request())));
  } catch (error) {
    const fault = { code: "no_reply", message: "The service did not answer.", retryable: true };
    results.replaceChildren(makeFault(fault));
    console.warn(error);
  }
  results.setAttribute("aria-busy", "false");
  at("send").disabled = false;
}

at("ask").addEventListener("submit", send);
at("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("models").addEventListener("change", showFields);
at("key").addEventListener("change", showModels);
document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip(document.activeElement));
await showModels();
watch(ask);
