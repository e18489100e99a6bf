import pytest

from rl_client.errors import DataError
from rl_client.rollout.stages import Prompt
from rl_client.training.config import SftTrainingSettings
from rl_client.training.demonstrations import (
    Demonstration,
    DemonstrationSampler,
    collate_demonstrations,
    load_demonstrations,
)

SETTINGS = SftTrainingSettings(steps=1, max_prompt_tokens=4, max_response_tokens=3)


def demonstration(i: int, prompt_tokens: int, response_tokens: int) -> Demonstration:
    return Demonstration(Prompt(f"d{i}", "", {}, (5,) * prompt_tokens), (6,) * (response_tokens - 1) + (1,))


def test_a_response_ends_with_one_eos_and_a_prompt_with_its_own(tokenizer, write_jsonl):
    path = write_jsonl("d.jsonl", [{"id": "a", "prompt": "red good", "response": "blue one"}])
    (found,) = load_demonstrations(path, tokenizer, SETTINGS)
    assert found.response_ids == tuple(tokenizer.convert_tokens_to_ids(["▁blue", "▁one", "</s>"]))
    assert found.prompt.input_ids == tuple(tokenizer.convert_tokens_to_ids(["▁red", "▁good", "</s>"]))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "a", "prompt": "red", "response": "red one two"}, "4 tokens, over max_response_tokens 3"),
        ({"id": "a", "prompt": "red one two .", "response": "red"}, "5 tokens, over max_prompt_tokens 4"),
        ({"id": "a", "prompt": "red"}, "line 1: response"),
    ],
)
def test_bad_demonstrations_are_named(tokenizer, write_jsonl, record, message):
    with pytest.raises(DataError, match=message):
        load_demonstrations(write_jsonl("d.jsonl", [record]), tokenizer, SETTINGS)


def test_batches_are_padded():
    tokens = collate_demonstrations([demonstration(0, 2, 1), demonstration(1, 1, 3)], pad_id=0)
    assert tokens.prompt_ids.tolist() == [[5, 5], [5, 0]]
    assert tokens.response_ids.tolist() == [[1, 0, 0], [6, 6, 1]]
    assert tokens.response_mask.tolist() == [[True, False, False], [True, True, True]]
    assert tokens.prompt_index.tolist() == [0, 1]


def test_an_epoch_takes_each_once_in_full_batches_of_like_length():
    demonstrations = [demonstration(i, 1 + i % 3, 1 + i % 7) for i in range(70)]
    sampler = DemonstrationSampler(demonstrations, batch_size=4, seed=0)
    batches = [sampler.take(step) for step in range(1, 18)]
    ids = [d.prompt.id for batch in batches for d in batch]
    assert all(len(batch) == 4 for batch in batches)
    assert len(set(ids)) == len(ids) == 68
    spread = sum(max(len(d.response_ids) for d in batch) - min(len(d.response_ids) for d in batch) for batch in batches)
    assert spread <= 17
    assert [[d.prompt.id for d in sampler.take(step)] for step in range(18, 35)] != [
        [d.prompt.id for d in batch] for batch in batches
    ]


def test_what_a_step_takes_depends_on_seed_and_step_alone():
    demonstrations = [demonstration(i, 1, 1 + i % 5) for i in range(30)]
    unbroken = DemonstrationSampler(demonstrations, batch_size=4, seed=0)
    taken = [unbroken.take(step) for step in range(1, 20)]
    resumed = DemonstrationSampler(demonstrations, batch_size=4, seed=0)
    assert [resumed.take(step) for step in range(11, 20)] == taken[10:]
    assert DemonstrationSampler(demonstrations, batch_size=4, seed=1).take(1) != taken[0]


def test_fewer_demonstrations_than_a_batch_are_one_batch():
    sampler = DemonstrationSampler([demonstration(0, 1, 1), demonstration(1, 1, 2)], batch_size=8, seed=0)
    assert len(sampler.take(1)) == len(sampler.take(2)) == 2
