import json

from rl_client.training.best_checkpoint import BEST_FILE, BestCheckpoint


def follow(best: BestCheckpoint, values: list[float | None], every: int, start: int = 0) -> None:
    for step, value in enumerate(values, start + 1):
        best.note({"m": value})
        if step % every == 0:
            best.judge(step)


def test_means_between_checkpoints_are_compared():
    best = BestCheckpoint("m")
    follow(best, [0.0, 9.0, 5.0, 5.0, None, 5.5, 5.0, 5.0], 2)
    assert (best.step, best.value) == (6, 5.5)


def test_of_equal_ones_the_earlier_stays():
    best = BestCheckpoint("m")
    follow(best, [1.0, 1.0], 1)
    assert best.step == 1


def test_steps_without_the_metric_judge_nothing():
    best = BestCheckpoint("m")
    follow(best, [None, None], 1)
    assert best.step is None
    nothing = BestCheckpoint(None)
    follow(nothing, [1.0, 2.0], 1)
    assert nothing.step is None


def test_a_resumed_search_goes_on_in_the_middle_of_a_window():
    values = [0.25, 3.0, 0.5, 0.1, 7.0, 8.0]
    unbroken, before = BestCheckpoint("m"), BestCheckpoint("m")
    follow(unbroken, values, 2)
    follow(before, values[:3], 2)
    after = BestCheckpoint("m")
    after.unpack(json.loads(json.dumps(before.pack())))
    follow(after, values[3:], 2, start=3)
    assert after.pack() == unbroken.pack()


def test_another_metric_begins_anew():
    old = BestCheckpoint("m")
    follow(old, [5.0], 1)
    new = BestCheckpoint("other")
    new.unpack(old.pack())
    assert new.step is None


def test_the_file_names_the_best(tmp_path):
    best = BestCheckpoint("m")
    best.write(tmp_path)
    assert not (tmp_path / BEST_FILE).exists()
    follow(best, [1.0, 2.0], 1)
    best.write(tmp_path)
    assert json.loads((tmp_path / BEST_FILE).read_text()) == {"step": 2, "metric": "m", "value": 2.0}
