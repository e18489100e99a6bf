import random

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from rl_client.errors import CheckpointError
from rl_client.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rl_client.training.config import Schedule
from rl_client.training.optim import make_schedule
from rl_client.training.state import (
    pack_optimizer,
    pack_random,
    pack_schedule,
    pack_weights,
    unpack_optimizer,
    unpack_random,
    unpack_weights,
)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.outer = nn.Linear(3, 3)
        self.outer.weight = self.inner.weight
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x)))


def build(seed: int):
    torch.manual_seed(seed)
    model = Tied()
    optimizer = AdamW(model.parameters(), lr=0.1, fused=True)
    return model, optimizer, make_schedule(optimizer, Schedule.COSINE, warmup_ratio=0.3, steps=10)


def train(model, optimizer, schedule, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = model(torch.randn(4, 3)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(float(loss.detach()) + random.random())
    return losses


def test_training_goes_on_bit_for_bit_from_disk(tmp_path):
    model, optimizer, schedule = build(0)
    train(model, optimizer, schedule, 4)
    moments, groups = pack_optimizer(optimizer)
    random_tensors, random_state = pack_random()
    saved = Checkpoint(
        4,
        {"weights": pack_weights(model), "optimizer": moments, "random": random_tensors},
        {"optimizer": groups, "schedule": pack_schedule(schedule), "random": random_state},
    )
    path = save_checkpoint(tmp_path, saved, keep=1)
    expected = train(model, optimizer, schedule, 5)

    model, optimizer, schedule = build(1)
    random.seed(3)
    loaded = load_checkpoint(path)
    unpack_weights(model, loaded.tensors["weights"])
    unpack_optimizer(optimizer, loaded.tensors["optimizer"], loaded.state["optimizer"])
    schedule.load_state_dict(dict(loaded.state["schedule"]))
    unpack_random(loaded.tensors["random"], loaded.state["random"])
    assert train(model, optimizer, schedule, 5) == expected


def test_packed_weights_are_a_copy_of_names_once():
    model, *_ = build(0)
    assert set(pack_weights(model)) == {"inner.weight", "inner.bias", "outer.bias", "count"}


def test_weights_of_another_model_are_refused():
    model, *_ = build(0)
    tensors = pack_weights(model)
    with pytest.raises(CheckpointError, match=r"inner\.bias"):
        unpack_weights(model, {name: tensor for name, tensor in tensors.items() if name != "inner.bias"})
    with pytest.raises(CheckpointError, match=r"inner\.bias has shape \(2,\), not \(3,\)"):
        unpack_weights(model, tensors | {"inner.bias": torch.zeros(2)})


def test_an_optimizer_of_another_model_is_refused():
    _, optimizer, _ = build(0)
    moments, groups = pack_optimizer(AdamW([nn.Parameter(torch.zeros(2))], lr=1.0))
    with pytest.raises(CheckpointError, match="does not fit"):
        unpack_optimizer(optimizer, moments, groups)
