from rl_client.offline import progress
from rl_client.offline.progress import RowProgress


def test_lines_with_rate_and_time_left_where_there_is_no_terminal(capsys, monkeypatch):
    now_s = iter([0.0, 4.0, 12.0, 13.0, 14.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now_s))
    with RowProgress("score", done=10, rows=50) as shown:
        for _ in range(4):
            shown.add(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["score 30/50  2 rows/s  12 s left", "score 50/50  3 rows/s  0 s left"]
