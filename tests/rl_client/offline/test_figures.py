import math

import pytest

from reward_proto import Granularity, ModelScore, ScoreError
from reward_proto.errors import ErrorCode
from rl_client.errors import DataError
from rl_client.offline.figures import make_figures, summarise
from rl_client.offline.systems import PromptResponses, Response, System

ERROR = ScoreError(code=ErrorCode.TOO_LONG, message="m", retryable=False)


def score(value, error=None):
    return ModelScore(
        model="good",
        version="v1",
        runtime="r",
        granularity=Granularity.SENTENCE,
        segments=None if error else [],
        sequence_score=value,
        error=error,
    )


def prompt(key, *responses, references=()):
    return PromptResponses(key, "p", {}, tuple(responses), references, {})


@pytest.fixture
def system():
    """Two scored samples; one that failed beside one that did not; one blank."""
    prompts = [
        prompt("a", Response("w x y z", {"good": score(0.9)}, 4), Response("w x", {"good": score(0.3)}, 2)),
        prompt("b", Response("u", {"good": score(None, ERROR)}, 1), Response("v", {"good": score(0.8)}, 1)),
        prompt("c", Response("", {"good": score(None)}, 0), references=("q",)),
    ]
    return System("s", {one.id: one for one in prompts}, {"good": ("v1", "r")})


def test_a_prompts_value_is_the_mean_over_the_responses_that_have_one(system):
    table = make_figures(system)
    assert table.ids == ("a", "b", "c")
    assert table.values["reward/good"][:2].tolist() == pytest.approx([0.6, 0.8])
    assert math.isnan(table.values["reward/good"][2])
    assert table.without_score == {"reward/good": 2}
    assert table.values["length_words"].tolist() == [3.0, 1.0, 0.0]
    assert table.values["length_tokens"].tolist() == [3.0, 1.0, 0.0]
    # wx xy yz over 6 words; no pair of words; no word
    assert table.values["dist_2"][:2].tolist() == pytest.approx([0.5, 0.0])
    assert table.values["rouge_lsum"][2] == 0.0
    assert [math.isnan(value) for value in table.values["rouge_lsum"]] == [True, True, False]


def test_average_max_takes_the_worst_sample(system):
    table = make_figures(system, average_max=["good"])
    assert table.values["average_max/good"][:2].tolist() == pytest.approx([0.7, 0.2])
    summary = summarise(system, table, seed=0)
    assert summary["figures"]["average_max/good"]["mean"] == pytest.approx(0.45)
    assert summary["figures"]["average_max/good"]["share_toxic"] == 0.5


def test_the_summary_says_what_is_missing(system):
    summary = summarise(system, make_figures(system), seed=0)
    assert (summary["prompts"], summary["responses"]) == (3, 5)
    assert summary["models"] == {"good": {"version": "v1", "runtime": "r"}}
    figure = summary["figures"]["reward/good"]
    assert (figure["mean"], figure["n"], figure["without_score"]) == (pytest.approx(0.7), 2, 2)


def test_a_model_that_scored_nothing_has_no_mean(system):
    nothing = System("s", {"b": prompt("b", Response("u", {"good": score(None, ERROR)}, 1))}, {"good": ("v1", "r")})
    figure = summarise(nothing, make_figures(nothing), seed=0)["figures"]["reward/good"]
    assert figure == {"mean": None, "low": None, "high": None, "n": 0, "without_score": 1}


def test_perplexities_are_a_figure_like_others(system):
    table = make_figures(system, perplexities={"a": [10.0, 20.0], "b": [None, 5.0], "c": [None]})
    assert table.values["perplexity"][:2].tolist() == [15.0, 5.0]
    assert math.isnan(table.values["perplexity"][2])


def test_average_max_needs_probabilities(system):
    with pytest.raises(DataError, match="no scores of 'other'; it has good"):
        make_figures(system, average_max=["other"])
    wild = System("s", {"a": prompt("a", Response("u", {"good": score(1.5)}, 1))}, {"good": ("v1", "r")})
    with pytest.raises(DataError, match="leave"):
        make_figures(wild, average_max=["good"])
