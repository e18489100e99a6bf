import json

import pytest
import torch

from rl_client.errors import DataError
from rl_client.rollout.prompts import (
    PromptRecord,
    PromptSampler,
    epoch_order,
    pad_prompts,
    pad_rows,
    read_records,
    tokenize_prompts,
)


def records(*texts: str) -> list[PromptRecord]:
    return [PromptRecord(id=f"r{i}", prompt=text) for i, text in enumerate(texts)]


def test_records_come_in_order_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "prompt": "x"}\n\n{"id": "b", "prompt": "", "fields": {"question": "é"}}\n')
    found = read_records(path, PromptRecord)
    assert [(record.id, record.prompt, record.fields) for record in found] == [
        ("a", "x", {}),
        ("b", "", {"question": "é"}),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": "a", "prompt": "x"}', "{nonsense"], "line 2"),
        (['{"prompt": "x"}'], "line 1: id"),
        (['{"id": "a"}'], "line 1: prompt"),
        (['{"id": "a", "prompt": "x", "fields": {"n": 3}}'], r"line 1: fields\.n"),
        (['{"id": "a", "prompt": "x"}', '{"id": "a", "prompt": "y"}'], 'line 2: the id "a" occurs twice'),
        ([], "no records"),
    ],
)
def test_a_bad_line_is_named(tmp_path, lines, message):
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        read_records(path, PromptRecord)


def test_a_prompt_over_the_limit_is_an_error(tokenizer):
    with pytest.raises(DataError, match="prompt r1 has 4 tokens, over max_prompt_tokens 3"):
        tokenize_prompts(records("red good", "red good bad"), tokenizer, max_prompt_tokens=3, cut_prompt=False)


def test_an_allowed_cut_keeps_the_beginning_and_the_eos_and_is_counted(tokenizer):
    short, long = tokenize_prompts(
        records("red good", "red good bad one"), tokenizer, max_prompt_tokens=3, cut_prompt=True
    )
    ids = tokenizer.convert_tokens_to_ids(["▁red", "▁good", "</s>"])
    assert (short.input_ids, short.cut_tokens) == (tuple(ids), 0)
    assert (long.input_ids, long.cut_tokens) == (tuple(ids), 2)


def test_padding_stands_to_the_right():
    ids, mask = pad_rows([(5, 6, 7), (8,)], 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]


def test_a_pad_id_inside_a_prompt_stays_a_real_token(tokenizer):
    prompt = tokenize_prompts(records("red"), tokenizer, max_prompt_tokens=8, cut_prompt=False)[0]
    _, mask = pad_prompts([prompt], pad_id=prompt.input_ids[0])
    assert mask.all()


def test_each_epoch_takes_every_prompt_once_in_an_order_of_its_own(tokenizer):
    prompts = tokenize_prompts(records(*["red"] * 7), tokenizer, max_prompt_tokens=8, cut_prompt=False)
    sampler = PromptSampler(prompts, prompts_per_step=3, seed=0)
    ids = [prompt.id for step in range(1, 8) for prompt in sampler.take(step)]
    epochs = [ids[i : i + 7] for i in range(0, 21, 7)]
    assert all(sorted(epoch) == [f"r{i}" for i in range(7)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_what_a_step_takes_depends_on_seed_and_step_alone(tokenizer):
    prompts = tokenize_prompts(records(*["red"] * 5), tokenizer, max_prompt_tokens=8, cut_prompt=False)
    unbroken = PromptSampler(prompts, prompts_per_step=2, seed=0)
    taken = [unbroken.take(step) for step in range(1, 9)]
    assert PromptSampler(prompts, prompts_per_step=2, seed=0).take(6) == taken[5]
    assert [PromptSampler(prompts, prompts_per_step=2, seed=1).take(step) for step in range(1, 9)] != taken


def test_a_step_may_take_more_prompts_than_there_are(tokenizer):
    prompts = tokenize_prompts(records("red", "good"), tokenizer, max_prompt_tokens=8, cut_prompt=False)
    taken = PromptSampler(prompts, prompts_per_step=5, seed=0).take(1)
    assert len(taken) == 5
    assert {prompt.id for prompt in taken} == {"r0", "r1"}


def test_an_epoch_order_is_a_permutation_and_leaves_torch_alone():
    state = torch.get_rng_state()
    assert sorted(epoch_order(10, 0, 3)) == list(range(10))
    assert torch.equal(torch.get_rng_state(), state)


def test_fields_reach_the_prompt(tokenizer):
    record = PromptRecord.model_validate(json.loads('{"id": "a", "prompt": "red", "fields": {"question": "why?"}}'))
    prompt = tokenize_prompts([record], tokenizer, max_prompt_tokens=8, cut_prompt=False)[0]
    assert prompt.fields == {"question": "why?"}
