"""Every settings file of the demo, as a user would write them by hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RELEVANCE_ERRORS = ["Irrelevant", "Redundant", "Incoherent"]
FACTUALITY_ERRORS = ["Wrong-Grounding", "Unverifiable"]
WITHOUT_CONTEXT = "question: {question} answer:"
WITH_CONTEXT = "question: {question} context: {context} answer:"

REWARD_MODELS = ("relevance", "factuality", "completeness", "preference")
RL_SYSTEMS: dict[str, list[dict[str, Any]]] = {
    "holistic": [{"model": "preference", "weight": 2.0, "shaping": "zscore"}],
    "fine_grained": [
        {"model": "relevance", "weight": 1.0, "shaping": "centered"},
        {"model": "factuality", "weight": 0.5, "shaping": "centered"},
        {"model": "completeness", "weight": 0.5, "shaping": "zscore"},
    ],
}
"""System -> its rewards. All else is the same for both: prompts, samples, steps, learning rates, KL.

One weight of each was chosen from two on the development questions, with seed 0: 2.0 over 1.0 for preference, 1.0 over
0.6 for relevance.
"""

SYSTEMS = ("sft", *RL_SYSTEMS)

MAX_PROMPT_TOKENS = 128
MAX_RESPONSE_TOKENS = 60


@dataclass(frozen=True)
class Setup:
    """What all settings files share.

    Attributes:
        root: The folder of this run of the demo.
        seed: Base of every seed.
        port: Where the reward service listens.
    """

    root: Path
    seed: int
    port: int

    def path(self, *parts: str) -> str:
        """A path under the run's folder."""
        return str(self.root.joinpath(*parts))

    def config(self, name: str) -> Path:
        """Where a settings file lives."""
        return self.root / "configs" / f"{name}.yaml"

    @property
    def service_config(self) -> Path:
        """The settings file that serves the demo's models."""
        return self.root / "service.yaml"

    @property
    def url(self) -> str:
        """The reward service."""
        return f"http://127.0.0.1:{self.port}"


def write_configs(setup: Setup) -> None:
    """Write every settings file of the run."""
    files = {"sft": _sft(setup), "sample": _sample(setup), "reward_models": _reward_models(setup)}
    for system in RL_SYSTEMS:
        files[system] = _ppo(setup, system)
    for system in SYSTEMS:
        files[f"evaluate_{system}"] = _evaluate(setup, system, sampled=False)
        files[f"evaluate_{system}_sampled"] = _evaluate(setup, system, sampled=True)
    for name, content in files.items():
        _write(setup.config(name), content)
    _write(setup.service_config, _service(setup))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _sft(setup: Setup) -> dict[str, Any]:
    return {
        "output": setup.path("sft"),
        "model": setup.path("init"),
        "from_scratch": True,
        "seed": setup.seed,
        "threads": 1,
        "device": "cpu",
        "data": {"train": setup.path("data", "demos.jsonl"), "dev": setup.path("data", "demos_dev.jsonl")},
        "training": {
            "steps": 1100,
            "batch_size": 32,
            "learning_rate": 1.5e-3,
            "warmup_ratio": 0.05,
            "max_prompt_tokens": MAX_PROMPT_TOKENS,
            "max_response_tokens": MAX_RESPONSE_TOKENS,
            "eval_every_steps": 200,
        },
        "checkpoint": {"every_steps": 200, "keep": 1},
    }


def _sample(setup: Setup) -> dict[str, Any]:
    return {
        "output": setup.path("samples"),
        "policy": setup.path("sft", "policy"),
        "prompts": setup.path("data", "feedback.jsonl"),
        "seed": setup.seed,
        "threads": 2,
        "device": "cpu",
        "generation": {"max_new_tokens": MAX_RESPONSE_TOKENS, "temperature": 1.0, "samples_per_prompt": 4},
        "batch_size": 512,
    }


def _reward_models(setup: Setup) -> dict[str, Any]:
    def span(granularity: str, template: str, errors: list[str], epochs: int) -> dict[str, Any]:
        return {
            "kind": "token_classification",
            "granularity": granularity,
            "template": template,
            "error_types": errors,
            "training": {"epochs": epochs},
        }

    def pairwise(pairs: str) -> dict[str, Any]:
        return {
            "kind": "sequence_regression",
            "granularity": "sequence",
            "template": WITH_CONTEXT,
            "pairs": pairs,
            "training": {"epochs": 2, "batch_size": 8},
        }

    return {
        "store": setup.path("store"),
        "encoder": setup.path("encoder"),
        "seed": setup.seed,
        "threads": 1,
        "device": "cpu",
        "data": {
            "format": "qa_feedback",
            "train": [setup.path("data", "feedback_train.json")],
            "dev": [setup.path("data", "feedback_dev.json")],
        },
        "training": {"batch_size": 32, "learning_rate": 1.0e-3, "max_tokens": 256},
        "models": {
            "relevance": span("sub_sentence", WITHOUT_CONTEXT, RELEVANCE_ERRORS, epochs=6),
            "factuality": span("sentence", WITH_CONTEXT, FACTUALITY_ERRORS, epochs=3),
            "completeness": pairwise("coverage"),
            "preference": pairwise("preference"),
        },
    }


def _service(setup: Setup) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": setup.port,
        "store": setup.path("store"),
        "models": [
            {"name": name, "runtime": "onnxruntime", "precision": "fp32", "device": "cpu"} for name in REWARD_MODELS
        ],
        "batching": {"threads": 1},
    }


def _client(setup: Setup, job: str) -> dict[str, Any]:
    return {"url": setup.url, "client_job": job, "timeout_s": 60, "retry_for_s": 120}


def _ppo(setup: Setup, system: str) -> dict[str, Any]:
    return {
        "output": setup.path(system),
        "seed": setup.seed,
        "threads": 1,
        "device": "cpu",
        "policy": setup.path("sft", "policy"),
        "prompts": setup.path("data", "rl.jsonl"),
        "max_prompt_tokens": MAX_PROMPT_TOKENS,
        "service": _client(setup, system),
        "rewards": RL_SYSTEMS[system],
        "generation": {"max_new_tokens": MAX_RESPONSE_TOKENS, "temperature": 1.0, "samples_per_prompt": 4},
        "ppo": {
            "steps": 60,
            "prompts_per_step": 24,
            "epochs": 2,
            "minibatch_size": 48,
            "microbatch_size": 24,
            "learning_rate": 3.0e-4,
            "value_learning_rate": 7.0e-4,
            "gamma": 1.0,
            "gae_lambda": 0.95,
            "kl_coefficient": 0.1,
        },
        "checkpoint": {"every_steps": 10, "keep": 1},
    }


def _evaluate(setup: Setup, system: str, *, sampled: bool) -> dict[str, Any]:
    generation: dict[str, Any] = {"max_new_tokens": MAX_RESPONSE_TOKENS}
    generation |= {"temperature": 1.0} if sampled else {"greedy": True}
    content: dict[str, Any] = {
        "output": setup.path("evaluation", f"{system}_sampled" if sampled else system),
        "policy": setup.path(system, "policy"),
        "prompts": setup.path("data", "held_out.jsonl"),
        "seed": setup.seed,
        "threads": 1,
        "device": "cpu",
        "generation": generation,
        "batch_size": 128,
    }
    if not sampled:
        # The scores colour the report's sample answers.
        content["service"] = _client(setup, "evaluation")
        content["rewards"] = [{"model": name} for name in REWARD_MODELS]
    return content
