import torch

from rl_client.rollout.responses import ResponseRows, mask_after_eos


def test_the_mask_ends_at_the_first_eos_and_holds_it():
    ids = torch.tensor([[5, 6, 1, 0], [1, 1, 1, 1], [5, 5, 5, 5], [0, 5, 5, 1]])
    mask, finished = mask_after_eos(ids, eos_id=1)
    assert mask.tolist() == [
        [True, True, True, False],
        [True, False, False, False],
        [True, True, True, True],
        [True, True, True, True],
    ]
    assert finished.tolist() == [True, True, False, True]


def test_parts_in_any_order_make_the_whole(tokenizer, prompts):
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    responses = ResponseRows(prompts[:2], tokenizer, samples_per_prompt=2)
    part = responses.add([3, 0], torch.tensor([[5, eos, pad], [6, 7, eos]]))
    assert part.rows == (3, 0)
    assert [part.prompt_of(row).id for row in (0, 1)] == ["p1", "p0"]
    last = responses.add([2, 1], torch.tensor([[5, 6, 7, 8], [eos, eos, 5, 5]]))
    assert last.finished == (False, True)
    whole = responses.whole()
    assert whole.rows == (0, 1, 2, 3)
    assert whole.part_of is None
    assert whole.tokens.prompt_index.tolist() == [0, 0, 1, 1]
    lengths = whole.tokens.response_mask.sum(dim=1).tolist()
    rows = [ids[:length] for ids, length in zip(whole.tokens.response_ids.tolist(), lengths, strict=True)]
    assert rows == [[6, 7, eos], [eos], [5, 6, 7, 8], [5, eos]]
    assert whole.texts == (part.texts[1], "", last.texts[0], part.texts[0])


def test_a_part_holds_only_its_own_prompts(tokenizer, prompts):
    responses = ResponseRows(prompts, tokenizer, samples_per_prompt=1)
    part = responses.add([1], torch.tensor([[5, tokenizer.eos_token_id]]))
    assert part.prompts == (prompts[1],)
    assert part.tokens.prompt_index.tolist() == [0]
