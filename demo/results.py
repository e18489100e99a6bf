"""From held-out answers to results.json: the oracle's true figures of the three systems."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.configs import REWARD_MODELS, RL_SYSTEMS, SYSTEMS, Setup
from demo.files import questions, read_jsonl
from demo.oracle import judge
from demo.world import Question

TAIL_STEPS = 5
"""KL and reward at the end of a run are means over its last steps."""


def write_results(setup: Setup, seconds: dict[str, float]) -> dict[str, Any]:
    """Measure every system and write `results.json`; return its content."""
    held_out = questions("held_out", setup.seed)
    folder = setup.root / "evaluation"
    results = {
        "seed": setup.seed,
        "systems": {system: measure(held_out, folder / system) for system in SYSTEMS},
        "systems_sampled": {system: measure(held_out, folder / f"{system}_sampled") for system in SYSTEMS},
        "training": {system: _end_of_run(setup.root / system) for system in RL_SYSTEMS},
        "reward_models": {name: _model_metrics(setup.root / "store" / name) for name in REWARD_MODELS},
        "seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
    }
    path = setup.root / "results.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def measure(held_out: Sequence[Question], folder: Path) -> dict[str, float]:
    """The oracle's figures over the answers in a folder.

    Args:
        held_out: The questions, by the number in each answer's id.
        folder: Holds `responses.jsonl`.

    Returns:
        irrelevant_rate: Share of all clauses that are irrelevant, redundant or incoherent.
        factual_error_rate: Share of all sentences that state something wrong.
        completeness: Mean share of the asked facts that an answer states rightly.
        summed_error: irrelevant_rate + factual_error_rate + 1 - completeness.
        mean_length_tokens: In the policy's tokens, the end mark included.
        n: How many answers.
    """
    rows = read_jsonl(folder / "responses.jsonl")
    asked = [held_out[int(row["id"].partition("/")[2])] for row in rows]
    found = [judge(question, row["response"]) for question, row in zip(asked, rows, strict=True)]
    clauses = sum(len(each.clauses) for each in found)
    sentences = sum(each.sentences for each in found)
    # An answer without a clause has nothing irrelevant or wrong in it; what it lacks counts in completeness.
    irrelevant = sum(each.irrelevant for each in found) / max(clauses, 1)
    wrong = sum(each.wrong_sentences for each in found) / max(sentences, 1)
    complete = sum(len(each.covered) / len(question.asked) for question, each in zip(asked, found, strict=True))
    completeness = complete / len(found)
    return {
        "irrelevant_rate": round(irrelevant, 4),
        "factual_error_rate": round(wrong, 4),
        "completeness": round(completeness, 4),
        "summed_error": round(irrelevant + wrong + 1 - completeness, 4),
        "mean_length_tokens": round(sum(row["length_tokens"] for row in rows) / len(rows), 2),
        "n": len(rows),
    }


def _end_of_run(run: Path) -> dict[str, float]:
    tail = read_jsonl(run / "metrics.jsonl")[-TAIL_STEPS:]
    names = ["kl", "length_tokens", *(name for name in tail[-1] if name.startswith("reward/"))]
    return {name: round(sum(row[name] for row in tail) / len(tail), 4) for name in names}


def _model_metrics(model: Path) -> dict[str, Any]:
    version = json.loads((model / "aliases.json").read_text(encoding="utf-8"))["latest"]
    manifest = json.loads((model / version / "manifest.json").read_text(encoding="utf-8"))
    return {"version": version, **manifest["metrics"]}
