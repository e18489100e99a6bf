import numpy as np

from reward_service.annotation.scored import ModelScore, Order, ScoredResponse, choose_tasks, urgency


def response(text: str, question: str = "q", **scores: ModelScore) -> ScoredResponse:
    fields = {"question": question, "context": "One is here. Two is there."}
    return ScoredResponse("prompt", fields, text, scores)


def test_the_least_sure_response_comes_first() -> None:
    responses = [
        response("sure", r=ModelScore(0.9, (0.9, 1.0))),
        response("unsure", r=ModelScore(0.5, (0.4, 0.6))),
        response("surely wrong", r=ModelScore(0.1, (0.1,)), s=ModelScore(7.0)),
        response("nobody was asked"),
    ]
    # Mean |2p - 1|: .9, .2, .8, and 1 where no classifier was asked.
    assert np.allclose(urgency(responses, Order.CONFIDENCE), [-0.9, -0.2, -0.8, -1.0])
    (task,) = choose_tasks(responses, Order.CONFIDENCE).tasks
    assert task.responses == ("unsure", "surely wrong", "sure", "nobody was asked")


def test_models_disagree_by_rank() -> None:
    values = {"a": (1.0, -5.0), "b": (2.0, 99.0), "c": (3.0, 0.0)}
    responses = [response(name, x=ModelScore(x), y=ModelScore(y)) for name, (x, y) in values.items()]
    # Ranks of three: 1/6, 3/6, 5/6. x: a b c; y: a c b.
    assert np.allclose(urgency(responses, Order.DISAGREEMENT), [0, 1 / 3, 1 / 3])
    # As high as b for x, and none for y: x ranks 1/8, 4/8, 7/8 and 4/8 for the two that are equal.
    alone = response("alone", x=ModelScore(2.0))
    assert np.allclose(urgency([*responses, alone], Order.DISAGREEMENT), [1 / 24, 8 / 24, 9 / 24, 0])
    assert choose_tasks([*responses, alone], Order.DISAGREEMENT).tasks[0].responses == ("c", "b", "a", "alone")
    assert urgency([response("no score")], Order.DISAGREEMENT).tolist() == [0.0]


def test_a_task_takes_its_question_and_passages_from_the_fields() -> None:
    (task,) = choose_tasks([response("r")], Order.GIVEN).tasks
    assert task.question == "q"
    assert task.passages == (("", "One is here.", "Two is there."),)
    (bare,) = choose_tasks([ScoredResponse("the prompt", {}, "r")], Order.GIVEN).tasks
    assert (bare.question, bare.passages) == ("the prompt", ())


def test_responses_to_one_question_are_one_task_of_at_most_four() -> None:
    texts = ["a", "b", "a", " ", "c", "d", "e"]
    chosen = choose_tasks([response(text) for text in texts] + [response("z", "other")], Order.GIVEN)
    assert [task.responses for task in chosen.tasks] == [("a", "b", "c", "d"), ("z",)]
    assert chosen.left_out == 2, "the blank one and the fifth; a repeated one is there already"
    assert len(choose_tasks([response("a"), response("z", "other")], Order.GIVEN, limit=1).tasks) == 1
