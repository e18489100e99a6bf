"""Files of responses -> `figures.json` or `comparison.json`, and `report.html`, in a folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_client.errors import DataError
from rl_client.offline.answers import choose_answers
from rl_client.offline.comparison import (
    LENGTH_SLICE,
    LONGER_SLICE,
    check_comparable,
    compare_systems,
    pareto_front,
    summary_row,
)
from rl_client.offline.figures import FigureTable, make_figures, summarise
from rl_client.offline.overoptimisation import read_courses
from rl_client.offline.page import render_page
from rl_client.offline.systems import RESPONSES_FILE, System, load_system, read_references

FIGURES_FILE = "figures.json"
COMPARISON_FILE = "comparison.json"
REPORT_FILE = "report.html"


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """What `evaluate` and `compare` have in common.

    Attributes:
        output: The folder that is written.
        references: A file of references by prompt id; those of the responses' files when None.
        average_max: Models, with scores in [0, 1], of whose worst sample the error is reported (toxicity).
        language_model: A model directory that perplexity is taken under.
        slices: Columns to slice by.
        examples: How many prompts the report shows.
        seed: Of the resampling.
    """

    output: Path
    references: Path | None = None
    average_max: tuple[str, ...] = ()
    language_model: Path | None = None
    slices: tuple[str, ...] = ()
    examples: int = 100
    seed: int = 0


def judge_responses(data: Path, settings: JudgeSettings) -> dict[str, Any]:
    """Evaluate one file of responses.

    Args:
        data: See `systems.load_system`.
        settings: What is computed and where it goes.

    Returns:
        The content of `figures.json`.

    Raises:
        TrainingError: If a file cannot be used.
    """
    name, path = parse_system(str(data))
    (system,) = _load([(name, path)], settings)
    (table,), (more,) = _figures([system], settings)
    summary = summarise(system, table, seed=settings.seed) | more
    answers = choose_answers([system], [table], limit=settings.examples)
    page = render_page(f"Evaluation of {name}", {name: summary}, answers)
    _write(settings.output, FIGURES_FILE, summary, page)
    return summary


def judge_several(
    named: Sequence[tuple[str, Path]], settings: JudgeSettings, *, runs: Sequence[tuple[str, Path]], common: bool
) -> dict[str, Any]:
    """Compare files of responses to the same prompts.

    Args:
        named: Two or more systems by name.
        settings: What is computed and where it goes.
        runs: Training runs, by name, whose rewards are shown over their KL.
        common: Whether prompts that some file lacks are left out.

    Returns:
        The content of `comparison.json`.

    Raises:
        TrainingError: If a file cannot be used, or the files cannot be compared.
    """
    if len(named) < 2:
        raise DataError("compare needs two files of responses, or more")
    courses = {name: read_courses(path) for name, path in runs}
    systems, left_out = check_comparable(_load(named, settings), common=common)
    tables, more = _figures(systems, settings)
    summaries = {
        system.name: summarise(system, table, seed=settings.seed) | extra
        for system, table, extra in zip(systems, tables, more, strict=True)
    }
    front = pareto_front({name: summary_row(summary) for name, summary in summaries.items()})
    pairs = compare_systems(systems, tables, slices=settings.slices, seed=settings.seed)
    page = render_page(
        " against ".join(summaries),
        summaries,
        choose_answers(systems, tables, limit=settings.examples),
        pairs=pairs,
        slicings=(LENGTH_SLICE, LONGER_SLICE, *settings.slices),
        front=front,
        left_out=left_out,
        runs=courses,
    )
    told = {
        "systems": summaries,
        "left_out": left_out,
        "pairs": pairs,
        "pareto_front": front,
        "runs": {
            run: {model: course.summarise() for model, course in rewards.items()} for run, rewards in courses.items()
        },
    }
    _write(settings.output, COMPARISON_FILE, told, page)
    return told


def parse_system(text: str) -> tuple[str, Path]:
    """`NAME=PATH`, or a path whose file or folder gives the name; `responses.jsonl` takes its folder's."""
    name, equals, rest = text.partition("=")
    if equals and name and not Path(text).exists():
        return name, Path(rest)
    path = Path(text)
    return (path.resolve().parent.name if path.name == RESPONSES_FILE else path.stem or text), path


def _load(named: Sequence[tuple[str, Path]], settings: JudgeSettings) -> list[System]:
    references = None if settings.references is None else read_references(settings.references)
    return [load_system(name, path, slices=settings.slices, references=references) for name, path in named]


def _figures(systems: Sequence[System], settings: JudgeSettings) -> tuple[list[FigureTable], list[dict[str, Any]]]:
    """The systems' figures, and what else is told of each."""
    more: list[dict[str, Any]] = [{} for _ in systems]
    perplexities: list[Any] = [None for _ in systems]
    if settings.language_model is not None:
        # Without torch everything but this works.
        from rl_client.evaluation.perplexity import LanguageModel
        from rl_client.training.config import Device
        from rl_client.training.optim import pick_device

        model = LanguageModel(settings.language_model, pick_device(Device.AUTO))
        for place, system in enumerate(systems):
            read = model.read(system)
            perplexities[place] = read.values
            more[place] = {"corpus_perplexity": read.corpus, "cut_prompts": read.cut_prompts}
    tables = [
        make_figures(system, average_max=settings.average_max, perplexities=found)
        for system, found in zip(systems, perplexities, strict=True)
    ]
    return tables, more


def _write(folder: Path, name: str, told: dict[str, Any], page: str) -> None:
    """Write both files, each in one move."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for file, text in ((name, content), (REPORT_FILE, page)):
        draft = folder / f".unfinished-{file}"
        # A name from the command line may hold bytes that are no UTF-8.
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(folder / file)
