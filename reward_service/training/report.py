"""The page of a model's held-out figures: one HTML file that needs nothing from outside itself."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from reward_service.domain import ItemScore, ScoredSpan, TextItem
from reward_service.registry.store import Published
from reward_service.training import report_figures
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.evaluate import Judged
from reward_service.training.figures import JudgedSegments, judged_segments, pair_margins
from reward_service.training.history import EpochFigures
from reward_service.training.labels import IGNORED, LABELS

WORST_EXAMPLES = 12
LENGTH_BINS = 4
"""Segments by length, in bins of about the same number."""

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}svg{max-width:31rem;height:auto}
.q{background:#f6f6f6;padding:.6rem;white-space:pre-wrap}.m{color:#666;display:inline-block;width:7rem}
.s{padding:.05rem .2rem;border-radius:.2rem}p.t{white-space:pre-wrap;margin:.3rem 0}
.ok{background:#d5efd5}.error{background:#f7cfcf}.left-out{background:#e8e8e8}
"""


def write_report(
    path: Path, published: Published, runtime: str, judged: Sequence[Judged], history: Sequence[EpochFigures]
) -> None:
    """Write the page of a version.

    Args:
        path: The file; its folder is made.
        published: The version.
        runtime: What computed the scores.
        judged: One a head.
        history: Its learning curve; may be empty.
    """
    title = html.escape(f"{published.name} {published.version}")
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>",
        f"<style>{STYLE}</style><h1>{title}</h1>",
        f"<p>Held-out feedback, scored by {html.escape(runtime)}. Template: "
        f"<code>{html.escape(published.manifest.template)}</code></p>",
    ]
    for one in judged:
        output = one.output
        heading = f"{output.name}: {output.kind.value} of each {output.granularity.value}"
        parts.append(f"<h2>{html.escape(heading)}</h2>" + _metrics_table(one))
        parts.extend(_head(one))
    if history:
        parts.append("<h2>Training</h2>" + report_figures.learning_curve(history))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "</html>\n", encoding="utf-8", errors="replace")


def _head(judged: Judged) -> Iterator[str]:
    spans = [example for example in judged.examples if isinstance(example, SpanExample)]
    pairs = [example for example in judged.examples if isinstance(example, PairExample)]
    if judged.metrics.get("n_segments"):
        segments = judged_segments(spans, judged.scores, judged.output.ok_label)
        yield report_figures.reliability_diagram(segments)
        auc = judged.metrics.get("auc")
        if auc is not None:
            yield report_figures.roc_diagram(segments, auc)
        yield report_figures.score_histogram(segments)
        yield "<h3>Confusion by segment length</h3>" + _confusion_table(segments)
        yield "<h3>Worst examples</h3><p>The upper line shows what people marked, the lower one what the model says: "
        yield "green is ok, red an error, grey left out. Hover for the score.</p>"
        yield from _worst_responses(spans, judged.scores, judged.output.ok_label)
    elif judged.metrics.get("n_pairs"):
        margins = pair_margins(pairs, judged.scores)
        yield report_figures.margin_histogram(np.concatenate(margins))
        yield "<h3>Worst examples</h3>"
        yield from _worst_pairs(pairs, judged.scores)
    else:
        yield "<p>The feedback holds nothing to judge this head by.</p>"


def _metrics_table(judged: Judged) -> str:
    figures = {name: value for name, value in judged.metrics.items() if value is not None}
    return table(list(figures), [[f"{value:.4g}" for value in figures.values()]])


def _confusion_table(judged: JudgedSegments) -> str:
    edges = np.unique(np.quantile(judged.lengths_chars, np.linspace(0, 1, LENGTH_BINS + 1), method="nearest"))
    bins = np.clip(np.searchsorted(edges, judged.lengths_chars, side="left") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for number in np.unique(bins):
        inside = bins == number
        is_ok, says_ok = judged.is_ok[inside], judged.says_ok[inside]
        lengths = judged.lengths_chars[inside]
        counts = [int(one.sum()) for one in (is_ok & says_ok, is_ok & ~says_ok, ~is_ok & says_ok, ~is_ok & ~says_ok)]
        shares = [(is_ok == says_ok).mean(), (~is_ok).mean()]
        rows.append([f"{lengths.min()}-{lengths.max()}", *map(str, counts), *(f"{share:.3f}" for share in shares)])
    names = ["characters", "ok, said ok", "ok, said error", "error, said ok", "error, said error"]
    return table([*names, "accuracy", "share of errors"], rows)


def _worst_responses(examples: Sequence[SpanExample], scores: Sequence[ItemScore], ok_label: str) -> Iterator[str]:
    """Responses by the lowest probability that the model gives to the truth of one of their segments."""

    def truth_probability(example: SpanExample, score: ItemScore) -> float:
        return min(
            (
                segment.score if LABELS[label] == "ok" else 1.0 - segment.score
                for segment, label in zip(score.segments, example.labels.tolist(), strict=True)
                if label != IGNORED
            ),
            default=1.0,
        )

    ranked = sorted(zip(examples, scores, strict=True), key=lambda both: truth_probability(*both))
    for example, score in ranked[:WORST_EXAMPLES]:
        truths = ["left-out" if label == IGNORED else LABELS[label] for label in example.labels.tolist()]
        says = ["ok" if segment.label == ok_label else "error" for segment in score.segments]
        yield _asked(example.row.place, example.row.item)
        for name, classes in (("marked", truths), ("model", says)):
            text = _coloured(example.row.item.response, score.segments, classes)
            yield f"<p class='t'><span class='m'>{name}</span>{text}</p>"


def _worst_pairs(examples: Sequence[PairExample], scores: Sequence[ItemScore]) -> Iterator[str]:
    """Pairs by how far the loser scores above the winner."""
    found: list[tuple[float, PairExample, int, int]] = []
    for example, margins in zip(examples, pair_margins(examples, scores), strict=True):
        found.extend((margin, example, *pair) for margin, pair in zip(margins.tolist(), example.row.pairs, strict=True))
    for margin, example, winner, loser in sorted(found, key=lambda entry: entry[0])[:WORST_EXAMPLES]:
        yield _asked(f"{example.row.place}, margin {margin:.3f}", example.row.items[winner])
        for name, css, number in (("better", "ok", winner), ("worse", "error", loser)):
            text = html.escape(example.row.items[number].response)
            yield f"<p class='t'><span class='m'>{name}</span><span class='s {css}'>{text}</span></p>"


def _asked(place: str, item: TextItem) -> str:
    lines = [item.prompt, *(f"{name}: {value}" for name, value in item.fields.items())]
    text = "\n".join(line for line in lines if line)
    return (
        f"<h4>{html.escape(place)}</h4><details><summary>prompt and fields</summary>"
        f"<div class='q'>{html.escape(text)}</div></details>"
    )


def _coloured(text: str, segments: Sequence[ScoredSpan], classes: Sequence[str]) -> str:
    parts = []
    end = 0
    for segment, name in zip(segments, classes, strict=True):
        span = segment.span
        tip = html.escape(f"P(ok) {segment.score:.3f}, {name}")
        body = html.escape(text[span.start : span.end])
        parts.append(f"{html.escape(text[end : span.start])}<span class='s {name}' title='{tip}'>{body}</span>")
        end = span.end
    return "".join(parts) + html.escape(text[end:])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a head; every cell is a text."""
    header = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{header}</tr>{body}</table>"
