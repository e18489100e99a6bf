"""What a run of PPO leaves and tells, and what stops it."""

import httpx
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from reward_proto import ErrorCode
from rl_client.errors import DataError, KlLimitError, TooManyFailedScoresError
from rl_client.recipes.train_ppo import train_ppo
from tests.rl_client.recipes.whole_runs import assert_reward_improves, steps_saved


def test_a_run_leaves_metrics_checkpoints_and_a_plain_policy(run, train_config, read_metrics):
    config = train_config("a")
    assert run(config)
    lines = read_metrics(config.output)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for name in ("reward/good", "reward_shaped/short", "return", "kl", "kl_k3", "clip_fraction", "value_clip_fraction"):
        assert name in lines[-1]
    for name in ("entropy", "explained_variance", "policy_loss", "value_loss", "length_tokens", "share_cut_off"):
        assert name in lines[-1]
    assert steps_saved(config) == ["step-00000004", "step-00000006"]
    network = AutoModelForSeq2SeqLM.from_pretrained(config.output / "policy")
    assert not torch.equal(network.shared.weight, AutoModelForSeq2SeqLM.from_pretrained(config.policy).shared.weight)
    assert list((config.output / "tensorboard").iterdir())


def test_the_reward_improves(run, train_config, read_metrics):
    assert_reward_improves(run, train_config, read_metrics)


def test_a_start_that_fails_on_its_data_leaves_its_folder_free(run, train_config, tmp_path):
    (tmp_path / "faulty.jsonl").write_text("no JSON")
    for _ in range(2):
        with pytest.raises(DataError, match=r"faulty\.jsonl, line 1"):
            run(train_config("faulty", prompts=tmp_path / "faulty.jsonl"))


def test_failed_scores_are_counted_and_too_many_stop(run, train_config, service, read_metrics):
    config = train_config("a", service={"url": "http://reward", "retry_for_s": 0.0, "max_failed_share": 0.25})
    service.fail_scores("short", ErrorCode.TOO_LONG, times=2)
    assert run(config)
    assert [line["failed_scores"] for line in read_metrics(config.output)] == [2, 0, 0, 0, 0, 0]
    service.fail_scores("short", ErrorCode.TOO_LONG, times=3)
    with pytest.raises(TooManyFailedScoresError, match="3 of 8"):
        run(train_config("b", service={"url": "http://reward", "retry_for_s": 0.0, "max_failed_share": 0.25}))


def test_a_policy_that_strays_too_far_stops(run, train_config):
    config = train_config("a", ppo__max_kl=1e-9, ppo__max_kl_times=2, ppo__learning_rate=1e-2)
    with pytest.raises(KlLimitError, match="for the 2th time"):
        run(config)
    assert steps_saved(config)


def test_bf16_runs(run, train_config):
    assert run(train_config("a", precision="bf16", ppo__steps=2))


def test_the_service_is_told_the_run_and_each_step(train_config, service):
    told = []

    def answer(request):
        if request.url.path == "/v1/score":
            headers = dict(request.headers.raw)
            told.append((headers[b"X-Client-Run"].decode(), int(headers[b"X-Client-Step"])))
        return service.transport.handle_request(request)

    config = train_config("told", ppo__steps=3)
    train_ppo(config, resume=False, transport=httpx.MockTransport(answer))
    assert {run for run, _ in told} == {str(config.output)[-256:]}
    assert sorted({step for _, step in told}) == list(range(1, config.ppo.steps + 1))
