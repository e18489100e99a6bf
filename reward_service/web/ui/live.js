// What the service does now, from differences between two readings of /metrics.

const EVERY_MS = 2000;
const KEPT_POINTS = 90;
const ENDPOINT = "/v1/score";

const at = (id) => document.getElementById(id);

function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    samples.push({ name: found[1], labels, value: Number(found[3].replace("+Inf", "Infinity")) });
  }
  return samples;
}

function read(samples) {
  const buckets = new Map();
  const queues = new Map();
  let requests = 0;
  for (const { name, labels, value } of samples) {
    if (name === "reward_request_duration_seconds_bucket" && labels.endpoint === ENDPOINT) {
      const bound = Number(labels.le.replace("+Inf", "Infinity"));
      buckets.set(bound, (buckets.get(bound) ?? 0) + value);
    } else if (name === "reward_requests_total" && labels.endpoint !== "/metrics") {
      requests += value;
    } else if (name === "reward_queue_items" || name === "reward_queue_tokens") {
      const queue = queues.get(labels.model) ?? {};
      queue[name === "reward_queue_items" ? "items" : "tokens"] = value;
      queues.set(labels.model, queue);
    }
  }
  return { buckets, queues, requests, at_ms: performance.now() };
}

// Of a cumulative histogram, by linear interpolation in the bucket, as Prometheus does.
function quantile(now, before, share) {
  const bounds = [...now.buckets.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound) => now.buckets.get(bound) - (before.buckets.get(bound) ?? 0));
  const wanted = (counts.at(-1) ?? 0) * share;
  if (!wanted) return null;
  const index = counts.findIndex((count) => count >= wanted);
  const low = index ? bounds[index - 1] : 0;
  const below = index ? counts[index - 1] : 0;
  if (!Number.isFinite(bounds[index])) return low;
  return low + ((bounds[index] - low) * (wanted - below)) / (counts[index] - below);
}

export const shown_ms = (seconds) => (seconds === null ? "–" : `${(seconds * 1000).toPrecision(3)} ms`);

function show(now, before, points) {
  at("rate").textContent = ((now.requests - before.requests) / ((now.at_ms - before.at_ms) / 1000)).toFixed(1);
  const median = quantile(now, before, 0.5);
  if (median !== null) {
    at("p50").textContent = shown_ms(median);
    at("p95").textContent = shown_ms(quantile(now, before, 0.95));
    points.push(median);
    if (points.length > KEPT_POINTS) points.shift();
    const highest = Math.max(...points);
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const step = 120 / Math.max(points.length - 1, 1);
    line.setAttribute("points", points.map((value, i) => `${i * step},${26 - (24 * value) / highest}`).join(" "));
    at("latency").replaceChildren(line);
  }
}

function showQueues(queues) {
  at("queues").replaceChildren(
    ...[...queues].map(([model, queue]) => {
      const row = document.createElement("li");
      row.textContent = `${model}: ${queue.items ?? 0} items, ${queue.tokens ?? 0} tokens`;
      return row;
    }),
  );
}

export function watch(ask) {
  const points = [];
  let before = null;
  async function poll() {
    if (document.visibilityState === "visible") {
      try {
        const reply = await ask("metrics");
        if (reply.ok) {
          const now = read(parse(await reply.text()));
          showQueues(now.queues);
          if (before) show(now, before, points);
          before = now;
        }
        at("live-state").textContent = reply.ok ? "" : `No figures: HTTP ${reply.status}.`;
      } catch {
        at("live-state").textContent = "No figures: the service does not answer.";
      }
    }
    setTimeout(poll, EVERY_MS);
  }
  poll();
}
