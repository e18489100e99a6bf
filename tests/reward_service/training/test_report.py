import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from reward_proto.feedback import SpanError
from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.domain import Encoded, ItemScore, ScoredSpan, Span, TextItem
from reward_service.registry.manifest import HeadSpec
from reward_service.registry.store import Published, Store
from reward_service.training.dataset import PairExample, SpanExample
from reward_service.training.evaluate import Judged
from reward_service.training.feedback import PairRow, SpanRow
from reward_service.training.figures import pair_metrics, span_metrics
from reward_service.training.history import EpochFigures
from reward_service.training.labels import IGNORED, LABELS
from reward_service.training.report import write_report

ERROR, OK = LABELS.index("error"), LABELS.index("ok")
NOTHING = Encoded(np.zeros(1, dtype=np.int64), ())
EVIL = "<script>alert('x')</script> & \"more\""
CLASSIFIER = HeadSpec(
    name="relevance",
    kind=ModelKind.TOKEN_CLASSIFICATION,
    granularity=Granularity.SENTENCE,
    labels=LABELS,
    ok_label="ok",
)
REGRESSOR = HeadSpec(name="preference", kind=ModelKind.SEQUENCE_REGRESSION, granularity=Granularity.SEQUENCE)


@pytest.fixture
def published(trained: tuple[Path, Path]) -> Published:
    return Store(trained[1]).resolve("factuality")


def marked(place: str, words: list[tuple[str, int, float]]) -> tuple[SpanExample, ItemScore]:
    """A response of segments, each with its class and P(ok)."""
    text = " ".join(word for word, _, _ in words)
    spans: list[Span] = []
    for word, _, _ in words:
        start = spans[-1].end + 1 if spans else 0
        spans.append(Span(start, start + len(word)))
    item = TextItem(EVIL, text, {"question": EVIL})
    row = SpanRow(place, 0, item, (SpanError(error_type="Bad", start=0, end=1),))
    segments = tuple(
        ScoredSpan(span, p, "ok" if p > 0.5 else "error", (0.0, 0.0))
        for span, (_, _, p) in zip(spans, words, strict=True)
    )
    return SpanExample(row, NOTHING, np.array([label for _, label, _ in words])), ItemScore(segments, None)


def write(path: Path, published: Published, judged: list[Judged], history: list[EpochFigures] | None = None) -> str:
    write_report(path, published, "torch-fp32", judged, history or [])
    return path.read_text(encoding="utf-8")


def span_page(path: Path, published: Published, history: list[EpochFigures] | None = None) -> str:
    answers = [
        marked("good", [("fine", OK, 0.9), ("bad", ERROR, 0.2)]),
        marked("worst", [(EVIL, OK, 0.01), ("left", IGNORED, 0.7)]),
        marked("middling", [("so-so", ERROR, 0.6)]),
    ]
    examples, scores = [one for one, _ in answers], [score for _, score in answers]
    return write(path, published, [Judged(CLASSIFIER, examples, scores, span_metrics(examples, scores))], history)


class Outside(HTMLParser):
    """Collects all that a page would load or run, and whether its elements close."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "img", "link", "iframe", "object"}:
            self.found.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href"} and not (value or "").startswith("#"):
                self.found.append(f"{name}={value}")


def test_the_page_needs_nothing_from_outside_and_runs_nothing(tmp_path: Path, published: Published) -> None:
    text = span_page(tmp_path / "new" / "a.html", published, [EpochFigures(0.5, 0.6), EpochFigures(0.4, None)])
    reader = Outside()
    reader.feed(text)
    assert reader.found == []
    assert "url(http" not in text
    assert "@import" not in text
    assert EVIL not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;more&quot;" in text


def test_a_span_models_page_has_every_part(tmp_path: Path, published: Published) -> None:
    text = span_page(tmp_path / "a.html", published, [EpochFigures(0.5, 0.6)])
    for part in ("Reliability, ECE", "ROC, AUC", "Scores by true class", "Confusion by segment length", "Loss"):
        assert part in text
    assert text.count("<svg") == 4
    assert published.version in text


def test_the_worst_come_first_with_truth_and_prediction_coloured(tmp_path: Path, published: Published) -> None:
    text = span_page(tmp_path / "a.html", published)
    assert re.findall(r"<h4>(\w+)</h4>", text) == ["worst", "middling", "good"]
    good = text[text.index("<h4>good") :]
    truth, model = re.findall(r"<p class='t'>(.*?)</p>", good)
    assert re.findall(r"<span class='s ([\w-]+)' title='(.*?)'>(.*?)</span>", truth) == [
        ("ok", "P(ok) 0.900, ok", "fine"),
        ("error", "P(ok) 0.200, error", "bad"),
    ]
    assert re.findall(r"<span class='s ([\w-]+)'", model) == ["ok", "error"]
    worst = text[text.index("<h4>worst") : text.index("<h4>middling")]
    truth, model = re.findall(r"<p class='t'>(.*?)</p>", worst)
    assert re.findall(r"<span class='s ([\w-]+)'", truth) == ["ok", "left-out"]
    assert re.findall(r"<span class='s ([\w-]+)'", model) == ["error", "ok"]


def test_confusion_counts_every_segment_once_in_bins_of_length(tmp_path: Path, published: Published) -> None:
    words = [("x" * length, OK if length % 3 else ERROR, 0.9 if length % 2 else 0.1) for length in range(1, 41)]
    example, score = marked("all", words)
    judged = Judged(CLASSIFIER, [example], [score], span_metrics([example], [score]))
    text = write(tmp_path / "a.html", published, [judged])
    table = text[text.index("Confusion by segment length") :]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", table)]
    counted = dict.fromkeys(range(1, 41), 0)
    for bounds, *counts, accuracy, errors in rows:
        shortest, longest = map(int, bounds.split("-"))
        inside = [(label == OK, p > 0.5) for word, label, p in words if shortest <= len(word) <= longest]
        for length in range(shortest, longest + 1):
            counted[length] += 1
        kinds = [(True, True), (True, False), (False, True), (False, False)]
        assert list(map(int, counts)) == [inside.count(kind) for kind in kinds]
        assert float(accuracy) == pytest.approx(sum(a == b for a, b in inside) / len(inside), abs=5e-4)
        assert float(errors) == pytest.approx(sum(not a for a, _ in inside) / len(inside), abs=5e-4)
    assert len(rows) == 4
    assert set(counted.values()) == {1}


def test_a_pairwise_models_page_has_margins_and_worst_pairs(tmp_path: Path, published: Published) -> None:
    items = tuple(TextItem("", text) for text in ("chosen & good", "rejected", "third"))
    example = PairExample(PairRow("here", 0, items, ((0, 1), (0, 2))), (NOTHING,) * 3)
    scores = [ItemScore((), value) for value in (1.0, 3.0, 0.5)]
    text = write(
        tmp_path / "a.html", published, [Judged(REGRESSOR, [example], scores, pair_metrics([example], scores))]
    )
    assert "Margins, 50.0% above 0" in text
    assert re.findall(r"<h4>(.*?)</h4>", text) == ["here, margin -2.000", "here, margin 0.500"]
    assert "chosen &amp; good" in text


def test_a_head_with_nothing_to_judge_says_so(tmp_path: Path, published: Published) -> None:
    text = write(tmp_path / "a.html", published, [Judged(CLASSIFIER, [], [], span_metrics([], []))])
    assert "holds nothing to judge" in text
    one, score = marked("one", [("fine", OK, 1.0)])
    page = write(tmp_path / "b.html", published, [Judged(CLASSIFIER, [one], [score], span_metrics([one], [score]))])
    assert "ROC" not in page
    assert "Reliability" in page


def test_training_leaves_a_page_for_each_model(trained: tuple[Path, Path]) -> None:
    store = Store(trained[1])
    for name, part in (("factuality", "Reliability, ECE"), ("preference", "Margins")):
        path = trained[1].parent / "reports" / f"{name}-{store.resolve(name).version}.html"
        text = path.read_text(encoding="utf-8")
        assert part in text
        assert "Loss" in text
