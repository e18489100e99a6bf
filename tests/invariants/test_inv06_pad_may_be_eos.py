"""Invariant 6: with pad == eos exactly one eos is kept; empty, one-token and cut-off responses work."""

from contextlib import nullcontext

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from rl_client.rollout.generate import generate
from rl_client.rollout.stages import ScoredRollout
from rl_client.training.config import GenerationSettings, PpoSettings
from rl_client.training.experience import estimate, make_train_batch
from rl_client.training.optim import make_adamw
from rl_client.training.ppo_step import Trainee, accumulate_gradients, ppo_update
from rl_client.training.reference import make_reference

PPO = PpoSettings(steps=1, prompts_per_step=4, minibatch_size=8, learning_rate=1e-3)
EOS = 1


@pytest.fixture
def pad_is_eos(tokenizer):
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    )


def test_exactly_one_eos_is_kept(policy, pad_is_eos, prompts):
    settings = GenerationSettings(max_new_tokens=12, samples_per_prompt=40)
    rollout = generate(policy, pad_is_eos, prompts, settings, seed=0)
    ids, mask = rollout.tokens.response_ids, rollout.tokens.response_mask
    kept = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
    assert 0 < sum(rollout.finished) < len(kept)
    for tokens, finished in zip(kept, rollout.finished, strict=True):
        assert tokens.count(EOS) == finished
        assert (tokens[-1] == EOS) == finished
        assert finished or len(tokens) == 12
    assert {1, 12} <= {len(tokens) for tokens in kept}  # only eos, and cut off


def force(policy, ids_logits: dict[int, float]) -> None:
    """Make the policy draw these tokens with these logits whatever it reads."""
    bias = torch.full((policy.network.config.vocab_size,), -1e4)
    for token, logit in ids_logits.items():
        bias[token] = logit
    policy.network.lm_head.register_forward_hook(lambda module, inputs, output: output * 0.01 + bias)


@pytest.mark.parametrize(
    ("logits", "lengths", "texts"),
    [({EOS: 0.0}, {1}, {""}), ({4: 0.0}, {3}, {"bad bad bad"}), ({4: 0.0, EOS: 0.0}, {1, 2, 3}, None)],
    ids=["empty", "cut_off", "mixed"],
)
def test_a_whole_step_on_odd_responses(policy, value, pad_is_eos, prompts, logits, lengths, texts):
    force(policy, logits)
    rollout = generate(policy, pad_is_eos, prompts, GenerationSettings(max_new_tokens=3, samples_per_prompt=2), seed=1)
    assert set(rollout.tokens.response_mask.sum(1).tolist()) == lengths
    assert texts is None or set(rollout.texts) == texts
    found = estimate(policy, make_reference(policy), value, rollout.tokens, temperature=1.0, microbatch_size=3)
    rewards = 1.0 * rollout.tokens.response_mask
    scored = ScoredRollout(rollout, rewards, torch.zeros(8, dtype=torch.bool), {}, {})
    batch, _ = make_train_batch(scored, rollout.tokens, found, PPO)
    optimizers = (make_adamw(model, learning_rate=1e-3, weight_decay=0.0, eps=1e-5) for model in (policy, value))
    trainee = Trainee(policy, value, *optimizers)
    accumulate_gradients(trainee, batch, PPO, temperature=1.0, update_policy=True, precision=nullcontext())
    metrics = ppo_update(trainee, batch, PPO, temperature=1.0, seed=0)
    assert all(torch.isfinite(torch.tensor(figure)) for figure in metrics.values())
