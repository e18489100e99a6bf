import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from reward_proto import Granularity, ModelKind
from rl_client.api.testing import FakeModel, FakeRewardService
from rl_client.recipes.train_ppo import train_ppo
from rl_client.training.config import SftConfig, TrainConfig
from rl_client.training.metric_log import MetricLog
from tests.rl_client.killed import die

NURSERY = Path(__file__).with_name("nursery.py")
TIMEOUT_S = 240.0


@pytest.fixture
def run(service):
    """Trains with PPO against the service, or what stands in for it."""

    def run(config, *, resume: bool = False, transport=None) -> bool:
        return train_ppo(config, resume=resume, transport=transport or service.transport)

    return run


@pytest.fixture
def at_step(monkeypatch):
    """Does something just after a step's metrics are written, once."""
    write = MetricLog.write

    def at(step: int, act) -> None:
        def write_and_act(log, now, metrics):
            write(log, now, metrics)
            if now == step:
                monkeypatch.setattr(MetricLog, "write", write)
                act()

        monkeypatch.setattr(MetricLog, "write", write_and_act)

    return at


@pytest.fixture
def kill_after(at_step):
    """Ends the run just after a step's metrics are written."""
    return lambda step: at_step(step, die)


@pytest.fixture
def service():
    """`good` classifies sub-sentences by whether they hold the word; `short` prefers short responses."""
    return FakeRewardService(
        [
            FakeModel(
                "good",
                score=lambda text: 1.0 if "good" in text.split() else 0.0,
                granularity=Granularity.SUB_SENTENCE,
                kind=ModelKind.TOKEN_CLASSIFICATION,
            ),
            FakeModel("short", score=lambda text: -0.1 * len(text.split())),
        ]
    )


@pytest.fixture
def train_config(tmp_path, policy_dir, prompts_file):
    """Settings of a run of six steps, changed by keyword; dots in names are `__`."""

    def make(output: str, **changes) -> TrainConfig:
        settings = {
            "output": tmp_path / output,
            "threads": 1,
            "device": "cpu",
            "policy": policy_dir,
            "prompts": prompts_file,
            "service": {"url": "http://reward", "retry_for_s": 0.0},
            "rewards": [{"model": "good"}, {"model": "short", "weight": 0.5}],
            "generation": {"max_new_tokens": 6, "samples_per_prompt": 2},
            "ppo": {
                "steps": 6,
                "prompts_per_step": 4,
                "epochs": 2,
                "minibatch_size": 4,
                "microbatch_size": 3,
                "learning_rate": 3e-3,
                "value_learning_rate": 3e-3,
                "schedule": "linear",
                "warmup_ratio": 0.3,
                "value_warmup_steps": 1,
            },
            "checkpoint": {"every_steps": 2, "keep": 2},
        }
        return TrainConfig.model_validate(_change(settings, changes))

    return make


@pytest.fixture
def sft_config(tmp_path, init_dir, demonstrations_file):
    """Settings of a run of six steps; dropout is on."""

    def make(output: str, **changes) -> SftConfig:
        settings = {
            "output": tmp_path / output,
            "threads": 1,
            "device": "cpu",
            "model": init_dir,
            "from_scratch": True,
            "data": {"train": demonstrations_file, "dev": demonstrations_file},
            "training": {"steps": 6, "batch_size": 8, "learning_rate": 1e-2, "eval_every_steps": 3},
            "checkpoint": {"every_steps": 2, "keep": 2},
        }
        return SftConfig.model_validate(_change(settings, changes))

    return make


@pytest.fixture
def read_metrics():
    """Lines of metrics.jsonl without the timings."""

    def read(output: Path) -> list[dict]:
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in lines]

    return read


@pytest.fixture
def send_signal():
    """A function that sends this thread a signal that has a handler: the default action would end the test process."""
    defaults = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def send(number: signal.Signals) -> None:
        assert signal.getsignal(number) not in defaults
        signal.raise_signal(number)

    return send


def _change(settings: dict, changes: dict) -> dict:
    for name, value in changes.items():
        *sections, key = name.split("__")
        section = settings
        for part in sections:
            section = section[part]
        section[key] = value
    return settings


class Nursery:
    """Starts processes; see `nursery.py`."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
        self._folder = folder
        self._runs = 0
        self._process = subprocess.Popen(
            [sys.executable, str(NURSERY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def start(self, *arguments: str, count: int = 2, **environment: str) -> list[int]:
        """The ids of the processes."""
        self._runs += 1
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        order = {"arguments": arguments, "port": port, "count": count, "log": str(self.log), "environment": environment}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def statuses(self) -> list[int]:
        """Exit statuses, once they are all there."""
        return json.loads(self._process.stdout.readline())

    @property
    def log(self) -> Path:
        """What the newest processes print."""
        return self._folder / f"run-{self._runs}.log"

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(TIMEOUT_S)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory):
    started = Nursery(tmp_path_factory.mktemp("nursery"))
    yield started
    started.close()


@pytest.fixture
def on_request() -> list[Callable[[int], None]]:
    """Called with the number of each request for scores, before it is answered."""
    return []


@pytest.fixture
def url(service, on_request):
    """The stand-in for the reward service, on a real port."""
    counted = threading.Lock()
    count = 0

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            nonlocal count
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.path == "/v1/score":
                with counted:
                    count += 1
                    for call in on_request:
                        call(count)
            request = httpx.Request(
                self.command, f"http://reward{self.path}", headers=dict(self.headers), content=content
            )
            reply = service.transport.handle_request(request)
            body = reply.read()
            self.send_response(reply.status_code)
            for name, value in reply.headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def make_joint(train_config, url, tmp_path):
    """Settings of a run, and the file that holds them; everything that needs the whole step is on."""

    def make(output: str, **changes):
        settings = {
            "rewards": [{"model": "good", "normalization": "zscore"}, {"model": "short", "weight": 0.5}],
            "ppo__steps": 4,
            "ppo__prompts_per_step": 5,  # shares of two and of three
            "ppo__minibatch_size": 3,  # the last one holds one response: nothing for the first process
            "ppo__whiten_rewards": True,
            "ppo__max_grad_norm": 0.1,
            "kl": {"target": 0.5},
            "pipeline": {"send_share": 1.0},  # one request of each process for each step
            "diagnostics": {"exact_kl_tokens": 9, "samples_every_steps": 2},
            "checkpoint": {"every_steps": 3, "best_metric": "reward_per_segment"},
        }
        config = train_config(output, **{**settings, "service__url": url, **changes})
        file = tmp_path / f"{output}.yaml"
        file.write_text(yaml.safe_dump(json.loads(config.model_dump_json(exclude_unset=True))))
        return config, str(file)

    return make
