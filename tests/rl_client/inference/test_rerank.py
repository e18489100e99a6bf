import pytest
import torch
from transformers import GenerationConfig

from rl_client.inference.rerank import make_rollout, tokens_of_segment
from rl_client.rollout.prompts import PromptRecord, tokenize_prompts
from rl_client.rollout.sampling import Steering
from tests.rl_client.tiny_models import EOS, PAD, make_policy, make_tokenizer

# "It is so. Or not. Yes" in tokens: It| is| so|.| Or| not|.| Yes
OFFSETS = [(0, 2), (2, 5), (5, 8), (8, 9), (9, 12), (12, 16), (16, 17), (17, 21)]
SPANS = [(0, 9), (10, 17), (18, 21)]


@pytest.mark.parametrize(("before", "tokens"), [(0, 4), (2, 4), (9, 7), (12, 7), (17, 8)])
def test_a_continuation_ends_where_its_first_new_segment_does(before, tokens):
    assert tokens_of_segment(OFFSETS, SPANS, before) == tokens


def test_the_last_segment_is_taken_whole_with_the_eos():
    assert tokens_of_segment([*OFFSETS[:4], (9, 9)], SPANS[:1], 0) == 5


def test_a_text_without_a_segment_is_taken_whole():
    assert tokens_of_segment([(0, 0)], [], 0) == 1


def test_candidates_are_a_rollout_of_one_prompt():
    tokenizer = make_tokenizer("llama")
    (prompt,) = tokenize_prompts(
        [PromptRecord(id="q", prompt="red blue")], tokenizer, max_prompt_tokens=9, cut_prompt=False
    )
    rollout = make_rollout(prompt, [(3, 4, EOS), (5,)], tokenizer)
    assert rollout.texts == ("good bad", "plain")
    assert rollout.finished == (True, False)
    assert rollout.tokens.response_mask.tolist() == [[True] * 3, [True, False, False]]
    assert rollout.offsets == (((0, 4), (4, 8), (8, 8)), ((0, 5),))


@pytest.mark.parametrize("family", ["t5", "bart", "llama", "gpt2"])
def test_what_is_sampled_after_a_beginning_is_what_would_have_come(family):
    """Greedy search from the start, and again from its own first tokens on."""
    policy = make_policy(family)
    prompts, mask = torch.tensor([[4, 5, 6], [7, 8, 9]]), torch.ones(2, 3, dtype=torch.bool)

    def sample(tokens: int, steering: Steering = Steering()) -> torch.Tensor:
        config = GenerationConfig(do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=PAD)
        return policy.sample(prompts, mask, config, steering)

    whole = sample(8)
    assert whole.shape == (2, 8)
    assert torch.equal(sample(5, Steering(written=whole[:, :3])), whole[:, 3:])
