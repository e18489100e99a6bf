from rl_client.training.progress import ProgressReport
from rl_client.training.timing import StepTimer


def test_without_a_terminal_some_lines_with_the_chosen_figures(capsys):
    with ProgressReport("ppo", start_step=0, steps=40, shown=("kl", "reward/")) as report:
        for step in range(1, 41):
            report.update(step, {"kl": step / 10, "reward/a": None, "reward/b": 0.5, "loss": 9.0})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0] == "ppo 2/40  kl 0.2  reward/b 0.5"
    assert lines[-1].startswith("ppo 40/40  kl 4")


def test_phases_add_up():
    timer = StepTimer()
    timer.lap("a_s")
    timer.lap("b_s")
    assert list(timer.phases_s) == ["a_s", "b_s"]
    assert all(seconds >= 0 for seconds in timer.phases_s.values())
    assert timer.total_s >= sum(timer.phases_s.values())
