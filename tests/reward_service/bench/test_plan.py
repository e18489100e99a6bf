import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_service.bench.plan import parse_jobs, share_out
from reward_service.errors import ConfigError


def test_weights_are_read_in_order() -> None:
    assert list(parse_jobs("b=2, a=0.5,c").items()) == [("b", 2.0), ("a", 0.5), ("c", 1.0)]


@pytest.mark.parametrize(
    "text", ["", "a=2,,b", "=1", "a=0", "a=-1", "a=x", "a=nan", "a=inf", "a=1,a=2", "käse", "a\nb=1"]
)
def test_what_is_no_weight_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_jobs(text)


@pytest.mark.parametrize(
    ("weights", "clients", "expected"),
    [
        ({"a": 2, "b": 1}, 9, {"a": 6, "b": 3}),
        ({"a": 1, "b": 1, "c": 1}, 8, {"a": 3, "b": 3, "c": 2}),
        ({"a": 1, "b": 2, "c": 4}, 14, {"a": 2, "b": 4, "c": 8}),
        ({"a": 1000, "b": 1}, 4, {"a": 3, "b": 1}),
        ({"": 1}, 5, {"": 5}),
        ({"a": 7, "b": 1}, 2, {"a": 1, "b": 1}),
    ],
)
def test_clients_are_shared_out(weights: dict[str, float], clients: int, expected: dict[str, int]) -> None:
    assert share_out(weights, clients) == expected


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), st.integers(0, 40))
def test_every_client_has_a_job_and_every_job_a_client(weights: list[float], spare: int) -> None:
    jobs = {str(place): weight for place, weight in enumerate(weights)}
    shares = share_out(jobs, len(jobs) + spare)
    assert sum(shares.values()) == len(jobs) + spare
    assert min(shares.values()) >= 1


def test_a_job_without_a_client_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 clients are too few for 3 jobs"):
        share_out({"a": 1, "b": 1, "c": 1}, 2)
