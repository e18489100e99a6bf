"""Invariant 4: log-probabilities while generating equal teacher-forced ones at the same temperature.

top_k restricts what is sampled and is no part of the policy, so the logits of generation are compared before top_k.
"""

import pytest
import torch
from transformers import GenerationConfig

from rl_client.algorithms.logprobs import gather_logprobs
from rl_client.rollout.prompts import pad_prompts
from rl_client.rollout.responses import mask_after_eos
from rl_client.rollout.stages import TokenBatch


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("top_k", [0, 3])
def test_cached_decoding_and_one_forward_agree(policy, tokenizer, prompts, temperature, top_k):
    prompt_ids, prompt_mask = pad_prompts(prompts, tokenizer.pad_token_id)
    torch.manual_seed(0)
    made = []  # what the vocabulary head says at each step, before temperature and top_k
    head = policy.network.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, inputs, logits: made.append(logits[:, -1]))
    config = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=top_k,
        top_p=1.0,
        max_new_tokens=8,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    ids = policy.sample(prompt_ids, prompt_mask, config)
    hook.remove()
    mask, _ = mask_after_eos(ids, tokenizer.eos_token_id)
    assert len(made) == ids.shape[1]
    distributions = torch.log_softmax(torch.stack(made, dim=1) / temperature, dim=-1)
    while_generating = distributions.gather(-1, ids[..., None])[..., 0]
    tokens = TokenBatch(prompt_ids, prompt_mask, torch.arange(len(prompts)), ids, mask)
    for teacher_forced in (
        gather_logprobs(policy(tokens), ids, temperature=temperature),
        policy.logprobs(policy.states(tokens), tokens, temperature=temperature),
    ):
        torch.testing.assert_close(while_generating[mask], teacher_forced[mask], atol=1e-5, rtol=1e-5)
