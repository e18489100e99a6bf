"""`report.html`: the table, the learning curves and sample answers with segments coloured by score. One file."""

import html
import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from demo.configs import REWARD_MODELS, RL_SYSTEMS, SYSTEMS, Setup
from demo.files import read_jsonl

SAMPLES = 12
TITLES = {"sft": "SFT", "holistic": "holistic reward", "fine_grained": "fine-grained rewards"}
COLORS = {"holistic": "tab:orange", "fine_grained": "tab:blue"}
COLUMNS = {
    "summed_error": "summed error",
    "irrelevant_rate": "irrelevant",
    "factual_error_rate": "factual error",
    "completeness": "completeness",
    "mean_length_tokens": "length",
    "n": "answers",
}
CURVES = {
    "reward/relevance": "relevance score",
    "reward/factuality": "factuality score",
    "reward/completeness": "completeness score",
    "reward/preference": "preference score",
    "kl": "KL to the SFT policy",
    "length_tokens": "length, tokens",
    "explained_variance": "explained variance of the value",
    "entropy": "entropy",
}
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}.q{background:#f6f6f6;padding:.6rem;white-space:pre-wrap}
.s{padding:.05rem .2rem;border-radius:.2rem}.m{color:#666;display:inline-block;width:7rem}
svg{max-width:100%;height:auto}h3{margin-bottom:.2rem}
"""


def write_report(setup: Setup, results: dict[str, Any]) -> None:
    """Write `report.html`, which needs nothing from outside itself."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Fine-grained RLHF in miniature</title>",
        f"<style>{STYLE}</style><h1>Fine-grained RLHF in miniature</h1>",
        f"<p>Seed {results['seed']}. True error rates on {results['systems']['sft']['n']} held-out questions, found by "
        "the rule-based oracle that the training never saw. Lower is better, but for completeness.</p>",
        "<h2>Greedy answers</h2>" + _systems_table(results["systems"]),
        "<h2>Sampled answers (temperature 1)</h2>" + _systems_table(results["systems_sampled"]),
        "<h2>Reward models on held-out feedback</h2>" + _models_table(results["reward_models"]),
        "<h2>Learning curves</h2><p>Scores are what the learned reward models say of the sampled answers in training; "
        "the truth is in the tables above.</p>" + _curves(setup.root),
        "<h2>Answers</h2><p>Each line shows one answer with its segments coloured by one reward model: green is no "
        "error, red an error; hover for the score.</p>" + _samples(setup.root),
    ]
    (setup.root / "report.html").write_text("\n".join(parts), encoding="utf-8")


def _table(head: list[str], rows: list[list[str]]) -> str:
    header = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{header}</tr>{body}</table>"


def _systems_table(systems: dict[str, dict[str, float]]) -> str:
    rows = [[TITLES[system], *(f"{figures[name]:g}" for name in COLUMNS)] for system, figures in systems.items()]
    return _table(["", *COLUMNS.values()], rows)


def _models_table(models: dict[str, dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for figures in models.values() for name in figures if name != "version"))
    rows = [
        [model, str(figures["version"]), *(f"{round(figures[name], 3):g}" if name in figures else "" for name in names)]
        for model, figures in models.items()
    ]
    return _table(["model", "version", *names], rows)


def _curves(root: Path) -> str:
    runs = {system: read_jsonl(root / system / "metrics.jsonl") for system in RL_SYSTEMS}
    figure, axes = plt.subplots(2, 4, figsize=(14, 6), layout="constrained")
    for axis, (name, title) in zip(axes.flat, CURVES.items(), strict=True):
        for system, rows in runs.items():
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), label=TITLES[system], color=COLORS[system])
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("PPO step", fontsize=8)
        axis.legend(fontsize=7)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _samples(root: Path) -> str:
    answers = {system: read_jsonl(root / "evaluation" / system / "responses.jsonl")[:SAMPLES] for system in SYSTEMS}
    parts = []
    for rows in zip(*answers.values(), strict=True):
        parts.append(f"<div class='q'>{html.escape(str(rows[0]['prompt']))}</div>")
        for system, row in zip(answers, rows, strict=True):
            parts.append(f"<h3>{TITLES[system]}</h3>")
            parts += [_coloured(row, model) for model in REWARD_MODELS[:2]]
            scalars = ", ".join(f"{model} {row['scores'][model]['sequence_score']:.2f}" for model in REWARD_MODELS[2:])
            parts.append(f"<div><span class='m'>whole answer</span>{html.escape(scalars)}</div>")
    return "\n".join(parts)


def _coloured(row: dict[str, Any], model: str) -> str:
    response, done, parts = row["response"], 0, []
    for segment in row["scores"][model]["segments"]:
        hue = 120 * segment["score"]
        text = html.escape(response[segment["start"] : segment["end"]])
        parts.append(html.escape(response[done : segment["start"]]))
        parts.append(
            f"<span class='s' style='background:hsl({hue:.0f} 70% 85%)' title='{segment['score']:.3f}'>{text}</span>"
        )
        done = segment["end"]
    parts.append(html.escape(response[done:]))
    return f"<div><span class='m'>{model}</span>{''.join(parts)}</div>"
