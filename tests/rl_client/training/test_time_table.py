import pytest
from rich.console import Console

from rl_client.training.progress import ProgressReport
from rl_client.training.time_table import TimeTable

STEP = {"generate_wait_s": 3.0, "forward_s": 1.0, "update_policy_s": 4.0, "step_s": 10.0, "generate_s": 2.5, "kl": 1.0}


def printed(table) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.fixture
def progress():
    with ProgressReport("ppo", start_step=0, steps=2, shown=()) as progress:
        yield progress


def test_means_and_shares(progress):
    times = TimeTable(progress)
    times.add(STEP)
    times.add({**STEP, "generate_wait_s": 5.0, "score_wait_s": 2.0, "step_s": 14.0})
    text = printed(times.table())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    by_label = {row[0]: row[1:] for row in rows}
    assert "a step's 12 s, mean of 2" in text
    assert by_label["sampling, or waiting for it"] == ["4", "33.3%"]
    assert by_label["waiting for scores"] == ["1", "8.3%"]
    assert by_label["update: policy"] == ["4", "33.3%"]
    assert by_label["the rest"] == ["2", "16.7%"]
    assert by_label["beside: sampling, all of it"] == ["2.5", "20.8%"]


def test_it_is_shown_however_the_run_ends(progress, capsys):
    def run() -> None:
        with TimeTable(progress) as times:
            times.add(STEP)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert "update: policy" in capsys.readouterr().err


def test_a_run_without_a_step_shows_nothing(progress, capsys):
    with TimeTable(progress):
        pass
    assert "phase" not in capsys.readouterr().err
