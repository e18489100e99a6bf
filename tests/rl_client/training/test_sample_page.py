import re
from html.parser import HTMLParser

import pytest
import torch

from rl_client.rollout.rewards import SegmentReward, SourceRewards
from rl_client.rollout.stages import Prompt, Rollout, ScoredRollout, TokenBatch
from rl_client.training.metric_log import MetricLog
from rl_client.training.sample_page import SamplePages, render_samples
from rl_client.training.settings_diagnostics import DiagnosticsSettings

HOSTILE = "<script>alert('1')</script> \"&\x00\x1b \U0001f469\u200d\U0001f52c"
SPAN = (0, 8)


class Marks(HTMLParser):
    """The texts and attributes of `mark` elements, every tag's name, and all the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.marks: list[tuple[str, dict]] = []
        self.tags: set[str] = set()
        self.text = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._inside = tag == "mark"
        if self._inside:
            self.marks.append(("", dict(attrs)))

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        self.text += data
        if self._inside:
            self.marks[-1] = (self.marks[-1][0] + data, self.marks[-1][1])


@pytest.fixture
def scored():
    """A hostile response with two segments, a failed one, and one of another prompt."""
    texts = (HOSTILE, "left out", "fine")
    tokens = TokenBatch(
        torch.ones(2, 1).long(), torch.ones(2, 1).bool(), torch.tensor([0, 0, 1]),
        torch.ones(3, 1).long(), torch.ones(3, 1).bool(),
    )  # fmt: skip
    prompts = (Prompt("<p>", "<b>why</b>", {}, (1,)), Prompt("q", "how", {}, (1,)))
    rollout = Rollout(prompts, tokens, (True, True, False), texts, (((0, 1),),) * 3)
    segments = (
        (SegmentReward(0, *SPAN, 0.9, "<ok>", 1.0), SegmentReward(0, 9, len(HOSTILE), 0.1, "bad", -0.5)),
        (),
        (SegmentReward(0, 0, 4, 0.6, "ok", 1.0),),
    )
    sources = (SourceRewards("r", 0.3, segments),)
    return ScoredRollout(rollout, torch.zeros(3, 1), torch.tensor([False, True, False]), {}, {}, sources=sources)


def test_texts_are_escaped_and_segments_coloured_by_sign_and_size(scored):
    page = render_samples(scored, "Samples <1>", limit=9)
    found = Marks(page)
    assert not {"script", "b", "img", "link", "a"} & found.tags
    assert "http" not in page.replace("http-equiv", "")
    (good, good_look), (bad, bad_look), (fine, _) = found.marks
    assert good == HOSTILE[: SPAN[1]]
    assert bad == HOSTILE[9:].replace("\x00", "\u2400").replace("\x1b", "\u241b")
    assert fine == "fine"
    assert "rgba(46, 160, 67, 0.75)" in good_look["style"]
    assert "rgba(218, 54, 51, 0.38)" in bad_look["style"]  # half as strong
    assert good_look["title"] == "score 0.9, <ok>, shaped 1, reward +0.3"
    assert "<p>: <b>why</b>" in found.text
    assert re.search(r"no score; 1 tokens", found.text)
    assert "left out" in found.text


def test_only_so_many_are_shown(scored):
    assert "fine" not in Marks(render_samples(scored, "t", limit=2)).text


def test_pages_are_written_when_due_and_shown_to_trackers(scored, tmp_path):
    shown = []

    class Spy:
        def write(self, step, figures): ...

        def write_page(self, step, name, html):
            shown.append((step, name, html))

        def close(self): ...

    with MetricLog(tmp_path, after_step=0, trackers=[Spy()]) as log:
        pages = SamplePages(tmp_path, DiagnosticsSettings(samples_every_steps=2, samples=1), log)
        for step in (1, 2, 3, 4):
            pages.write_if_due(step, scored)
        off = SamplePages(tmp_path / "off", DiagnosticsSettings(samples_every_steps=0), log)
        off.write_if_due(2, scored)
    files = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert files == ["step-00000002.html", "step-00000004.html"]
    assert [(step, name) for step, name, _ in shown] == [(2, "samples"), (4, "samples")]
    assert (tmp_path / "samples" / files[0]).read_text(encoding="utf-8") == shown[0][2]
    assert not (tmp_path / "off").exists()
