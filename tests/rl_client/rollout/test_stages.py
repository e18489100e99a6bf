import torch

from rl_client.rollout.stages import TokenBatch, TrainBatch


def batch() -> TokenBatch:
    return TokenBatch(
        prompt_ids=torch.tensor([[4, 5, 6], [7, 0, 0], [8, 9, 0]]),
        prompt_mask=torch.tensor([[True, True, True], [True, False, False], [True, True, False]]),
        prompt_index=torch.tensor([0, 1, 2, 1]),
        response_ids=torch.tensor([[1, 2, 3, 4], [5, 0, 0, 0], [6, 7, 0, 0], [8, 9, 0, 0]]),
        response_mask=torch.tensor(
            [[True] * 4, [True] + [False] * 3, [True, True, False, False], [True, True, False, False]]
        ),
    )


def test_selected_rows_bring_each_needed_prompt_once_and_shed_padding():
    part = batch().select(torch.tensor([3, 2, 1]))
    assert part.prompt_ids.tolist() == [[7, 0], [8, 9]]
    assert part.prompt_mask.tolist() == [[True, False], [True, True]]
    assert part.prompt_index.tolist() == [0, 1, 0]
    assert part.response_ids.tolist() == [[8, 9], [6, 7], [5, 0]]
    assert part.response_mask.tolist() == [[True, True], [True, True], [True, False]]


def test_a_train_batch_selects_the_same_rows_of_everything():
    tokens = batch()
    columns = [torch.arange(16.0).reshape(4, 4) + 100 * i for i in range(4)]
    part = TrainBatch(tokens, *columns).select(torch.tensor([2, 1]))
    assert part.tokens.response_ids.tolist() == [[6, 7], [5, 0]]
    assert part.old_logprobs.tolist() == [[8, 9], [4, 5]]
    assert part.old_values.tolist() == [[108, 109], [104, 105]]
    assert part.advantages.tolist() == [[208, 209], [204, 205]]
    assert part.returns.tolist() == [[308, 309], [304, 305]]
