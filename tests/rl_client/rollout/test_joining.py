import pytest
import torch

from rl_client.rollout.generate import generate
from rl_client.rollout.joining import Share, join_rollouts, join_rows
from rl_client.training.config import GenerationSettings


def test_shares_are_neighbours_and_cover_all():
    assert [Share.of(5, rank, 2) for rank in (0, 1)] == [Share(0, 2, 5), Share(2, 3, 5)]
    assert [Share.of(4, rank, 4).first for rank in range(4)] == [0, 1, 2, 3]
    assert Share.of(3, 0, 1) == Share(0, 3, 3)


def test_rows_of_different_widths():
    joined = join_rows([torch.tensor([[1, 2]]), torch.tensor([[3], [4]])])
    assert joined.tolist() == [[1, 2], [3, 0], [4, 0]]
    masks = join_rows([torch.tensor([[True]]), torch.tensor([[True, True]])])
    assert masks.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("settings", [GenerationSettings(max_new_tokens=6, samples_per_prompt=2, temperature=0.8)])
def test_parts_sampled_apart_are_the_whole(policy, tokenizer, prompts, settings):
    whole = generate(policy, tokenizer, prompts, settings, seed=3)
    shares = [Share.of(len(prompts), rank, 3) for rank in range(3)]
    parts = [
        generate(policy, tokenizer, prompts[s.first : s.first + s.count], settings, seed=3, share=s) for s in shares
    ]
    joined = join_rollouts(parts)
    assert joined.texts == whole.texts
    assert (joined.prompts, joined.finished, joined.offsets) == (whole.prompts, whole.finished, whole.offsets)
    tokens, expected = joined.tokens, whole.tokens
    assert torch.equal(tokens.prompt_index, expected.prompt_index)
    assert torch.equal(tokens.response_mask, expected.response_mask)
    assert torch.equal(tokens.prompt_mask, expected.prompt_mask)
    for ids, others, mask in (
        (tokens.response_ids, expected.response_ids, expected.response_mask),
        (tokens.prompt_ids, expected.prompt_ids, expected.prompt_mask),
    ):
        assert torch.equal(ids[mask], others[mask])


def test_parts_with_a_token_budget_draw_apart(policy, tokenizer, prompts):
    settings = GenerationSettings(max_new_tokens=6, samples_per_prompt=2, batch_tokens=40)
    shares = [Share.of(2, rank, 2) for rank in (0, 1)]
    same_prompt = [generate(policy, tokenizer, prompts[:1], settings, seed=3, share=share).texts for share in shares]
    assert same_prompt[0] != same_prompt[1]


def test_one_part_is_itself(policy, tokenizer, prompts):
    rollout = generate(policy, tokenizer, prompts, GenerationSettings(max_new_tokens=2), seed=0)
    assert join_rollouts([rollout]) is rollout
