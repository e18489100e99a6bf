import pytest
import torch
from transformers import StoppingCriteriaList

from rl_client.rollout.sampling import DrawByNoise, EachToken, Steering, logits_processors
from rl_client.training.config import GenerationSettings

CPU = torch.device("cpu")
PROBABILITIES = (0.5, 0.3, 0.15, 0.05)


def draw(processors, rows: int) -> torch.Tensor:
    logits = torch.tensor(PROBABILITIES).log().expand(rows, -1).clone()
    counts = torch.bincount(processors(None, logits).argmax(dim=-1), minlength=4)
    return counts / rows


def test_the_largest_of_noisy_logits_is_a_sample_of_their_softmax():
    found = draw(logits_processors(GenerationSettings(), 0, CPU), 40_000)
    torch.testing.assert_close(found, torch.tensor(PROBABILITIES), atol=0.01, rtol=0)


def test_temperature_and_top_k_come_before_chance():
    found = draw(logits_processors(GenerationSettings(temperature=0.5, top_k=3), 0, CPU), 40_000)
    squared = torch.tensor([0.25, 0.09, 0.0225, 0.0])  # p ** (1 / 0.5) of the three likeliest
    torch.testing.assert_close(found, squared / squared.sum(), atol=0.01, rtol=0)


def test_others_than_the_likeliest_are_excluded():
    scores = torch.tensor([[1.0, 3.0, 2.0, -torch.inf], [0.0, -5.0, -1.0, 1.0]])
    excluded = torch.isinf(DrawByNoise(0, CPU, top_k=2)(None, scores))
    assert excluded.tolist() == [[True, False, False, True], [False, True, True, False]]
    assert not torch.isinf(DrawByNoise(0, CPU, top_k=9)(None, scores)[1]).any()


def test_a_part_of_the_rows_is_drawn_as_in_the_whole_batch():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    whole = DrawByNoise(3, CPU, top_k=3)(None, logits)
    assert torch.equal(DrawByNoise(3, CPU, (2, 6), top_k=3)(None, logits[2:5]), whole[2:5])


def test_greedy_draws_nothing():
    assert not logits_processors(GenerationSettings(greedy=True), 0, CPU)


def test_the_seed_alone_decides():
    logits = torch.zeros(50, 7)
    first, again, other = (DrawByNoise(seed, CPU)(None, logits).argmax(-1).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_excluded_tokens_are_never_drawn():
    scores = torch.full((1000, 3), -torch.inf)
    scores[:, 1] = -1e4
    assert set(DrawByNoise(0, CPU)(None, scores).argmax(-1).tolist()) == {1}


@pytest.mark.parametrize("skipped", [1, 2])
def test_the_watch_sees_the_sampled_tokens_alone(skipped):
    seen = []
    criteria = Steering(watch=lambda ids: seen.append(ids.tolist())).stopping_criteria(skipped)
    ids = torch.tensor([[9, 8, 7, 6]])
    assert criteria(ids, None).tolist() == [False]
    assert seen == [ids[:, skipped:].tolist()]


def test_without_a_watch_nothing_is_told():
    assert Steering().stopping_criteria(1) == StoppingCriteriaList()
    assert isinstance(Steering(watch=print).stopping_criteria(1)[0], EachToken)
