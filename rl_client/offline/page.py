"""The report: one HTML file that needs nothing from outside itself and runs no script but its own.

Every text goes through Jinja's escaping. The page's policy names its style and its script by their hashes, so that a
browser runs nothing else even if a text found a way through.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rl_client.offline.answers import ShownPrompt
from rl_client.offline.overoptimisation import Course
from rl_client.offline.plots import course_plots, mean_plots, pareto_plots
from rl_client.offline.significance import CONFIDENCE

_FOLDER = Path(__file__).parent
_BAR_WIDTH = 120
_BIDI_CONTROLS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)
_VISIBLE = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: "\u2421"}
    | {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}
    | {code: f"\\u{code:04x}" for code in _BIDI_CONTROLS}
)
"""Characters that a page would swallow, or that turn the text around, as something to see."""


def render_page(
    title: str,
    summaries: Mapping[str, Mapping[str, Any]],
    answers: Sequence[ShownPrompt],
    *,
    pairs: Sequence[Mapping[str, Any]] = (),
    slicings: Sequence[str] = (),
    front: Sequence[str] = (),
    left_out: Mapping[str, int] | None = None,
    runs: Mapping[str, Mapping[str, Course]] | None = None,
) -> str:
    """The whole page.

    Args:
        title: Its heading.
        summaries: By system what `figures.summarise` says.
        answers: What is shown of them.
        pairs: What `comparison.compare_systems` says.
        slicings: What the pairs are divided by.
        front: Systems that no other one beats.
        left_out: By system prompts that were not compared.
        runs: By run the courses of its rewards.
    """
    courses = runs or {}
    several = len(summaries) > 1
    shown_models = list(answers[0].spread) if answers else []
    css, js = _read("page.css") + _show_rules(len(shown_models)), _read("page.js")
    plot_groups = [
        ("Rewards", mean_plots(summaries), "Means with their intervals."),
        (
            "Competing rewards",
            pareto_plots(summaries, front) if several else [],
            "Filled: no other system is better in one reward and worse in none.",
        ),
        (
            "Reward against KL",
            course_plots(courses),
            "A reward that stands or falls while KL grows is over-optimised. Stars: peaks of the moving average.",
        ),
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True)
    models = {name: pin for summary in summaries.values() for name, pin in summary["models"].items()}
    return environment.from_string(_read("page.html.j2")).render(
        title=title,
        policy=_policy(css, js),
        css=Markup(css),  # noqa: S704 - our own file
        js=Markup(js),  # noqa: S704 - our own file
        number=_number,
        row=_row,
        summaries=summaries,
        names=list(summaries),
        figures=list(dict.fromkeys(name for summary in summaries.values() for name in summary["figures"])),
        models=models,
        prompts=max(summary["prompts"] for summary in summaries.values()),
        confidence=CONFIDENCE,
        left_out=left_out or {},
        front=front,
        pairs=pairs,
        slicings=slicings,
        plot_groups=plot_groups,
        courses={run: {model: course.summarise() for model, course in one.items()} for run, one in courses.items()},
        answers=answers,
        shown_models=shown_models,
    )


def visible(text: str) -> str:
    """A text with its control characters made visible; line breaks and tabs stay."""
    return text.translate(_VISIBLE)


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _row(name: str, test: Mapping[str, Any]) -> Markup:
    """One row of a table of differences."""
    interval = "" if test["low"] is None else f"[{_number(test['low'])}, {_number(test['high'])}]"
    counts = [test["win"], test["tie"], test["lose"]]
    bars = Markup()
    start = 0.0
    for kind, count in zip(("win", "tie", "lose"), counts, strict=True):
        width = _BAR_WIDTH * count / max(1, sum(counts))
        bars += Markup('<rect class="{}" x="{:.1f}" width="{:.1f}" height="12"/>').format(kind, start, width)
        start += width
    return Markup(
        '<tr><td>{}</td><td>{} <span class="dim">{}</span></td><td>{} / {} / {}</td>'
        '<td><svg width="{}" height="12">{}</svg></td><td>{}</td><td>{}</td><td>{}</td></tr>'
    ).format(
        visible(name),
        _number(test["difference"]),
        interval,
        *counts,
        _BAR_WIDTH,
        bars,
        _number(test["p_bootstrap_holm"]),
        _number(test["p_sign_holm"]),
        "●" if test["found"] else "",
    )


def _number(value: float) -> str:
    return f"{value:.4g}"


def _show_rules(models: int) -> str:
    """Which of the models' colourings is shown."""
    return "".join(
        f".show-{one} .m{one}{{display:block}}.show-{one} h3 .m{one}{{display:inline}}" for one in range(max(1, models))
    )


def _policy(css: str, js: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{_hash(css)}'; script-src 'sha256-{_hash(js)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
