import pytest

from reward_proto import Granularity, ModelScore, ScoreError, SegmentScore
from reward_proto.errors import ErrorCode
from rl_client.offline.answers import Piece, choose_answers, cut_text
from rl_client.offline.figures import make_figures
from rl_client.offline.systems import PromptResponses, Response, System


def score(model, value, *segments, label=None, error=None):
    return ModelScore(
        model=model,
        version="v",
        runtime="r",
        granularity=Granularity.SENTENCE,
        segments=None if error else [SegmentScore(start=s, end=e, score=x, label=label) for s, e, x in segments],
        sequence_score=value,
        error=error,
    )


def system(name, *rows, samples=1):
    prompts = {
        f"q{n}": PromptResponses(
            f"q{n}", "p", {}, tuple(Response(f"{name}{n}", scores, None) for _ in range(samples)), (), {}
        )
        for n, scores in enumerate(rows)
    }
    models = {model: ("v", "r") for scores in rows for model in scores}
    return System(name, prompts, models)


def choose(*systems, limit=9):
    return choose_answers(systems, [make_figures(one) for one in systems], limit=limit)


def test_a_text_is_cut_into_its_segments_and_what_is_between():
    cut = cut_text("👍 a. b", score("g", 0.5, (2, 4, 0.0), (5, 6, 0.75), label="ok"), (0.0, 1.0))
    assert cut == [Piece("👍 "), Piece("a.", 0, "0, ok"), Piece(" "), Piece("b", 8, "0.75, ok")]
    assert cut_text("", score("g", None), (0.0, 1.0)) == []
    assert cut_text("ab", score("g", 5.0, (0, 2, 5.0)), (5.0, 5.0)) == [Piece("ab", 5, "5")]


def test_the_largest_differences_of_each_model_come_first():
    a = system("a", *({"x": score("x", float(n)), "y": score("y", 0.0)} for n in range(4)))
    b = system("b", *({"x": score("x", 0.0), "y": score("y", float(3 - n))} for n in range(4)))
    shown = choose(a, b, limit=2)
    # q3 differs most in x, q0 most in y.
    assert [one.prompt.id for one in shown] == ["q3", "q0"]
    assert (shown[0].spread, shown[0].lead) == ({"x": 3.0, "y": 0.0}, {"x": 3.0, "y": 0.0})
    assert shown[1].lead == {"x": 0.0, "y": -3.0}
    assert [one.prompt.id for one in choose(a, b)] == ["q3", "q2", "q1", "q0"]


def test_of_one_system_the_lowest_scores_come_first():
    shown = choose(system("a", *({"x": score("x", value)} for value in (0.5, 0.1, 0.9))))
    assert [one.prompt.id for one in shown] == ["q1", "q0", "q2"]


def test_without_scores_the_first_prompts_are_shown():
    shown = choose(system("a", {}, {}, {}), limit=2)
    assert [one.prompt.id for one in shown] == ["q0", "q1"]
    (responses, more) = shown[0].cells["a"]
    assert (list(responses[0].pieces.values()), more) == ([[Piece("a0")]], 0)


def test_more_samples_than_are_shown_are_counted():
    ((responses, more),) = choose(system("a", {"x": score("x", 1.0)}, samples=6))[0].cells.values()
    assert (len(responses), more) == (4, 2)


def test_what_has_no_score_says_so():
    error = ScoreError(code=ErrorCode.TOO_LONG, message="m", retryable=False)
    rows = {"x": score("x", None, error=error)}, {"x": score("x", None)}, {"x": score("x", 0.25)}
    notes = {one.prompt.id: one.cells["a"][0][0].notes["x"] for one in choose(system("a", *rows))}
    assert notes == {"q0": "no score: too_long", "q1": "no segment", "q2": "0.25"}


@pytest.mark.parametrize(("label", "level"), [("ok", 3), (None, 10)])
def test_a_classifiers_colours_are_those_of_0_to_1_and_a_regressors_of_its_range(label, level):
    rows = [{"x": score("x", value, (0, 2, value), label=label)} for value in (0.1, 0.3)]
    pieces = [one.cells["a"][0][0].pieces["x"][0].level for one in choose(system("a", *rows))]
    assert pieces[1] == level
