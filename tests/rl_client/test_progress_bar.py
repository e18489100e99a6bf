import io

import pytest
from rich.console import Console

from rl_client import progress_bar
from rl_client.progress_bar import ProgressBar


def test_without_a_terminal_there_are_lines_as_they_are_and_no_bar(capsys):
    with ProgressBar("work", done=0, total=4) as bar:
        assert not bar.is_shown
        bar.move(2, "loss 1")
        bar.say("[bold]not bold[/bold] " + "word " * 40)
    assert capsys.readouterr().err == "[bold]not bold[/bold] " + "word " * 40 + "\n"


def test_quiet_is_silent(capsys):
    with ProgressBar("work", done=0, total=4, quiet=True) as bar:
        bar.move(4, "")
        bar.say("a line")
        bar.show("a table")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("done", [0, 3])
def test_on_a_terminal_a_bar_with_what_is_done_and_figures(monkeypatch, done):
    screen = io.StringIO()
    monkeypatch.setattr(
        progress_bar, "Console", lambda **_: Console(file=screen, force_terminal=True, width=120, height=20)
    )
    with ProgressBar("work", done=done, total=4) as bar:
        assert bar.is_shown
        bar.move(done + 1, "loss 0.25")
    shown = screen.getvalue()
    assert "work" in shown
    assert f"{done + 1}/4" in shown
    assert "loss 0.25" in shown
