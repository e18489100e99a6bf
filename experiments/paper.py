"""The paper's figures, and which run of ours stands beside each.

Source: Wu et al., arXiv 2306.01693: the ablation of its table 5, human evaluation, detoxification. Figures that are not
written here were not read from the paper; none is estimated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Column:
    """One figure.

    Attributes:
        figure: Its name in `figures.json`, or `truth/NAME` for one in `truth.json`.
        heading: What the table calls it.
        scale: Ours times this is in the paper's unit.
        decimals: How many are shown: as many as the paper has.
    """

    figure: str
    heading: str
    scale: float = 1.0
    decimals: int = 3


@dataclass(frozen=True)
class Row:
    """One system.

    Attributes:
        title: What the table calls it.
        arm: Our run; None for a system that only the paper has.
        paper: By figure what the paper says.
    """

    title: str
    arm: str | None
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    title: str
    family: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str


_QA = (
    Column("reward/relevance", "relevance R1"),
    Column("reward/factuality", "factuality R2"),
    Column("reward/completeness", "completeness R3"),
    Column("rouge_lsum", "RougeLsum", 100.0, decimals=2),
    Column("length_tokens", "length, tokens", decimals=2),
)
_TRUTH = (
    Column("truth/irrelevant_rate", "relevance error"),
    Column("truth/factual_error_rate", "factual error"),
)
_DETOX = (
    Column("average_max/toxicity_whole", "toxicity, avg. max"),
    Column("perplexity", "perplexity", decimals=2),
    Column("dist_2", "dist-2"),
    Column("dist_3", "dist-3"),
)


def _row(title: str, arm: str | None, columns: tuple[Column, ...], *figures: float) -> Row:
    return Row(title, arm, dict(zip((column.figure for column in columns), figures, strict=True)) if figures else {})


TABLES = (
    Table(
        "Long-form QA: ablation of the reward models",
        "qa",
        _QA,
        (
            _row("SFT", "sft", _QA, 0.514, 0.735, 0.065, 43.13, 96.69),
            _row("fine-grained", "fine_grained", _QA, 0.516, 0.825, 0.266, 44.29, 101.76),
            _row("without relevance", "without_relevance", _QA, 0.249, 0.771, 0.742, 38.52, 179.31),
            _row("without factuality", "without_factuality", _QA, 0.716, 0.640, -0.177, 43.18, 78.08),
            _row("without completeness", "without_completeness", _QA, 0.565, 0.799, 0.123, 43.61, 93.92),
            _row("holistic preference", "holistic", _QA),
        ),
        "R1 and R2 of ours are mean scores of a segment, P(no error); R3 is the regressor's own number. Reward models "
        "and their scales differ from the paper's, so compare directions within a column.",
    ),
    Table(
        "Long-form QA: customisation by the weight of relevance",
        "qa",
        _QA,
        (
            _row("larger w1", "short", _QA),
            _row("w1 between", "fine_grained", _QA),
            _row("smaller w1", "long", _QA),
        ),
        "The paper's figures are in a plot that was not read, and the weights are ours, except 0.3 at full size. "
        "It says: the larger w1, the shorter the answers.",
    ),
    Table(
        "Long-form QA: errors found by annotators",
        "qa",
        _TRUTH,
        (
            _row("SFT", "sft", _TRUTH, 0.543, 0.204),
            _row("SFT on all data", None, _TRUTH, 0.537, 0.160),
            _row("holistic preference", "holistic", _TRUTH, 0.556, 0.165),
            _row("fine-grained", "fine_grained", _TRUTH, 0.541, 0.148),
        ),
        "People in the paper; in the small runs the rule-based oracle of the demo's world, whose rates are of clauses "
        "and of sentences. Runs on real text have no such figure.",
    ),
    Table(
        "Detoxification",
        "detox",
        _DETOX,
        (
            _row("before", "initial", _DETOX, 0.192, 9.58, 0.947, 0.931),
            _row("GeDi", None, _DETOX, 0.154, 24.78, 0.938, 0.938),
            _row("DExperts", None, _DETOX, 0.136, 22.83, 0.932, 0.922),
            _row("holistic", "holistic", _DETOX, 0.130, 11.75, 0.943, 0.926),
            _row("fine-grained", "fine_grained", _DETOX, 0.081, 9.77, 0.949, 0.932),
        ),
        "The paper's policy is GPT-2 large and its toxicity the Perspective API's; the small runs have SmolLM2-135M "
        "and alt-profanity-check, and their perplexity is that of the policy before training.",
    ),
)
