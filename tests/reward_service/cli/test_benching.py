"""`reward-service bench` as its user runs it, against a real service process."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def url(start_service: Callable[..., Any], tiny_store: Path) -> str:
    models = [{"name": name, "runtime": "onnxruntime"} for name in ("relevance", "factuality")]
    return str(start_service(store=str(tiny_store), models=models).url)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    lines = [
        {"prompt": "p", "response": "It is so. " * (1 + n % 7), "fields": {"question": f"Why {n}?"}} for n in range(20)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def bench(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "reward_service.cli", "bench", "--format", "jsonl", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    said, complained = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, said, complained


def scored(url: str, job: str) -> float:
    """Requests of a job that the service itself counted."""
    page = httpx.get(f"{url}/metrics", timeout=TIMEOUT_S).text
    line = f'reward_requests_total{{client_job="{job}",code="200",endpoint="/v1/score"}} '
    return sum(float(found) for found in re.findall(re.escape(line) + r"(\S+)", page))


def test_a_number_of_requests_of_two_jobs(url: str, data: Path, tmp_path: Path) -> None:
    arguments = ["--concurrency", "6", "--items", "5", "--jobs", "heavy=2,light=1", "--requests", "24"]
    status, said, complained = finish(
        bench("--url", url, "--data", str(data), *arguments, "--json", str(tmp_path / "out.json"))
    )
    assert status == 0, complained
    figures = json.loads((tmp_path / "out.json").read_text())
    assert (figures["requests"], figures["answered"], figures["items"]) == (24, 24, 120)
    assert figures["scores"] == 240
    assert (figures["request_errors"], figures["score_errors"]) == ({}, {})
    assert {name: job["clients"] for name, job in figures["jobs"].items()} == {"heavy": 4, "light": 2}
    assert sum(job["share"] for job in figures["jobs"].values()) == pytest.approx(1)
    assert 0 < figures["batch_fill"] <= 1
    latency = figures["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert figures["items_per_s"] == pytest.approx(120 / figures["duration_s"])
    for name, job in figures["jobs"].items():
        assert scored(url, name) == job["answered"]
        assert name in said
    assert "batch fill" in said


def test_ctrl_c_prints_what_there_is(url: str, data: Path) -> None:
    process = bench("--url", url, "--data", str(data), "--jobs", "stopped", "--concurrency", "2", "--duration", "100")
    while scored(url, "stopped") < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    status, said, complained = finish(process)
    assert status == 130
    assert "items/s" in said
    assert "Traceback" not in complained


def test_scores_that_fail_are_told(url: str, tmp_path: Path) -> None:
    data = tmp_path / "long.jsonl"
    data.write_text(json.dumps({"response": "word " * 5000}) + '\n{"response": "Short.", "fields": {"question": "?"}}')
    arguments = ["--items", "2", "--requests", "2", "--concurrency", "1", "--models", "relevance", "--unique"]
    status, said, _ = finish(bench("--url", url, "--data", str(data), *arguments, "--json", str(tmp_path / "out.json")))
    assert status == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert (figures["answered"], figures["items"], figures["scores"]) == (2, 2, 2)
    assert sum(figures["score_errors"].values()) == 2
    assert next(iter(figures["score_errors"])) in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--models", "nobody"], "nobody is not served; there is relevance, factuality"),
        (["--jobs", "a=0"], "a weight is a positive number"),
        (["--jobs", "a,b,c", "--concurrency", "2"], "too few"),
        (["--key-env", "NO_SUCH_VARIABLE_IS_SET"], "NO_SUCH_VARIABLE_IS_SET is not set"),
        (["--url", "http://127.0.0.1:9"], "gives no list of models"),
        (["--url", "nonsense"], "gives no list of models"),
        (["--data", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_a_fault_of_the_user_is_told_without_a_trace(url: str, data: Path, arguments: list[str], told: str) -> None:
    given = [
        *([] if "--url" in arguments else ["--url", url]),
        *([] if "--data" in arguments else ["--data", str(data)]),
    ]
    status, _, complained = finish(bench(*given, *arguments))
    assert status == 2
    assert told in complained
    assert "Traceback" not in complained
