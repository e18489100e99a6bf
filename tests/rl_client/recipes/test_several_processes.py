"""A run of two processes on loopback: the command line, gloo, and rewards over HTTP."""

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
import torch
import yaml
from safetensors.torch import load_file

from rl_client.recipes.train_ppo import train_ppo
from rl_client.training.checkpoint import list_checkpoints

NURSERY = Path(__file__).with_name("nursery.py")
TIMEOUT_S = 240.0


class Nursery:
    """Starts processes; see `nursery.py`."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
        self._folder = folder
        self._runs = 0
        self._process = subprocess.Popen(
            [sys.executable, str(NURSERY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def start(self, *arguments: str, count: int = 2) -> list[int]:
        """The ids of the processes."""
        self._runs += 1
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        order = {"arguments": arguments, "port": port, "count": count, "log": str(self.log)}
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


@pytest.fixture(scope="module")
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
def make(train_config, url, tmp_path):
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


def files_of(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in found if not name.startswith("tensorboard/"))


@pytest.mark.parametrize("scoring", ["own", pytest.param("gathered", marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(nursery, make, read_metrics, scoring):
    single, _ = make("single")
    train_ppo(single, resume=False)
    config, file = make("two", processes={"scoring": scoring})
    nursery.start("train", "--config", file)
    assert nursery.statuses() == [0, 0], nursery.log.read_text()
    lines, expected = read_metrics(config.output), read_metrics(single.output)
    assert len({line["kl_coefficient"] for line in lines}) > 1
    for line, wanted in zip(lines, expected, strict=True):
        assert line == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    for model in ("policy", "value"):
        weights, wanted = (load_file(c.output / model / "model.safetensors") for c in (config, single))
        start = load_file(config.policy / "model.safetensors")
        assert any(not torch.equal(tensor, start[name]) for name, tensor in weights.items())
        torch.testing.assert_close(weights, wanted, rtol=0.0, atol=2e-5)
    assert files_of(config.output) == files_of(single.output)


@pytest.mark.signals
def test_a_signal_to_one_stops_both_and_they_resume_bit_for_bit(nursery, make, read_metrics, on_request):
    unbroken, file = make("unbroken")
    nursery.start("train", "--config", file)
    assert nursery.statuses() == [0, 0], nursery.log.read_text()
    config, file = make("stopped")
    ids: list[int] = []
    known = threading.Event()
    seen = 0

    def stop_second(_: int) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:  # in the second step
            assert known.wait(TIMEOUT_S)
            os.kill(ids[1], signal.SIGTERM)

    on_request.append(stop_second)
    ids += nursery.start("train", "--config", file)
    known.set()
    assert nursery.statuses() == [75, 75], nursery.log.read_text()
    assert "stopped by SIGTERM after step" in nursery.log.read_text()
    done = len(read_metrics(config.output))
    assert done in (2, 3)
    assert list_checkpoints(config.output / "checkpoints")[-1].name == f"step-{done:08d}"
    nursery.start("train", "--config", file, "--resume")
    assert nursery.statuses() == [0, 0], nursery.log.read_text()
    assert read_metrics(config.output) == read_metrics(unbroken.output)
    weights, wanted = (load_file(c.output / "policy" / "model.safetensors") for c in (config, unbroken))
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in weights.items())


def test_what_fails_in_one_ends_both_after_a_checkpoint(nursery, make, service, on_request):
    config, file = make("failed")
    on_request.append(lambda number: service.fail_next(httpx.Response(501)) if number == 5 else None)
    nursery.start("train", "--config", file)
    assert nursery.statuses() == [1, 1]
    told = nursery.log.read_text()
    assert "OtherProcessError: process" in told
    assert "501" in told
    assert [path.name for path in list_checkpoints(config.output / "checkpoints")] == ["step-00000002"]
    nursery.start("train", "--config", file, "--resume")
    assert nursery.statuses() == [0, 0], nursery.log.read_text()


def test_one_that_is_killed_does_not_hang_the_other(nursery, make, on_request):
    config, file = make("killed")
    ids: list[int] = []
    known = threading.Event()

    def kill_second(number: int) -> None:
        if number == 3:
            assert known.wait(TIMEOUT_S)
            os.kill(ids[1], signal.SIGKILL)

    on_request.append(kill_second)
    ids += nursery.start("train", "--config", file)
    known.set()
    assert nursery.statuses() == [1, -signal.SIGKILL]
    assert "LostProcessError: another process is gone" in nursery.log.read_text()
    assert not list_checkpoints(config.output / "checkpoints")
