from io import StringIO

from rich.console import Console

from reward_service.bench.display import tables_of
from reward_service.bench.figures import figures_of
from reward_service.bench.load import Answer


def show(answers: list[Answer], clients: dict[str, int]) -> str:
    text = StringIO()
    Console(width=120, file=text).print(tables_of(figures_of(answers, clients, 2.0)))
    return text.getvalue()


def test_all_that_was_measured_is_shown() -> None:
    text = show(
        [Answer("a", 0.125, items=4, scores=4, input_tokens=3000, padded_tokens=4000), Answer("b", 0.1, "overloaded")],
        {"a": 3, "b": 1},
    )
    for word in (
        "1 of 2 requests in 2.0 s",
        "1,500",
        "2,000",
        "75.0%",
        "25.0%",
        "p99",
        "125.0",
        "overloaded",
        "100.0%",
    ):
        assert word in text


def test_a_run_without_jobs_or_errors_has_one_table() -> None:
    text = show([Answer("", 0.1, items=1, scores=1)], {"": 1})
    assert "Jobs" not in text
    assert "Errors" not in text
    assert " - " in text, "no token was counted, so no fill is told"


def test_a_load_that_the_cache_answers_says_how_to_reach_the_models() -> None:
    assert "--unique" in show([Answer("", 0.1, items=2, scores=2, cached=1)], {"": 1})
    assert "--unique" not in show([Answer("", 0.1, items=2, scores=2)], {"": 1})
