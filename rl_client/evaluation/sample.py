"""Sample a policy on every prompt once, score the responses where a service is given, and write both down."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import httpx
from transformers import PreTrainedTokenizerBase

from reward_proto import ItemResult
from rl_client.evaluation.report import ResponseTotals
from rl_client.rollout.generate import generate
from rl_client.rollout.prompts import load_prompts
from rl_client.rollout.score import open_scorer
from rl_client.rollout.seeds import derive_seed
from rl_client.rollout.stages import Prompt, Rollout
from rl_client.training.config import EvaluateConfig
from rl_client.training.durable import write_json
from rl_client.training.model_files import load_tokenizer
from rl_client.training.models import load_policy
from rl_client.training.optim import autocast, pick_device, use_threads
from rl_client.training.progress import ProgressReport

RESPONSES_FILE = "responses.jsonl"
METRICS_FILE = "metrics.json"


def evaluate_policy(config: EvaluateConfig, *, transport: httpx.BaseTransport | None = None) -> dict[str, Any]:
    """Sample a policy and write `responses.jsonl` and `metrics.json` into the output folder.

    Both appear when all is done, in place of those of an earlier evaluation.

    Args:
        config: The settings; without a service the responses are written without scores.
        transport: An httpx transport in place of the network.

    Returns:
        The content of `metrics.json`.

    Raises:
        TrainingError: If policy or prompts cannot be used, or more responses than allowed got no score.
        RewardClientError: If the service gave no usable answer within the retry budget.
    """
    use_threads(config.threads)
    tokenizer = load_tokenizer(config.policy)
    prompts = load_prompts(config, tokenizer)
    totals = ResponseTotals()
    config.output.mkdir(parents=True, exist_ok=True)
    draft = config.output / f".unfinished-{RESPONSES_FILE}"
    with ExitStack() as stack:
        scorer = None
        if config.service is not None or config.rewards:
            scorer = stack.enter_context(
                open_scorer(config.service, config.rewards, transport=transport, output=config.output)
            )
        progress = stack.enter_context(ProgressReport("evaluate", start_step=0, steps=len(prompts), shown=()))
        file = stack.enter_context(draft.open("w", encoding="utf-8"))
        done = 0
        for rollout in _rollouts(config, tokenizer, prompts):
            results = scorer.request(rollout) if scorer else None
            totals.add_responses(rollout)
            if scorer and results:
                totals.add_scores(scorer.place(rollout, results))
            for line in _lines(rollout, results, config.generation.samples_per_prompt):
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            done += len(rollout.prompts)
            progress.update(done, {})
    metrics = totals.metrics() | {"policy": str(config.policy), "reward_models": scorer.versions if scorer else {}}
    draft.replace(config.output / RESPONSES_FILE)
    write_json(config.output / METRICS_FILE, metrics)
    return metrics


def _rollouts(
    config: EvaluateConfig, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]
) -> Iterator[Rollout]:
    """Every prompt exactly once, in order, in batches; the last may be smaller."""
    device = pick_device(config.device)
    policy = load_policy(config.policy).to(device)
    precision = autocast(device, config.precision)
    size = max(1, config.batch_size // config.generation.samples_per_prompt)
    for start in range(0, len(prompts), size):
        with precision:
            rollout = generate(
                policy,
                tokenizer,
                prompts[start : start + size],
                config.generation,
                seed=derive_seed(config.seed, "evaluate", start),
            )
        yield rollout


def _lines(
    rollout: Rollout, results: Sequence[ItemResult] | None, samples_per_prompt: int
) -> Iterator[Mapping[str, Any]]:
    for row, text in enumerate(rollout.texts):
        prompt = rollout.prompt_of(row)
        line = {
            "id": prompt.id,
            "sample": row % samples_per_prompt,
            "prompt": prompt.text,
            "fields": dict(prompt.fields),
            "response": text,
            "length_tokens": len(rollout.offsets[row]),
            "finished": rollout.finished[row],
        }
        if results is not None:
            scores = results[row].scores
            line["scores"] = {name: score.model_dump(mode="json") for name, score in scores.items()}
        yield line
