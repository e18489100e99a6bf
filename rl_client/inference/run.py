"""`rl-client generate`: a chosen response to every prompt, and how it was chosen; a stopped run goes on."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from rl_client.inference.rerank import Chosen, Reranker
from rl_client.inference.settings import GenerateConfig
from rl_client.rollout.prompts import PromptRecord, read_records, tokenize_prompts
from rl_client.rollout.score import RewardScorer, open_client
from rl_client.rollout.stages import Prompt
from rl_client.training.durable import write_json
from rl_client.training.model_files import load_tokenizer
from rl_client.training.models import load_policy
from rl_client.training.optim import autocast, pick_device, use_threads
from rl_client.training.progress import ProgressReport
from rl_client.training.run_folder import config_digest, file_digests

RESPONSES_FILE = "responses.jsonl"
METRICS_FILE = "metrics.json"
FREE_SETTINGS = {"output", "threads", "device", "service", "policy", "prompts"}
"""What may differ when a stopped run goes on; the files that the paths name may not."""


def generate_chosen(config: GenerateConfig, *, transport: httpx.BaseTransport | None = None) -> dict[str, Any]:
    """Write `responses.jsonl` and `metrics.json` into the output folder.

    Both appear when all is done, in place of those of an earlier run. A run that was stopped goes on when it is started
    again with the same settings, files and model versions.

    Args:
        config: The settings.
        transport: An httpx transport in place of the network.

    Returns:
        The content of `metrics.json`.

    Raises:
        TrainingError: If policy or prompts cannot be used, or no candidate for a prompt got a score.
        RewardClientError: If the service gave no usable answer within the retry budget.
    """
    use_threads(config.threads)
    tokenizer = load_tokenizer(config.policy)
    records = read_records(config.prompts, PromptRecord)
    prompts = tokenize_prompts(
        records, tokenizer, max_prompt_tokens=config.max_prompt_tokens, cut_prompt=config.cut_prompt, text_format=config
    )
    device = pick_device(config.device)
    config.output.mkdir(parents=True, exist_ok=True)
    with open_client(config.service, transport) as client:
        # Every score may fail: what has none is left out of the choice and counted.
        scorer = RewardScorer(client, config.rewards, max_failed_share=1.0)
        draft = config.output / f".unfinished-{_digest(config, scorer)[:16]}-{RESPONSES_FILE}"
        lines = {line["id"]: line for line in read_draft(draft)}
        policy = load_policy(config.policy).to(device)
        reranker = Reranker(policy, tokenizer, client, scorer, config)
        with (
            draft.open("a", encoding="utf-8") as file,
            ProgressReport("generate", start_step=0, steps=len(prompts), shown=("reward",)) as progress,
        ):
            for done, prompt in enumerate(prompts, start=1):
                if prompt.id not in lines:
                    with autocast(device, config.precision):
                        lines[prompt.id] = describe(reranker.answer(prompt))
                    _write(file, lines[prompt.id])
                progress.update(done, {"reward": lines[prompt.id]["reward"]})
    metrics = summarize([lines[prompt.id] for prompt in prompts], prompts)
    metrics |= {"policy": str(config.policy), "reward_models": scorer.versions}
    draft.replace(config.output / RESPONSES_FILE)
    write_json(config.output / METRICS_FILE, metrics)
    return metrics


def describe(chosen: Chosen) -> dict[str, Any]:
    """A line of `responses.jsonl`."""
    (text,), (offsets,), (finished,) = chosen.rollout.texts, chosen.rollout.offsets, chosen.rollout.finished
    return {
        "id": chosen.prompt.id,
        "prompt": chosen.prompt.text,
        "fields": dict(chosen.prompt.fields),
        "response": text,
        "length_tokens": len(offsets),
        "finished": finished,
        "reward": chosen.choices[-1].reward,
        "choices": [
            {"text": choice.text, "rewards": list(choice.rewards), "chosen": choice.chosen} for choice in chosen.choices
        ],
    }


def summarize(lines: Sequence[dict[str, Any]], prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Figures over all responses; `candidate_reward` is the mean over every choice's candidates."""
    rewards = [reward for line in lines for choice in line["choices"] for reward in choice["rewards"]]
    known = [reward for reward in rewards if reward is not None]
    return {
        "prompts": len(lines),
        "cut_prompts": sum(prompt.cut_tokens > 0 for prompt in prompts),
        "reward": sum(line["reward"] for line in lines) / len(lines),
        "candidate_reward": sum(known) / len(known),
        "choices": sum(len(line["choices"]) for line in lines),
        "failed_scores": len(rewards) - len(known),
        "length_tokens": sum(line["length_tokens"] for line in lines) / len(lines),
        "share_cut_off": sum(not line["finished"] for line in lines) / len(lines),
    }


def read_draft(path: Path) -> list[dict[str, Any]]:
    """The lines of a stopped run. One that the stop cut off is removed, and is done again."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.decode().splitlines()]


def _write(file: Any, line: dict[str, Any]) -> None:
    file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()


def _digest(config: GenerateConfig, scorer: RewardScorer) -> str:
    settings = config.model_dump(mode="json", exclude=FREE_SETTINGS)
    files = list(file_digests([config.policy, config.prompts]).values())
    return config_digest({**settings, "files": files, "versions": scorer.versions})
