import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_client.rollout.stages import TokenBatch
from rl_client.training.microbatches import Limits, divide


def batch_of(prompt_tokens: list[int], responses: list[tuple[int, int]]) -> TokenBatch:
    """Prompts of these lengths, and of each response its prompt and length."""

    def mask(lengths: list[int]) -> torch.Tensor:
        return torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]

    prompt_mask, response_mask = mask(prompt_tokens), mask([length for _, length in responses])
    index = torch.tensor([prompt for prompt, _ in responses])
    return TokenBatch(prompt_mask.long(), prompt_mask, index, response_mask.long(), response_mask)


def cost(batch: TokenBatch, rows: torch.Tensor, share_prompts: bool = True) -> int:
    """Counted on the tensors that a model would be given."""
    part = batch.select(rows)
    prompts = part.prompt_ids if share_prompts else part.prompt_ids[part.prompt_index]
    return prompts.numel() + part.response_ids.numel()


def test_short_prompts_go_by_length_of_response():
    batch = batch_of([1, 1], [(0, 9), (1, 2), (0, 2), (1, 9)])
    assert [rows.tolist() for rows in divide(batch, Limits(responses=2))] == [[2, 1], [0, 3]]


def test_long_prompts_stay_with_their_responses():
    batch = batch_of([90, 50], [(0, 9), (1, 2), (0, 2), (1, 9)])
    assert [rows.tolist() for rows in divide(batch, Limits(responses=2))] == [[1, 3], [2, 0]]


def test_a_prompt_is_not_divided_where_the_next_microbatch_holds_it_whole():
    batch = batch_of([50, 60], [(0, 5)] * 3 + [(1, 5)] * 3)
    assert [rows.tolist() for rows in divide(batch, Limits(responses=4))] == [[0, 1, 2], [3, 4, 5]]


def test_a_prompt_of_too_many_responses_is_divided():
    batch = batch_of([50], [(0, 5)] * 5)
    assert [rows.tolist() for rows in divide(batch, Limits(tokens=60))] == [[0, 1], [2, 3], [4]]


def test_a_prompt_counts_once_or_with_each_response():
    batch = batch_of([10], [(0, 5)] * 4)
    assert len(divide(batch, Limits(tokens=30))) == 1
    assert [len(rows) for rows in divide(batch, Limits(tokens=30, share_prompts=False))] == [2, 2]


def test_a_response_over_the_budget_goes_alone():
    batch = batch_of([10, 3], [(0, 5), (1, 2), (1, 2)])
    assert [rows.tolist() for rows in divide(batch, Limits(tokens=8))] == [[1, 2], [0]]


def test_without_limits_everything_goes_together():
    batch = batch_of([3, 4], [(0, 5), (1, 2), (0, 1)])
    (rows,) = divide(batch, Limits())
    assert sorted(rows.tolist()) == [0, 1, 2]


@given(
    prompt_tokens=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    responses=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 20)), min_size=1, max_size=24),
    most=st.none() | st.integers(1, 9),
    tokens=st.none() | st.integers(1, 200),
    share_prompts=st.booleans(),
)
def test_every_row_once_and_within_the_limits(prompt_tokens, responses, most, tokens, share_prompts):
    batch = batch_of(prompt_tokens, [(prompt % len(prompt_tokens), length) for prompt, length in responses])
    parts = divide(batch, Limits(most, tokens, share_prompts))
    assert sorted(torch.cat(parts).tolist()) == list(range(len(responses)))
    for rows in parts:
        assert most is None or len(rows) <= most
        assert tokens is None or len(rows) == 1 or cost(batch, rows, share_prompts) <= tokens


@pytest.mark.parametrize("tokens", [40, 90, 200])
def test_fewer_tokens_are_computed_than_in_the_order_of_arrival(tokens):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 20, (32,), generator=generator).tolist()
    batch = batch_of([17, 30, 5, 12, 9, 28, 3, 21], [(row % 8, length) for row, length in enumerate(lengths)])
    parts = divide(batch, Limits(tokens=tokens))
    size = max(len(rows) for rows in parts)
    arrival = torch.arange(32).split(size)
    assert sum(cost(batch, rows) for rows in parts) < sum(cost(batch, rows) for rows in arrival)
