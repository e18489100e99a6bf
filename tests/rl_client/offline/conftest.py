"""A file of responses, a stand-in service, and a real service process with scripted scores."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from reward_proto import Granularity, ModelKind
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.offline.bulk import BulkSettings
from rl_client.offline.replicas import Connection

SCRIPT = Path(__file__).parents[2] / "contract" / "scripted_service.py"
TIMEOUT_S = 60.0
WORDS = ("good", "bad,", "plain.", "Red", "käse", "😀", "one;", "two!")


def make_response(n: int) -> str:
    """A response of its own for each number; every 23rd is empty."""
    return " ".join(WORDS[(n * 5 + k * k) % len(WORDS)] for k in range(n % 23)) + (f" {n}" if n % 23 else "")


@pytest.fixture
def service() -> FakeRewardService:
    """`good` classifies sub-sentences by whether they hold the word; `length` counts characters."""
    return FakeRewardService(
        [
            FakeModel(
                "good",
                score=lambda text: 1.0 if "good" in text.split() else 0.25,
                granularity=Granularity.SUB_SENTENCE,
                kind=ModelKind.TOKEN_CLASSIFICATION,
                version="aaaaaaaaaaaa",
            ),
            FakeModel("length", score=lambda text: float(len(text)), version="bbbbbbbbbbbb"),
        ]
    )


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes a JSONL file of n responses."""

    def write(n: int, name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        lines = [
            {"id": f"q{i}", "prompt": f"p{i}", "response": make_response(i), "fields": {"question": f"Q{i}"}}
            for i in range(n)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write


@pytest.fixture
def settings(tmp_path: Path, write_rows: Callable[..., Path]) -> Callable[..., BulkSettings]:
    """Settings for ten rows in chunks of three, changed by keyword."""

    def make(**changes: object) -> BulkSettings:
        given: dict[str, object] = {
            "output": tmp_path / "scored.parquet",
            "models": None,
            "connection": Connection(("http://reward",), retry_for_s=0.0, concurrency=2),
            "chunk_rows": 3,
            "batch_items": 2,
            **changes,
        }
        if "data" not in given:
            given["data"] = write_rows(10)
        return BulkSettings(**given)  # type: ignore[arg-type]

    return make


class ScriptedProcess:
    """The real app in a process of its own; its scores can be told by hand from the text."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.popen = subprocess.Popen([sys.executable, str(SCRIPT), str(port)], stderr=subprocess.DEVNULL)
        end_s = time.monotonic() + TIMEOUT_S
        while not self._is_ready():
            assert self.popen.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.05)

    def inferred_items(self) -> float:
        """How many items went through a model so far."""
        text = httpx.get(f"{self.url}/metrics").text
        return sum(map(float, re.findall(r"^reward_batch_items_sum\{.*\} (\S+)", text, re.MULTILINE)))

    def kill(self) -> None:
        """SIGKILL."""
        self.popen.kill()
        self.popen.wait()

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedProcess]:
    """A running service with the models `relevance` (needs the field `question`) and `length`."""
    process = ScriptedProcess()
    yield process
    process.kill()


@pytest.fixture
def start_scripted() -> Iterator[Callable[[], ScriptedProcess]]:
    """Starts further ones, to be killed."""
    started: list[ScriptedProcess] = []

    def start() -> ScriptedProcess:
        started.append(ScriptedProcess())
        return started[-1]

    yield start
    for process in started:
        process.kill()
