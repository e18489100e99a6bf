"""The command against a real service process, killed on the way."""

import random
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

TIMEOUT_S = 120.0


def command(data, output, *urls, chunk_rows):
    options = ["--data", data, "--out", output, "--chunk-rows", chunk_rows, "--batch-items", 4, "--concurrency", 2]
    addresses = [part for url in urls for part in ("--url", url)]
    return [sys.executable, "-m", "rl_client.cli", "score", *map(str, options), *addresses]


def finish(*arguments, **options):
    done = subprocess.run(
        command(*arguments, **options), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def kill_after(parts, count, rng, *arguments, **options):
    """Start the command and kill it when it has put so many more parts on disk, or is done."""
    process = subprocess.Popen(command(*arguments, **options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = len(list(parts.glob("part-*.parquet")))
    while process.poll() is None and len(list(parts.glob("part-*.parquet"))) < before + count:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.01))
    process.send_signal(signal.SIGKILL)
    process.wait()


def scores(path):
    return pq.read_table(path).drop_columns(["sources"]).to_pylist()


@pytest.mark.parametrize(
    ("kills", "rows", "chunk_rows"), [(2, 60, 4), pytest.param(10, 3000, 16, marks=pytest.mark.slow)]
)
def test_kills_lose_and_double_no_row(scripted, write_rows, tmp_path, kills, rows, chunk_rows):
    data = write_rows(rows)
    unbroken, broken = tmp_path / "unbroken.parquet", tmp_path / "broken.parquet"
    finish(data, unbroken, scripted.url, chunk_rows=chunk_rows)
    rng = random.Random(0)
    for _ in range(kills):
        kill_after(
            broken.with_name("broken.parquet.parts"),
            rows // chunk_rows // (kills + 2),
            rng,
            data,
            broken,
            scripted.url,
            chunk_rows=chunk_rows,
        )
        assert not broken.exists()
    finish(data, broken, scripted.url, chunk_rows=chunk_rows)
    assert pq.read_table(broken)["row"].to_pylist() == list(range(rows))
    assert scores(broken) == scores(unbroken)


def test_the_second_time_makes_no_inference(scripted, write_rows, tmp_path):
    data, output = write_rows(40), tmp_path / "scored.parquet"
    assert "80 computed, 0 from the service's cache, 0 from files, 0 failed" in finish(
        data, output, scripted.url, chunk_rows=16
    )
    first, inferred = scores(output), scripted.inferred_items()
    assert "0 computed, 0 from the service's cache, 80 from files, 0 failed" in finish(
        data, output, scripted.url, chunk_rows=16
    )
    assert scripted.inferred_items() == inferred
    assert scores(output) == first


@pytest.mark.slow
def test_a_replica_that_dies_in_mid_run_costs_no_row(scripted, start_scripted, write_rows, tmp_path):
    data, output = write_rows(120), tmp_path / "scored.parquet"
    dying = start_scripted()
    arguments = command(data, output, scripted.url, dying.url, chunk_rows=4)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    parts = tmp_path / "scored.parquet.parts"
    while process.poll() is None and len(list(parts.glob("part-*.parquet"))) < 3:
        time.sleep(0.001)
    dying.kill()
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, told
    lengths = [2 + len(row["response"].encode()) for row in scores(output)]
    assert [row["scores"]["length"]["sequence_score"] for row in scores(output)] == lengths
