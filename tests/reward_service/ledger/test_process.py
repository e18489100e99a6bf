"""The ledger of a real `reward-service serve`: its rows are the replies, whatever happens to the database meanwhile."""

import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 60.0
MODELS = ("factuality", "completeness")
TOO_LONG = "word " * 600
"""Longer than the tiny models read: an error of that score, which is none."""

Key = tuple[str, str, str]


class Load:
    """Clients that keep a service busy, and what they were answered."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S)
        self.scores: dict[Key, dict[str, Any]] = {}

    def send(self, number: int) -> None:
        """One request of step `number`; texts come again, so that some scores are cached."""
        rng = random.Random(number)
        texts = ["Yes. ", "No, or so. ", "Perhaps 😀! ", "Ask again\x00? "]
        items = [
            {"id": f"{number}/{place}", "prompt": "Q?", "response": "".join(rng.choices(texts, k=rng.randint(0, 5)))}
            for place in range(4)
        ]
        if number % 5 == 0:
            items[1]["response"] = TOO_LONG
        headers = {"X-Client-Job": "job", "X-Client-Run": "käse".encode(), "X-Client-Step": str(number)}
        reply = self._http.post("/v1/score", json={"items": items}, headers=headers)
        assert reply.status_code == 200, reply.text
        request_id = reply.json()["request_id"]
        for item, result in zip(items, reply.json()["results"], strict=True):
            for score in result["scores"].values():
                if score["error"] is None:
                    told = {name: score[name] for name in score if name != "error"}
                    for segment in told["segments"]:
                        del segment["logits"]
                    texts_of = {"step": number, "prompt": item["prompt"], "response": item["response"]}
                    self.scores[request_id, result["id"], score["model"]] = told | texts_of

    def send_all(self, numbers: range) -> None:
        """From several clients at a time."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.send, numbers))

    def metric(self, name: str, **labels: str) -> float | None:
        families = text_string_to_metric_families(self._http.get("/metrics").text)
        found = [s.value for f in families for s in f.samples if s.name == name and s.labels == labels]
        return found[0] if found else None


@pytest.fixture
def serve(start_service: Callable[..., Any], tiny_store: Path) -> Callable[..., tuple[Any, Load]]:
    """Starts a service with a ledger, and clients of it."""

    def start(**ledger: Any) -> tuple[Any, Load]:
        models = [{"name": name, "runtime": "onnxruntime"} for name in MODELS]
        service = start_service(store=str(tiny_store), models=models, ledger={"texts": True, **ledger})
        return service, Load(service.url)

    return start


def exported(place: str, folder: Path, *filters: str) -> dict[Key, dict[str, Any]]:
    """The ledger's rows by the command line, in the shape of `Load.scores`."""
    path = folder / "scores.parquet"
    command = [str(Path(sys.executable).with_name("reward-service")), "ledger", "export", "--ledger", place]
    subprocess.run([*command, "--out", str(path), *filters], check=True, timeout=TIMEOUT_S)
    rows = pq.read_table(path).to_pylist()
    assert {(row["client_job"], row["run"]) for row in rows} <= {("job", "käse")}
    names = ("model", "version", "runtime", "granularity", "segments", "sequence_score", "truncated_tokens", "cached")
    found = {
        (row["request_id"], row["item_id"], row["model"]): {
            name: row[name] for name in (*names, "step", "prompt", "response")
        }
        for row in rows
    }
    assert len(found) == len(rows), "no score is there twice"
    return found


def test_the_rows_are_the_replies(serve: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    service, load = serve(path=str(path))
    load.send_all(range(60))
    assert load.metric("reward_ledger_up") == 1
    assert service.end() == 0
    found = exported(str(path), tmp_path)
    assert found == load.scores
    assert {score["cached"] for score in found.values()} == {True, False}
    assert len(found) == 60 * 4 * 2 - 12 * 2
    steps = exported(str(path), tmp_path, "--job", "job", "--first-step", "10", "--last-step", "19")
    assert steps == {key: score for key, score in load.scores.items() if 10 <= score["step"] <= 19}


def test_postgresql_stopped_and_started_in_mid_load(
    serve: Callable[..., Any], postgres: Any, postgres_url: str, tmp_path: Path, until: Any
) -> None:
    service, load = serve(url=postgres_url)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(load.send_all, range(200))
        until(lambda: (load.metric("reward_ledger_scores_total", event="written") or 0) > 0)
        postgres.stop("immediate")
        until(lambda: load.metric("reward_ledger_up") == 0)
        before = len(load.scores)
        until(lambda: len(load.scores) > before + 20 or sending.done())
        postgres.start()
        sending.result(TIMEOUT_S)
    until(lambda: load.metric("reward_ledger_pending_scores") == 0)
    assert load.metric("reward_ledger_up") == 1
    load.send_all(range(200, 210))
    assert service.end() == 0
    found = exported(postgres_url, tmp_path)
    assert found == load.scores
    assert sum("fails; scores wait in memory" in line for line in service.log) == 1
    assert sum("works again" in line for line in service.log) == 1


def test_without_its_database_the_service_starts_serves_and_ends(
    serve: Callable[..., Any], postgres: Any, postgres_url: str, tmp_path: Path
) -> None:
    postgres.stop()
    try:
        service, load = serve(url=postgres_url, close_timeout_s=0.5)
        load.send_all(range(10))
        assert load.metric("reward_ledger_up") == 0
        assert load.metric("reward_ledger_pending_scores") == len(load.scores)
        assert service.end() == 0
    finally:
        postgres.start()
    assert any(f"{len(load.scores)} scores were dropped, not recorded" in line for line in service.log)


def test_a_full_disk_costs_nothing_once_there_is_room(serve: Callable[..., Any], tmp_path: Path, until: Any) -> None:
    path = tmp_path / "ledger.db"
    service, load = serve(path=str(path))
    load.send(0)
    until(lambda: (load.metric("reward_ledger_scores_total", event="written") or 0) > 0)
    _, hard = resource.prlimit(service.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.popen.pid, resource.RLIMIT_FSIZE, (64 * 1024, hard))
    load.send_all(range(1, 80))
    until(lambda: load.metric("reward_ledger_up") == 0)
    resource.prlimit(service.popen.pid, resource.RLIMIT_FSIZE, (hard, hard))
    until(lambda: load.metric("reward_ledger_pending_scores") == 0)
    assert load.metric("reward_ledger_up") == 1
    assert service.end() == 0
    assert exported(str(path), tmp_path) == load.scores


@pytest.mark.slow
def test_what_was_written_outlives_a_kill(serve: Callable[..., Any], tmp_path: Path, until: Any) -> None:
    path = tmp_path / "ledger.db"
    service, load = serve(path=str(path))
    load.send_all(range(20))
    until(lambda: load.metric("reward_ledger_pending_scores") == 0)
    service.popen.send_signal(signal.SIGKILL)
    service.kill()
    assert exported(str(path), tmp_path) == load.scores
