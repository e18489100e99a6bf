import pytest
import torch

from rl_client.training.config import SftConfig
from rl_client.training.sft_state import build_sft_state, sft_digest


@pytest.fixture
def config(init_dir, demonstrations_file, tmp_path):
    def make(**changes) -> SftConfig:
        settings = {
            "output": tmp_path / "run",
            "model": init_dir,
            "from_scratch": True,
            "data": {"train": demonstrations_file},
            "training": {"steps": 4},
        }
        return SftConfig.model_validate(settings | changes)

    return make


def test_the_seed_decides_weights_and_dropout(config):
    def draw(seed: int):
        torch.manual_seed(0)
        state = build_sft_state(config(seed=seed), torch.device("cpu"))
        return state.policy.network.encoder.block[0].layer[0].SelfAttention.q.weight.detach(), torch.rand(3)

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_fine_tuning_trains_with_dropout(config):
    assert build_sft_state(config(), torch.device("cpu")).policy.training


def test_the_digest_follows_what_changes_results(config, demonstrations_file):
    digest = sft_digest(config())
    assert sft_digest(config(training={"steps": 9}, threads=2)) == digest
    assert sft_digest(config(seed=1)) != digest
    demonstrations_file.write_text(demonstrations_file.read_text() + "\n")
    assert sft_digest(config()) != digest
