"""Which answers a report shows, and their texts cut into coloured segments."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reward_proto import ModelScore
from rl_client.offline.figures import REWARD_PREFIX, FigureTable
from rl_client.offline.systems import PromptResponses, Response, System

LEVELS = 10
"""Colours from the worst to the best score, 0 to this."""
SHOWN_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a response; `level` is None where it has no score."""

    text: str
    level: int | None = None
    tip: str = ""


@dataclass(frozen=True, slots=True)
class ShownResponse:
    """One response, cut anew for each model; where a model gave no score, what is said of it."""

    pieces: Mapping[str, Sequence[Piece]]
    notes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """One prompt with the responses of every system.

    Attributes:
        number: Its place among all prompts.
        prompt: See `systems.PromptResponses`.
        cells: By system its responses, and how many more there are.
        spread: By model how far the systems' scores are apart; for a single system how low its score is.
        lead: By model the first system's score less the second's; for a single system its score.
    """

    number: int
    prompt: PromptResponses
    cells: Mapping[str, tuple[Sequence[ShownResponse], int]]
    spread: Mapping[str, float]
    lead: Mapping[str, float]


def choose_answers(systems: Sequence[System], tables: Sequence[FigureTable], *, limit: int) -> list[ShownPrompt]:
    """Prompts on which the systems differ most, for every model the same number; of one system those it does worst.

    Args:
        systems: With the same prompts in the same order.
        tables: Their figures.
        limit: How many prompts at most.

    Returns:
        In the order of the largest difference by the first model; without scores the first ones in the file's order.
    """
    models = [model for model in systems[0].models if all(REWARD_PREFIX + model in table.values for table in tables)]
    spreads = {model: _spreads(tables, model) for model in models}
    ranked = {model: sorted(range(len(row)), key=row.__getitem__, reverse=True) for model, row in spreads.items()}
    chosen: dict[int, None] = {}
    for places in zip(*ranked.values(), strict=True) if ranked else ((place,) for place in range(len(tables[0].ids))):
        for place in places:
            if len(chosen) < limit:
                chosen[place] = None
    scales = {model: _scale(systems, model) for model in models}
    numbers = sorted(chosen, key=lambda place: -spreads[models[0]][place] if models else place)
    return [_shown(place, systems, tables, spreads, scales) for place in numbers]


def cut_text(text: str, score: ModelScore, scale: tuple[float, float]) -> list[Piece]:
    """A response as its segments and what lies between them.

    Args:
        text: The response.
        score: With segments.
        scale: The lowest and the highest score, which get the first and the last colour.
    """
    low, high = scale
    pieces: list[Piece] = []
    end = 0
    for segment in score.segments or []:
        if segment.start > end:
            pieces.append(Piece(text[end : segment.start]))
        share = (segment.score - low) / (high - low) if high > low else 0.5
        level = round(LEVELS * min(1.0, max(0.0, share)))
        label = f", {segment.label}" if segment.label else ""
        pieces.append(Piece(text[segment.start : segment.end], level, f"{segment.score:.4g}{label}"))
        end = segment.end
    if end < len(text):
        pieces.append(Piece(text[end:]))
    return pieces


def _spreads(tables: Sequence[FigureTable], model: str) -> list[float]:
    columns = [table.values[REWARD_PREFIX + model].tolist() for table in tables]
    rows = [[value for value in row if math.isfinite(value)] for row in zip(*columns, strict=True)]
    if len(tables) == 1:
        return [-row[0] if row else -math.inf for row in rows]
    return [max(row) - min(row) if len(row) > 1 else 0.0 for row in rows]


def _scale(systems: Sequence[System], model: str) -> tuple[float, float]:
    """[0, 1] for a classifier, whose segments have labels; the range of the scores for a regressor."""
    segments = [
        segment
        for system in systems
        for prompt in system.prompts.values()
        for response in prompt.responses
        if model in response.scores
        for segment in response.scores[model].segments or []
    ]
    if not segments or segments[0].label is not None:
        return 0.0, 1.0
    values = [segment.score for segment in segments]
    return min(values), max(values)


def _shown(
    place: int,
    systems: Sequence[System],
    tables: Sequence[FigureTable],
    spreads: Mapping[str, Sequence[float]],
    scales: Mapping[str, tuple[float, float]],
) -> ShownPrompt:
    key = tables[0].ids[place]
    cells = {}
    for system in systems:
        responses = system.prompts[key].responses
        shown = [_response(response, scales) for response in responses[:SHOWN_SAMPLES]]
        cells[system.name] = (shown, len(responses) - len(shown))
    values = {model: [float(table.values[REWARD_PREFIX + model][place]) for table in tables[:2]] for model in spreads}
    leads = {model: pair[0] - pair[1] if len(pair) == 2 else pair[0] for model, pair in values.items()}
    return ShownPrompt(
        place,
        systems[0].prompts[key],
        cells,
        {model: row[place] if math.isfinite(row[place]) else 0.0 for model, row in spreads.items()},
        {model: lead if math.isfinite(lead) else 0.0 for model, lead in leads.items()},
    )


def _response(response: Response, scales: Mapping[str, tuple[float, float]]) -> ShownResponse:
    pieces, notes = {}, {}
    for model, scale in scales.items():
        score = response.scores.get(model)
        if score is None or score.error is not None:
            pieces[model] = [Piece(response.text)]
            notes[model] = f"no score: {score.error.code}" if score and score.error else "no score"
        else:
            pieces[model] = cut_text(response.text, score, scale)
            notes[model] = "no segment" if score.sequence_score is None else f"{score.sequence_score:.4g}"
    return ShownResponse(pieces or {"": [Piece(response.text)]}, notes)
