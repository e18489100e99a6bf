"""Invariant 17, for one process: evaluation sees each row once, whatever the batches are."""

import json

import pytest

from rl_client.evaluation.sample import evaluate_policy
from rl_client.training.config import EvaluateConfig


@pytest.mark.parametrize(("batch_size", "samples"), [(1, 1), (3, 1), (10, 1), (128, 1), (7, 3), (2, 3)])
def test_every_prompt_has_its_samples_and_no_more(policy_dir, prompts_file, tmp_path, batch_size, samples):
    generation = {"greedy": True} if samples == 1 else {"samples_per_prompt": samples}
    config = EvaluateConfig.model_validate(
        {
            "output": tmp_path / "evaluation",
            "policy": policy_dir,
            "prompts": prompts_file,
            "threads": 1,
            "batch_size": batch_size,
            "generation": {"max_new_tokens": 4, **generation},
        }
    )
    metrics = evaluate_policy(config)
    lines = [json.loads(line) for line in (config.output / "responses.jsonl").read_text().splitlines()]
    wanted = [json.loads(line)["id"] for line in prompts_file.read_text().splitlines()]
    assert [(line["id"], line["sample"]) for line in lines] == [
        (i, sample) for i in wanted for sample in range(samples)
    ]
    assert (metrics["n_prompts"], metrics["n"]) == (10, 10 * samples)
