"""Some of a step's responses as one self-contained HTML page, every source's segments coloured by their rewards."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from rl_client.rollout.rewards import SegmentReward, SourceRewards
from rl_client.rollout.stages import ScoredRollout
from rl_client.training.durable import writing
from rl_client.training.metric_log import MetricLog
from rl_client.training.settings_diagnostics import DiagnosticsSettings

SAMPLES_FOLDER = "samples"
GOOD_RGB, BAD_RGB = "46, 160, 67", "218, 54, 51"
STRONGEST = 0.75
"""Opacity of the page's largest reward of a source; smaller ones are paler in proportion."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f]")
_CONTROL_PICTURES = 0x2400
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 1.5rem; color: #1f2328; background: #fff }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ border: 1px solid #d0d7de; padding: .4rem .6rem; text-align: left; vertical-align: top }}
td.text {{ white-space: pre-wrap; overflow-wrap: anywhere }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums }}
.prompt {{ background: #f6f8fa; white-space: pre-wrap; overflow-wrap: anywhere }}
.failed {{ color: #d1242f }}
mark {{ color: inherit; border-radius: 3px; padding: 0 1px }}
</style></head><body>
<h1>{title}</h1>
<p>Green earns, red costs; the strongest colour of a source is its largest reward on this page. Hover over a segment for
its score, its class, its shaped score, and its reward with weight and normalisation.</p>
"""


class SamplePages:
    """Writes `samples/step-00000010.html` when one is due."""

    def __init__(self, output: Path, settings: DiagnosticsSettings, log: MetricLog) -> None:
        """Prepare to write.

        Args:
            output: The run's folder.
            settings: How often, and how many responses.
            log: Shows the pages too where its trackers can.
        """
        self._folder = output / SAMPLES_FOLDER
        self._settings = settings
        self._log = log

    def write_if_due(self, step: int, scored: ScoredRollout) -> None:
        """Write the page of every `samples_every_steps`-th step; one of that step from before a crash is replaced."""
        every = self._settings.samples_every_steps
        if not every or step % every:
            return
        page = render_samples(scored, f"Samples of step {step}", limit=self._settings.samples)
        path = self._folder / f"step-{step:08d}.html"
        with writing(f"{path}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            # A tokenizer may decode to half a surrogate pair, which UTF-8 cannot hold.
            path.write_text(page, encoding="utf-8", errors="replace")
        self._log.write_page(step, SAMPLES_FOLDER, page)


def render_samples(scored: ScoredRollout, title: str, *, limit: int) -> str:
    """The page as HTML, with no scripts and nothing from elsewhere; texts of prompts and responses are escaped.

    Args:
        scored: With its sources.
        title: The page's.
        limit: At most so many responses: the first ones, so that samples of one prompt stand together.
    """
    rows = []
    shown = min(limit, len(scored.rollout.texts))
    largest = {source.name: _largest(source, shown) for source in scored.sources}
    prompt_before = None
    for row in range(shown):
        prompt = scored.rollout.prompt_of(row)
        if prompt is not prompt_before:
            rows.append(
                f'<tr><th colspan="3" class="prompt" dir="auto">{_text(prompt.id)}: {_text(prompt.text)}</th></tr>'
            )
            prompt_before = prompt
        rows += _response(scored, row, largest)
    head = "<tr><th>source</th><th>reward</th><th>response</th></tr>"
    return f"{_HEAD.format(title=escape(title))}<table>\n{head}\n" + "\n".join(rows) + "\n</table></body></html>\n"


def _response(scored: ScoredRollout, row: int, largest: dict[str, float]) -> list[str]:
    text = scored.rollout.texts[row]
    ended = "" if scored.rollout.finished[row] else " (cut off)"
    length = f"{len(scored.rollout.offsets[row])} tokens{ended}"
    if bool(scored.failed[row]):
        cell = f'<td class="text" dir="auto">{_text(text)}</td>'
        return [f'<tr><td class="failed">no score; {length}</td><td></td>{cell}</tr>']
    lines = []
    for source in scored.sources:
        segments = source.segments[row]
        total = sum(source.reward(segment) for segment in segments)
        coloured = _coloured(text, segments, source, largest[source.name])
        lines.append(
            f'<tr><td title="{length}">{_text(source.name)}</td><td class="number">{total:+.3f}</td>'
            f'<td class="text" dir="auto">{coloured}</td></tr>'
        )
    return lines


def _coloured(text: str, segments: Sequence[SegmentReward], source: SourceRewards, largest: float) -> str:
    parts = []
    position = 0
    for segment in segments:
        reward = source.reward(segment)
        opacity = STRONGEST * abs(reward) / largest if largest else 0.0
        colour = f"rgba({GOOD_RGB if reward >= 0 else BAD_RGB}, {opacity:.2f})"
        label = f", {segment.label}" if segment.label is not None else ""
        told = f"score {segment.score:.4g}{label}, shaped {segment.shaped:.4g}, reward {reward:+.4g}"
        parts.append(_text(text[position : segment.start]))
        inside = _text(text[segment.start : segment.end])
        parts.append(f'<mark style="background: {colour}" title="{_text(told)}">{inside}</mark>')
        position = segment.end
    parts.append(_text(text[position:]))
    return "".join(parts)


def _largest(source: SourceRewards, rows: int) -> float:
    return max((abs(source.reward(s)) for segments in source.segments[:rows] for s in segments), default=0.0)


def _text(text: str) -> str:
    """Escaped, control characters as their pictures; tab and line break stay."""
    return escape(_CONTROLS.sub(lambda match: chr(_CONTROL_PICTURES + ord(match[0])), text))
