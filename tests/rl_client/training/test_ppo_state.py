import shutil

import pytest
import torch

from rl_client.errors import VersionChangedError
from rl_client.training.config import TrainConfig
from rl_client.training.ppo_state import build_state, pack_state, restore_state, train_digest

VERSIONS = {"a": "000000000000 fake-fp32"}


@pytest.fixture
def config(policy_dir, prompts_file, tmp_path):
    def make(**changes) -> TrainConfig:
        settings = {
            "output": tmp_path / "run",
            "policy": policy_dir,
            "prompts": prompts_file,
            "service": {"url": "http://reward"},
            "rewards": [{"model": "a"}],
            "ppo": {
                "steps": 4,
                "prompts_per_step": 2,
                "minibatch_size": 2,
                "value_warmup_steps": 2,
                "schedule": "linear",
            },
        }
        return TrainConfig.model_validate(settings | changes)

    return make


def build(config, versions=VERSIONS):
    return build_state(config, torch.device("cpu"), dict(versions))


def test_the_policys_schedule_begins_after_the_value_warmup(config):
    state = build(config())
    rates = []
    for step in range(1, 5):
        rates.append((state.policy_schedule.get_last_lr()[0], state.value_schedule.get_last_lr()[0]))
        for optimizer in (state.trainee.policy_optimizer, state.trainee.value_optimizer):
            optimizer.step()
        state.tick({"kl": 0.0}, updated_policy=step > 2)
    assert [policy for policy, _ in rates] == pytest.approx([1e-5, 1e-5, 1e-5, 0.5e-5])
    assert [value for _, value in rates] == pytest.approx([1e-5, 0.75e-5, 0.5e-5, 0.25e-5])


def test_kl_overruns_are_counted_and_survive_a_checkpoint(config):
    settings = config().ppo.model_copy(update={"max_kl": 1.0, "max_kl_times": 2})
    state = build(config())
    assert not state.is_kl_limit_reached({"kl": 1.0}, settings)
    assert not state.is_kl_limit_reached({"kl": 1.1}, settings)
    restored = build(config())
    restore_state(restored, pack_state(state, config(), "d", 3))
    assert not restored.is_kl_limit_reached({"kl": 0.5}, settings)
    assert restored.is_kl_limit_reached({"kl": 1.1}, settings)


def test_no_limit_counts_nothing(config):
    state = build(config())
    assert not state.is_kl_limit_reached({"kl": 1e9}, config().ppo)
    assert state.kl_overruns == 0


def test_a_checkpoint_knows_its_place_in_the_data(config):
    assert pack_state(build(config()), config(), "d", 3).state["data_position"] == 6


def test_another_version_is_refused(config):
    saved = pack_state(build(config()), config(), "d", 1)
    with pytest.raises(VersionChangedError, match="a: pinned 000000000000 fake-fp32, served 000000000000 other"):
        restore_state(build(config(), {"a": "000000000000 other"}), saved)


def test_the_digest_follows_what_changes_results(config, policy_dir, tmp_path):
    digest = train_digest(config())
    moved = tmp_path / "moved"
    shutil.copytree(policy_dir, moved)
    ppo = config().ppo.model_dump()
    same = [
        {"policy": moved},
        {"threads": 3},
        {"service": {"url": "http://elsewhere"}},
        {"ppo": ppo | {"steps": 9}},
        {"checkpoint": {"every_steps": 1}},
    ]
    assert all(train_digest(config(**change)) == digest for change in same)
    assert train_digest(config(pipeline={"concurrent_requests": 1, "send_share": 0.5})) == digest
    assert train_digest(config(pipeline={"staleness": 1})) != digest
    other = [{"seed": 1}, {"value": moved}, {"ppo": ppo | {"gamma": 0.5}}, {"rewards": [{"model": "a", "weight": 2}]}]
    assert all(train_digest(config(**change)) != digest for change in other)
    (moved / "config.json").write_text("{}")
    assert train_digest(config(policy=moved)) != digest
