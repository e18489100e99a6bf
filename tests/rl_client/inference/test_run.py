import json
from itertools import pairwise

import pytest

from reward_proto import ErrorCode, Granularity, ModelKind
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.errors import TooManyFailedScoresError
from rl_client.inference import run
from rl_client.inference.run import generate_chosen
from rl_client.inference.settings import GenerateConfig


@pytest.fixture
def service():
    """`good` says of each sub-sentence how many of its words are `good`; -1 for each word beside that."""
    return FakeRewardService(
        [
            FakeModel(
                "good",
                score=lambda text: float(text.split().count("good")) / (1 + len(text.split())),
                granularity=Granularity.SUB_SENTENCE,
                kind=ModelKind.TOKEN_CLASSIFICATION,
            )
        ]
    )


@pytest.fixture
def config(policy_dir, prompts_file, tmp_path):
    def make(**changes) -> GenerateConfig:
        settings = {
            "output": tmp_path / "out",
            "policy": policy_dir,
            "prompts": prompts_file,
            "threads": 1,
            "device": "cpu",
            "granularity": "sub_sentence",
            "generation": {"max_new_tokens": 8, "samples_per_prompt": 4},
            "service": {"url": "http://reward", "retry_for_s": 0.0},
            "rewards": [{"model": "good"}],
        }
        return GenerateConfig.model_validate(settings | changes)

    return make


def read(config) -> list[dict]:
    return [json.loads(line) for line in (config.output / "responses.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("select", ["response", "segment"])
def test_the_best_candidate_is_kept_at_every_choice(config, service, select):
    settings = config(select=select)
    metrics = generate_chosen(settings, transport=service.transport)
    lines = read(settings)
    assert [line["id"] for line in lines] == [f"q{i}" for i in range(10)]
    for line in lines:
        for choice in line["choices"]:
            assert len(choice["rewards"]) == 4
            assert choice["rewards"][choice["chosen"]] == max(choice["rewards"])
        texts = [choice["text"] for choice in line["choices"]]
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
        assert line["response"] == texts[-1]
        assert line["length_tokens"] <= 8
    assert all(len(line["choices"]) == 1 for line in lines) == (select == "response")
    assert metrics["reward"] == pytest.approx(sum(line["reward"] for line in lines) / 10)
    assert metrics["reward"] > metrics["candidate_reward"]
    assert metrics["failed_scores"] == 0


def test_a_candidate_without_a_score_is_counted_and_never_kept(config, service):
    service.fail_scores("good", ErrorCode.MODEL_FAILED, item_id="q0/1", times=100)
    settings = config()
    metrics = generate_chosen(settings, transport=service.transport)
    first = read(settings)[0]["choices"][0]
    assert first["rewards"][1] is None
    assert first["chosen"] != 1
    assert metrics["failed_scores"] == 1


def test_a_prompt_all_of_whose_scores_fail_stops_the_run(config, service):
    service.fail_scores("good", ErrorCode.MODEL_FAILED, times=10_000)
    with pytest.raises(TooManyFailedScoresError, match="q0"):
        generate_chosen(config(), transport=service.transport)
    assert not (config().output / "responses.jsonl").exists()


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(config, service, monkeypatch, tmp_path):
    unbroken, stopped = config(output=tmp_path / "unbroken"), config(output=tmp_path / "stopped")
    generate_chosen(unbroken, transport=service.transport)
    describe, answered = run.describe, []

    def describe_or_die(chosen):
        answered.append(chosen.prompt.id)
        if len(answered) == 4:
            raise MemoryError("killed")
        return describe(chosen)

    monkeypatch.setattr(run, "describe", describe_or_die)
    with pytest.raises(MemoryError):
        generate_chosen(stopped, transport=service.transport)
    (draft,) = stopped.output.glob(".unfinished-*")
    draft.write_text(draft.read_text() + '{"id": "q3", "cut o')  # a kill in the middle of a line
    generate_chosen(stopped, transport=service.transport)
    assert answered == [f"q{i}" for i in (0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9)]
    assert read(stopped) == read(unbroken)
    assert not list(stopped.output.glob(".unfinished-*"))
