from pathlib import Path

import numpy as np
import pytest

from reward_service.domain import TextItem
from reward_service.errors import ConfigError
from reward_service.registry.store import Store
from reward_service.training.benchmark_files import Asked, Benchmark, PreferenceRow, StepsRow
from reward_service.training.benchmark_scores import STEP_BREAK, score_benchmark, step_spans
from reward_service.training.dataset import Inputs
from reward_service.training.evaluate import load_backend
from reward_service.training.scoring import score_all

ASKED = Asked("f: row 0", "p", {"question": "What is the colour?", "context": "the thing"}, "all")
STEPS = ("The thing is red.", "  The thing is amber.", "Nobody knows.")


def test_a_step_lies_where_it_is_in_the_joined_text() -> None:
    text = STEP_BREAK.join(STEPS)
    spans = step_spans(STEPS)
    assert [text[span.start : span.end] for span in spans] == [step.strip() for step in STEPS]


def test_steps_are_the_segments_of_a_span_model(trained: tuple[Path, Path]) -> None:
    published = Store(trained[1]).resolve("factuality")
    backend = load_backend(published, "torch", threads=1)
    rows = Benchmark(steps=[StepsRow(ASKED, STEPS, (True, False, True)), StepsRow(ASKED, STEPS[:1], (True,))])
    found = score_benchmark(published, backend, rows, None)
    assert [len(row) for row in found.rows] == [3, 1]
    assert found.is_probability
    assert found.name == f"factuality@{published.version}"
    assert found.runtime == "torch-fp32"


def test_a_model_of_whole_responses_scores_beginnings(trained: tuple[Path, Path]) -> None:
    published = Store(trained[1]).resolve("preference")
    backend = load_backend(published, "torch", threads=1)
    found = score_benchmark(published, backend, Benchmark(steps=[StepsRow(ASKED, STEPS, (True,) * 3)]), None)
    texts = tuple(STEP_BREAK.join(STEPS[: count + 1]) for count in range(3))
    pairs = Benchmark(preferences=[PreferenceRow(ASKED, texts[:1], texts[1:])])
    assert not found.is_probability
    assert np.allclose(found.rows[0], score_benchmark(published, backend, pairs, None).rows[0], atol=1e-5)
    inputs = Inputs.of(published.manifest, published.load_tokenizer())
    encoded = [inputs.encode(TextItem("p", text, ASKED.fields)) for text in texts]
    alone = [
        score_all(backend, published.manifest.logit_heads, [one], inputs.encoder.pad_id)[0][0].sequence_score
        for one in encoded
    ]
    assert np.allclose(found.rows[0], alone, atol=1e-5)


def test_what_cannot_be_scored_is_told(trained: tuple[Path, Path]) -> None:
    published = Store(trained[1]).resolve("factuality")
    backend = load_backend(published, "torch", threads=1)
    bare = Asked("f: row 3", "p", {}, "all")
    rows = Benchmark(preferences=[PreferenceRow(bare, ("x",), ("y",))])
    with pytest.raises(ConfigError, match=r"f: row 3: .*'question'"):
        score_benchmark(published, backend, rows, None)
    with pytest.raises(ConfigError, match="no head 'x'"):
        score_benchmark(published, backend, rows, "x")
    empty = Benchmark(preferences=[PreferenceRow(ASKED, ("x",), ("",))])
    with pytest.raises(ConfigError, match="no score to 1 responses"):
        score_benchmark(published, backend, empty, None)
