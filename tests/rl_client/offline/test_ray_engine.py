"""Bulk scoring on a real Ray cluster of this machine, against real service processes."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from rl_client.offline.bulk import BulkSettings, score_file
from rl_client.offline.replicas import Connection

ray = pytest.importorskip("ray", reason="needs the extra `ray`")
TIMEOUT_S = 600.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "rl_client.cli", "score", "--engine", "ray", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done


def test_two_replicas_on_ray_give_what_threads_give(scripted, start_scripted, write_rows, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    data, other = write_rows(300), start_scripted()
    options = ["--data", data, "--out", tmp_path / "ray.parquet", "--chunk-rows", 16, "--batch-items", 8]
    done = run(*options, "--url", scripted.url, "--url", other.url)
    assert done.returncode == 0, done.stderr
    assert "300 rows. Scores: 600 computed" in done.stdout
    assert other.inferred_items() > 0
    local = BulkSettings(
        data=data,
        output=tmp_path / "local.parquet",
        models=None,
        connection=Connection((scripted.url,)),
        reuse=(tmp_path / "ray.parquet",),
    )
    assert score_file(local).counts == {"reused": 600}
    unbroken = BulkSettings(
        data=data, output=tmp_path / "unbroken.parquet", models=None, connection=Connection((scripted.url,))
    )
    score_file(unbroken)
    left, right = (
        pq.read_table(tmp_path / name).drop_columns(["sources"]) for name in ("ray.parquet", "unbroken.parquet")
    )
    assert left.to_pylist() == right.to_pylist()


def test_what_stops_a_worker_is_told(scripted, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    (tmp_path / "d.jsonl").write_text('{"response": "a", "fields": {"question": "q"}}\n{"text": "b"}\n')
    done = run("--data", tmp_path / "d.jsonl", "--out", tmp_path / "s.parquet", "--url", scripted.url)
    assert done.returncode == 1
    assert "WorkerError: a worker stopped: DataError" in done.stderr
    assert "line 2" in done.stderr
