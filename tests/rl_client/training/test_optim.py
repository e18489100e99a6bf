import math

import pytest
import torch
from torch import nn

from rl_client.errors import ConfigError, NotFiniteError
from rl_client.training.config import Device, Precision, Schedule
from rl_client.training.optim import autocast, clip_and_step, make_adamw, make_schedule, pick_device


def rates(schedule: Schedule, warmup_ratio: float, steps: int) -> list[float]:
    optimizer = make_adamw(nn.Linear(1, 1), learning_rate=8.0, weight_decay=0.0, eps=1e-8)
    scheduler = make_schedule(optimizer, schedule, warmup_ratio=warmup_ratio, steps=steps)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_rates_by_hand():
    assert rates(Schedule.CONSTANT, 0.0, 3) == [8, 8, 8]
    assert rates(Schedule.CONSTANT, 0.5, 4) == [4, 8, 8, 8]
    assert rates(Schedule.LINEAR, 0.0, 4) == [8, 6, 4, 2]
    assert rates(Schedule.LINEAR, 2 / 6, 6) == [4, 8, 8, 6, 4, 2]
    assert rates(Schedule.COSINE, 0.0, 3) == pytest.approx([8, 6, 2])


def test_a_gradient_over_the_limit_is_scaled_and_dropped_after_the_step():
    layer = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    with torch.no_grad():
        layer.weight.zero_()
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_and_step(layer, optimizer, max_grad_norm=1.0, name="policy") == 5.0
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[-0.6, -0.8]]), atol=1e-5, rtol=1e-5)
    assert layer.weight.grad is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_stops_before_the_update(bad):
    layer = nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.tensor([[bad, 1.0]])
    with pytest.raises(NotFiniteError, match="value model"):
        clip_and_step(layer, torch.optim.SGD(layer.parameters(), lr=1.0), max_grad_norm=1.0, name="value model")
    assert torch.equal(layer.weight, before)


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    optimizer = make_adamw(layer, learning_rate=1.0, weight_decay=0.0, eps=1e-8)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 1


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(Device.AUTO).type == "cpu"
    assert pick_device(Device.CPU).type == "cpu"
    with pytest.raises(ConfigError, match="device"):
        pick_device(Device.CUDA)


def test_bf16_forwards():
    layer = nn.Linear(2, 2)
    with autocast(torch.device("cpu"), Precision.BF16):
        assert layer(torch.ones(1, 2)).dtype is torch.bfloat16
    with autocast(torch.device("cpu"), Precision.FP32):
        assert layer(torch.ones(1, 2)).dtype is torch.float32
