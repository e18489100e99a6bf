import threading
from concurrent.futures import CancelledError

import pytest
import torch

from rl_client.algorithms.logprobs import gather_logprobs
from rl_client.rollout.generate import Delivery, divide_prompts, generate
from rl_client.training.config import GenerationSettings

SAMPLING = GenerationSettings(max_new_tokens=8, samples_per_prompt=3)


def test_samples_of_one_prompt_stand_together(policy, tokenizer, prompts):
    rollout = generate(policy, tokenizer, prompts, SAMPLING, seed=0)
    assert rollout.tokens.prompt_index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [rollout.prompt_of(row).id for row in (0, 2, 3, 11)] == ["p0", "p0", "p1", "p3"]
    assert len(rollout.texts) == len(rollout.offsets) == len(rollout.finished) == 12


def test_the_seed_alone_decides(policy, tokenizer, prompts):
    torch.manual_seed(5)
    first = generate(policy, tokenizer, prompts, SAMPLING, seed=1)
    state = torch.get_rng_state()
    torch.manual_seed(6)
    again = generate(policy, tokenizer, prompts, SAMPLING, seed=1)
    other = generate(policy, tokenizer, prompts, SAMPLING, seed=2)
    assert torch.equal(first.tokens.response_ids, again.tokens.response_ids)
    assert not torch.equal(first.tokens.response_ids, other.tokens.response_ids)
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)  # sampling left the global generator as it was


def test_texts_and_offsets_are_those_of_the_sampled_ids(policy, tokenizer, prompts):
    rollout = generate(policy, tokenizer, prompts, SAMPLING, seed=3)
    lengths = rollout.tokens.response_mask.sum(dim=1).tolist()
    for row, length in enumerate(lengths):
        ids = rollout.tokens.response_ids[row, :length]
        assert rollout.texts[row] == tokenizer.decode(ids, skip_special_tokens=True)
        assert len(rollout.offsets[row]) == length
        assert rollout.finished[row] == (int(ids[-1]) == tokenizer.eos_token_id)
        assert (rollout.tokens.response_ids[row, length:] == tokenizer.pad_token_id).all()


def test_greedy_takes_the_likeliest_token_each_time(policy, tokenizer, prompts):
    rollout = generate(policy, tokenizer, prompts, GenerationSettings(greedy=True, max_new_tokens=6), seed=0)
    likeliest = policy(rollout.tokens).argmax(dim=-1)
    mask = rollout.tokens.response_mask
    assert torch.equal(likeliest[mask], rollout.tokens.response_ids[mask])


def test_top_k_one_is_greedy(policy, tokenizer, prompts):
    greedy = generate(policy, tokenizer, prompts, GenerationSettings(greedy=True, max_new_tokens=6), seed=0)
    top_one = generate(policy, tokenizer, prompts, GenerationSettings(top_k=1, max_new_tokens=6), seed=9)
    assert torch.equal(greedy.tokens.response_ids, top_one.tokens.response_ids)


def test_sampling_is_at_the_temperature(policy, tokenizer, prompts):
    """First-token frequencies against the softmax."""
    settings = GenerationSettings(max_new_tokens=1, samples_per_prompt=4000, temperature=0.5)
    with torch.no_grad():  # a sharper policy, so that the temperature matters
        policy.network.shared.weight.mul_(1.5)
    rollout = generate(policy, tokenizer, prompts[:1], settings, seed=0)
    logits = policy(rollout.tokens.select(torch.tensor([0])))
    expected = torch.softmax(logits[0, 0] / 0.5, dim=-1)
    counts = torch.bincount(rollout.tokens.response_ids[:, 0], minlength=len(expected)) / 4000
    torch.testing.assert_close(counts, expected, atol=0.03, rtol=0)
    at_one = torch.softmax(logits[0, 0], dim=-1)
    assert (counts - at_one).abs().max() > 0.06


def test_top_k_restricts_what_is_sampled(policy, tokenizer, prompts):
    settings = GenerationSettings(max_new_tokens=1, samples_per_prompt=200, top_k=2)
    rollout = generate(policy, tokenizer, prompts[:1], settings, seed=0)
    likeliest = policy(rollout.tokens.select(torch.tensor([0])))[0, 0].topk(2).indices
    assert set(rollout.tokens.response_ids[:, 0].tolist()) == set(likeliest.tolist())


def test_the_policys_own_generation_defaults_do_not_creep_in(policy, tokenizer, prompts):
    plain = generate(policy, tokenizer, prompts, SAMPLING, seed=1)
    policy.network.config.repetition_penalty = 5.0
    policy.network.generation_config.num_beams = 1
    assert torch.equal(
        generate(policy, tokenizer, prompts, SAMPLING, seed=1).tokens.response_ids, plain.tokens.response_ids
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_greedy_logprobs_do_not_depend_on_neighbours(policy, tokenizer, prompts, temperature):
    settings = GenerationSettings(greedy=True, max_new_tokens=6)
    together = generate(policy, tokenizer, prompts, settings, seed=0)
    alone = generate(policy, tokenizer, prompts[2:3], settings, seed=0)
    length = int(alone.tokens.response_mask.sum())
    assert torch.equal(together.tokens.response_ids[2, :length], alone.tokens.response_ids[0, :length])
    a = gather_logprobs(policy(together.tokens), together.tokens.response_ids, temperature=temperature)
    b = gather_logprobs(policy(alone.tokens), alone.tokens.response_ids, temperature=temperature)
    torch.testing.assert_close(a[2, :length], b[0, :length], atol=1e-5, rtol=1e-5)


def test_responses_are_delivered_as_they_end(policy, tokenizer, prompts):
    parts = []
    rollout = generate(policy, tokenizer, prompts, SAMPLING, seed=0, delivery=Delivery(parts.append, share=0.25))
    assert len(parts) > 1
    assert sorted(row for part in parts for row in part.rows) == list(range(12))
    assert rollout.rows == tuple(range(12))
    lengths = rollout.tokens.response_mask.sum(dim=1)
    longest = [max(int(lengths[row]) for row in part.rows) for part in parts]
    assert longest == sorted(longest)
    for part in parts:
        for index, row in enumerate(part.rows):
            assert part.texts[index] == rollout.texts[row]
            assert part.offsets[index] == rollout.offsets[row]
            assert part.finished[index] == rollout.finished[row]
            assert part.prompt_of(index) == rollout.prompt_of(row)
            length = int(lengths[row])
            assert torch.equal(part.tokens.response_ids[index, :length], rollout.tokens.response_ids[row, :length])
            assert int(part.tokens.response_mask[index].sum()) == length


def test_delivery_changes_no_response(policy, tokenizer, prompts):
    plain = generate(policy, tokenizer, prompts, SAMPLING, seed=3)
    watched = generate(policy, tokenizer, prompts, SAMPLING, seed=3, delivery=Delivery(lambda _: None, share=0.1))
    assert watched.texts == plain.texts


def test_batches_hold_prompts_of_like_length_within_the_budget(prompts):
    """Prompts of 4, 2, 6 and 7 tokens, 3 samples of at most 8 tokens: 36, 30, 42 and 45 tokens."""
    assert divide_prompts(prompts, SAMPLING) == [[0, 1, 2, 3]]

    def divide(tokens: int) -> list[list[int]]:
        return divide_prompts(prompts, SAMPLING.model_copy(update={"batch_tokens": tokens}))

    assert divide(180) == [[1, 0, 2, 3]]
    assert divide(90) == [[1, 0], [2, 3]]
    assert divide(89) == [[1, 0], [2], [3]]
    assert divide(1) == [[1], [0], [2], [3]]


def test_responses_of_all_batches_stand_in_the_order_of_the_prompts(policy, tokenizer, prompts):
    settings = GenerationSettings(max_new_tokens=6, samples_per_prompt=2, top_k=1, batch_tokens=1)
    parts = []
    rollout = generate(policy, tokenizer, prompts, settings, seed=0, delivery=Delivery(parts.append))
    together = generate(policy, tokenizer, prompts, settings.model_copy(update={"batch_tokens": None}), seed=0)
    assert rollout.texts == together.texts
    assert torch.equal(rollout.tokens.prompt_index, together.tokens.prompt_index)
    assert [part.rows for part in parts] == [(2, 3), (0, 1), (4, 5), (6, 7)]


def test_batches_draw_from_chance_of_their_own(policy, tokenizer, prompts):
    settings = GenerationSettings(max_new_tokens=8, samples_per_prompt=4, batch_tokens=1)
    rollout = generate(policy, tokenizer, [prompts[0], prompts[0]], settings, seed=0)
    assert rollout.texts[:4] != rollout.texts[4:]


def test_sampling_draws_nothing_from_the_global_generator(policy, tokenizer, prompts):
    """Two threads that sample at a time do not change each other's responses."""
    alone = [generate(policy, tokenizer, prompts, SAMPLING, seed=seed).texts for seed in range(4)]
    state = torch.get_rng_state()
    found = {}
    threads = [
        threading.Thread(target=lambda s=s: found.update({s: generate(policy, tokenizer, prompts, SAMPLING, seed=s)}))
        for s in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed].texts for seed in range(4)] == alone
    assert torch.equal(torch.get_rng_state(), state)


def test_sampling_can_be_given_up(policy, tokenizer, prompts):
    answers = iter([False, False, True])
    with pytest.raises(CancelledError):
        generate(policy, tokenizer, prompts, SAMPLING, seed=0, delivery=Delivery(should_stop=lambda: next(answers)))
    assert next(answers, None) is None
