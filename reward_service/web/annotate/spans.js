// Places in a text: the contract counts Unicode code points, JavaScript and the DOM count UTF-16 units.

// Which code point a UTF-16 unit belongs to. A unit inside a pair belongs to the point that the pair is.
function pointOf(text, unit) {
  const before = text.codePointAt(unit - 1);
  const inside = unit > 0 && unit < text.length && before > 0xffff;
  return Array.from(text.slice(0, inside ? unit - 1 : unit)).length;
}

const unitOf = (points, point) => points.slice(0, point).join("").length;

// Half-open, without white space at its ends; null where nothing is left. Never half a pair.
export function spanOf(text, startUnit, endUnit) {
  if (startUnit >= endUnit) return null;
  const points = Array.from(text);
  let start = pointOf(text, startUnit);
  let end = pointOf(text, endUnit);
  if (unitOf(points, end) < endUnit) end += 1;
  while (start < end && !points[start].trim()) start += 1;
  while (start < end && !points[end - 1].trim()) end -= 1;
  return start < end ? { start, end } : null;
}

export const excerptOf = (text, { start, end }) => Array.from(text).slice(start, end).join("");

// The selection's two ends within an element that holds the text and nothing else, in UTF-16 units.
export function selectedUnits(element) {
  const selection = getSelection();
  if (!selection.rangeCount) return null;
  const range = selection.getRangeAt(0);
  if (!element.contains(range.startContainer) || !element.contains(range.endContainer)) return null;
  const before = document.createRange();
  before.selectNodeContents(element);
  before.setEnd(range.startContainer, range.startOffset);
  const start = before.toString().length;
  return { start, end: start + range.toString().length };
}

function place(element, unit) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let left = unit;
  let last = [element, 0];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (left <= node.length) return [node, left];
    left -= node.length;
    last = [node, node.length];
  }
  return last;
}

export function selectUnits(element, { start, end }) {
  getSelection().setBaseAndExtent(...place(element, start), ...place(element, end));
}

export function selectSpan(element, text, { start, end }) {
  const points = Array.from(text);
  selectUnits(element, { start: unitOf(points, start), end: unitOf(points, end) });
}

// The text cut wherever a span begins or ends: [{text, spans}], in order.
export function pieces(text, spans) {
  const points = Array.from(text);
  const cuts = [...new Set([0, points.length, ...spans.flatMap(({ start, end }) => [start, end])])];
  cuts.sort((a, b) => a - b);
  return cuts.slice(0, -1).map((start, i) => ({
    text: points.slice(start, cuts[i + 1]).join(""),
    spans: spans.filter((span) => span.start <= start && span.end >= cuts[i + 1]),
  }));
}

// The shortest span around a place, in code points; null where there is none.
export function spanAt(text, unit, spans) {
  const point = pointOf(text, unit);
  const around = spans.filter(({ start, end }) => start <= point && point < end);
  around.sort((a, b) => a.end - a.start - (b.end - b.start));
  return around[0] ?? spans.find(({ end }) => end === point) ?? null;
}
