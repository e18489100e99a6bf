import json

import pytest

from reward_proto import Calibration, ErrorCode, Granularity, ModelKind
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.errors import TooManyFailedScoresError
from rl_client.evaluation.sample import evaluate_policy
from rl_client.training.config import EvaluateConfig


@pytest.fixture
def service():
    return FakeRewardService(
        [
            FakeModel(
                "good",
                score=lambda text: 1.0 if "good" in text.split() else 0.0,
                granularity=Granularity.SUB_SENTENCE,
                kind=ModelKind.TOKEN_CLASSIFICATION,
                calibration=Calibration(mean=0.25, std=0.5),
            ),
            FakeModel("length", score=lambda text: float(len(text))),
        ]
    )


@pytest.fixture
def config(policy_dir, prompts_file, tmp_path):
    def make(**changes) -> EvaluateConfig:
        settings = {
            "output": tmp_path / "evaluation",
            "policy": policy_dir,
            "prompts": prompts_file,
            "threads": 1,
            "device": "cpu",
            "batch_size": 8,
            "generation": {"max_new_tokens": 5, "samples_per_prompt": 2},
            "service": {"url": "http://reward", "retry_for_s": 0.0},
        }
        return EvaluateConfig.model_validate(settings | changes)

    return make


def read(config) -> list[dict]:
    return [json.loads(line) for line in (config.output / "responses.jsonl").read_text().splitlines()]


def test_responses_carry_the_services_own_scores(config, service):
    evaluated = config()
    metrics = evaluate_policy(evaluated, transport=service.transport)
    lines = read(evaluated)
    assert set(lines[0]) == {"id", "sample", "prompt", "fields", "response", "length_tokens", "finished", "scores"}
    for line in lines:
        assert line["fields"] == {"question": line["prompt"]}
        length = line["scores"]["length"]
        assert length["sequence_score"] == len(line["response"])
        assert length["version"] == "000000000000"
        for segment in line["scores"]["good"]["segments"]:
            assert ("good" in line["response"][segment["start"] : segment["end"]]) == (segment["score"] == 1.0)
    assert metrics["reward/length"] == pytest.approx(sum(len(line["response"]) for line in lines) / 20)
    assert metrics["length_tokens"] == pytest.approx(sum(line["length_tokens"] for line in lines) / 20)
    assert metrics["share_cut_off"] == pytest.approx(sum(not line["finished"] for line in lines) / 20)
    assert metrics["reward_models"] == {"good": "000000000000 fake-fp32", "length": "000000000000 fake-fp32"}
    assert "return" not in metrics
    assert json.loads((evaluated.output / "metrics.json").read_text()) == metrics


def test_rewards_are_shaped_as_in_training(config, service):
    rewards = [{"model": "good", "weight": 2.0, "shaping": "centered"}, {"model": "length", "weight": 0.1}]
    evaluated = config(rewards=rewards)
    metrics = evaluate_policy(evaluated, transport=service.transport)
    shaped = length = 0.0
    for line in read(evaluated):
        shaped += sum(2.0 * (segment["score"] - 0.25) for segment in line["scores"]["good"]["segments"])
        length += 0.1 * len(line["response"])
    assert metrics["reward_shaped/good"] == pytest.approx(shaped / 20)
    assert metrics["reward_shaped/length"] == pytest.approx(length / 20)
    assert metrics["return"] == pytest.approx((shaped + length) / 20)


def test_a_score_that_failed_is_an_error_in_its_place(config, service):
    service.fail_scores("length", ErrorCode.TOO_LONG, item_id="q0/0")
    evaluated = config(service={"url": "http://reward", "retry_for_s": 0.0, "max_failed_share": 0.2})
    metrics = evaluate_policy(evaluated, transport=service.transport)
    first, *others = read(evaluated)
    assert first["scores"]["length"]["error"]["code"] == "too_long"
    assert first["scores"]["length"]["sequence_score"] is None
    assert metrics["failed_scores"] == 1
    assert metrics["reward/length"] == pytest.approx(sum(len(line["response"]) for line in others) / 19)


def test_too_many_failures_leave_the_earlier_evaluation(config, service):
    evaluated = config()
    evaluate_policy(evaluated, transport=service.transport)
    before = read(evaluated)
    service.fail_scores("length", ErrorCode.TOO_LONG, times=100)
    with pytest.raises(TooManyFailedScoresError):
        evaluate_policy(config(seed=1), transport=service.transport)
    assert read(evaluated) == before


def test_without_a_service_responses_have_no_scores(config):
    evaluated = config(service=None)
    metrics = evaluate_policy(evaluated)
    assert "scores" not in read(evaluated)[0]
    assert not any(name.startswith("reward/") for name in metrics)


def test_the_seed_decides_the_samples(config):
    texts = []
    for seed in (0, 0, 1):
        evaluated = config(service=None, seed=seed)
        evaluate_policy(evaluated)
        texts.append([line["response"] for line in read(evaluated)])
    assert texts[0] == texts[1] != texts[2]
