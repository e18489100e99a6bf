"""Gradients, updates and packed states of two processes, whole and divided, against those of one."""

import pytest
import torch

from rl_client.errors import ConfigError
from rl_client.training.config import TrainConfig
from rl_client.training.sharding import Sharding, check_sharded
from tests.rl_client.training.two_processes import run_two

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
CPU = torch.device("cpu")

SCRIPT = """
from contextlib import nullcontext

import torch
from rl_client.rollout.stages import TrainBatch
from rl_client.training.config import Device, PpoSettings
from rl_client.training.models import ValueModel
from rl_client.training.optim import clip_and_step, make_adamw
from rl_client.training.ppo_step import Trainee, accumulate_gradients
from rl_client.training.processes import Processes
from rl_client.training.reference import make_reference
from rl_client.training.shards import is_divided, whole
from rl_client.training.state import pack_optimizer, pack_weights, unpack_optimizer, unpack_weights
from rl_client.training.whole_models import WholeModels
from tests.rl_client.tiny_models import make_batch, make_policy, stir

here = Processes.meet(Device.CPU)
alone = Processes(here.device)
joined = Processes(here.device, rank=here.rank, count=here.count)
# One response a micro-batch: one for the first process, two for the second.
ppo = PpoSettings(steps=1, prompts_per_step=2, minibatch_size=3, microbatch_size=1)
tokens = make_batch()
mask = tokens.response_mask
old, values, advantages, returns = (
    torch.where(mask, torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed)), 0.0) for seed in range(4)
)
batch = TrainBatch(tokens, old - 3.0, values, advantages, returns)


def build(family, processes):
    policy, value = make_policy(family), ValueModel(make_policy(family, seed=1).network)
    stir(value)
    models = None
    if processes.sharding is not None:
        models = WholeModels.divide(policy, make_reference(policy), value, processes.sharding)
    optimizers = (make_adamw(model, learning_rate=1e-2, weight_decay=0.1, eps=1e-5) for model in (policy, value))
    return Trainee(policy, value, *optimizers), models


def learn(trainee, processes, update_policy=True):
    return accumulate_gradients(
        trainee, batch, ppo, temperature=0.7, update_policy=update_policy, precision=nullcontext(), processes=processes
    )


def whole_gradients(model):
    return {
        name: whole(weight.grad)
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.grad is not None
    }


close = lambda found, wanted: torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
for family in ("t5", "llama"):
    expected, _ = build(family, alone)
    figures = learn(expected, alone)
    for processes in (joined, here):
        trainee, models = build(family, processes)
        found = learn(trainee, processes)
        assert found.keys() == figures.keys()
        for name, figure in found.items():
            assert abs(figure - figures[name]) < 1e-5 * max(1.0, abs(figures[name])), name
        for model, wanted in ((trainee.policy, expected.policy), (trainee.value, expected.value)):
            assert all(is_divided(weight) for weight in model.parameters()) == (models is not None)
            gradients = whole_gradients(wanted)
            assert any(bool(gradient.any()) for gradient in gradients.values())
            close(whole_gradients(model), gradients)

    # One Adam step from there, the norm cut; then everything packed, and put into others.
    def step(trainee):
        pairs = ((trainee.policy, trainee.policy_optimizer), (trainee.value, trainee.value_optimizer))
        return [clip_and_step(model, optimizer, max_grad_norm=0.5, name="") for model, optimizer in pairs]

    close(step(trainee), step(expected))
    packed = [pack_weights(trainee.policy), *pack_optimizer(trainee.policy_optimizer)]
    wanted = [pack_weights(expected.policy), *pack_optimizer(expected.policy_optimizer)]
    close(packed, wanted)
    assert pack_weights(trainee.policy, keep=False) == pack_optimizer(trainee.policy_optimizer, keep=False)[0] == {}
    other, _ = build(family, here)
    unpack_weights(other.policy, packed[0])
    unpack_optimizer(other.policy_optimizer, packed[1], packed[2])
    again = [pack_weights(other.policy), *pack_optimizer(other.policy_optimizer)]
    torch.testing.assert_close(again, packed, rtol=0, atol=0)

    # While the value model warms up no weight of the policy gets a gradient, and its forward leaves nothing behind.
    learn(trainee, here, update_policy=False)
    assert not whole_gradients(trainee.policy) and whole_gradients(trainee.value)

    # Whole twins are there while they are lent.
    start = make_policy(family)
    with torch.no_grad(), models.gathered():
        close(dict(models.policy.named_parameters()), dict(expected.policy.named_parameters()))
        close(models.reference(tokens), start(tokens))
        close(models.policy(tokens), expected.policy(tokens))
        close(models.value(tokens), expected.value(tokens))
    for model in (models.policy, models.reference, models.value):
        assert sum(weight.numel() for weight in model.parameters()) == 0
    parts = [weight.to_local() for weight in trainee.policy.parameters()]
    kept, in_all = (sum(weight.numel() for weight in weights) for weights in (parts, start.parameters()))
    assert kept < 0.6 * in_all
print("equal", here.rank)
"""


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    statuses, printed = run_two(SCRIPT, tmp_path, **FSDP)
    assert statuses == [0, 0], "\n".join(printed)
    assert "equal 1" in printed[1]


@pytest.fixture
def tell(monkeypatch):
    """What `accelerate launch --use_fsdp` sets, and more."""

    def tell(**more: str) -> None:
        for name, value in {**FSDP, **more}.items():
            monkeypatch.setenv(name, value)

    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")  # the plugin sets it: put back afterwards
    return tell


def test_one_process_divides_nothing(tell):
    assert Sharding.told(CPU, 2) is None
    tell()
    assert Sharding.told(CPU, 1) is None


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"FSDP_VERSION": "1"}, "--fsdp_version 2"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "gradient_checkpointing"),
        ({"FSDP_IGNORED_MODULES": "network.shared"}, "fsdp_ignored_modules"),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, "TRANSFORMER_BASED_WRAP"),
        ({"FSDP_AUTO_WRAP_POLICY": "NONE_SUCH"}, "Invalid auto wrap policy"),
        ({"FSDP_STATE_DICT_TYPE": "LOCAL_STATE_DICT"}, "LOCAL_STATE_DICT"),
    ],
)
def test_what_is_not_done_is_refused_by_name(tell, told, message):
    tell(**told)
    with pytest.raises(ConfigError, match=message):
        Sharding.told(CPU, 2)


def test_compiled_networks_are_not_divided(tmp_path):
    config = TrainConfig(
        output=tmp_path,
        policy=tmp_path,
        prompts=tmp_path,
        rewards=[{"function": "m:f"}],
        ppo={"steps": 1, "prompts_per_step": 1, "minibatch_size": 1},
        compile=True,
    )
    check_sharded(config, None)
    with pytest.raises(ConfigError, match="compile"):
        check_sharded(config, object())
