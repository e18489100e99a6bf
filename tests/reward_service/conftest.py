"""Tiny seeded models in a store: a byte-level BERT for each granularity, exported to ONNX; services that serve them."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from reward_proto.models import Calibration, ModelKind
from reward_proto.score import Granularity
from reward_service.core.segment import SEGMENTER_VERSION
from reward_service.registry.manifest import Manifest, SegmenterSpec
from reward_service.registry.store import Store
from reward_service.training.export import export

MAX_TOKENS = 1024
PROCESS_TIMEOUT_S = 60.0
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]


def byte_tokenizer() -> Tokenizer:
    """One token for each UTF-8 byte, so that every text can be encoded and told apart."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def publish_tiny(store: Store, scratch: Path, manifest: Manifest, seed: int, *, exported: bool = True) -> str:
    """Publish a seeded model, with its ONNX export or without; returns the version."""
    torch.manual_seed(seed)
    classes = sum(head.width for head in manifest.logit_heads)
    config = BertConfig(
        vocab_size=len(SPECIAL) + 256,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=manifest.max_tokens,
        num_labels=classes,
        initializer_range=0.3,  # Large, so that scores differ visibly from one text to the next.
        attn_implementation="eager",
    )
    reads_tokens = manifest.kind is ModelKind.TOKEN_CLASSIFICATION
    model = (BertForTokenClassification if reads_tokens else BertForSequenceClassification)(config).eval()
    files = scratch / manifest.name
    model.save_pretrained(files)
    byte_tokenizer().save(str(files / "tokenizer.json"))
    published = store.publish(files, manifest)
    if exported:
        export(published)
    return published.version


def tiny_manifests() -> list[Manifest]:
    """The paper's three models in miniature."""
    segmenter = SegmenterSpec(version=SEGMENTER_VERSION)
    return [
        Manifest(
            name="relevance",
            kind=ModelKind.TOKEN_CLASSIFICATION,
            granularity=Granularity.SUB_SENTENCE,
            template="question: {question} answer:",
            labels=("ok", "error"),
            ok_label="ok",
            max_tokens=MAX_TOKENS,
            segmenter=segmenter,
            calibration=Calibration(mean=0.5, std=0.25),
        ),
        Manifest(
            name="factuality",
            kind=ModelKind.TOKEN_CLASSIFICATION,
            granularity=Granularity.SENTENCE,
            template="{prompt} answer:",
            labels=("error", "ok", "unsure"),
            ok_label="ok",
            max_tokens=MAX_TOKENS,
            segmenter=segmenter,
        ),
        Manifest(
            name="completeness",
            kind=ModelKind.SEQUENCE_REGRESSION,
            granularity=Granularity.SEQUENCE,
            template="{prompt} answer:",
            max_tokens=MAX_TOKENS,
            segmenter=segmenter,
        ),
    ]


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with relevance (needs the field `question`), factuality and completeness, each exported to ONNX."""
    root = tmp_path_factory.mktemp("store")
    store = Store(root)
    for seed, manifest in enumerate(tiny_manifests()):
        publish_tiny(store, tmp_path_factory.mktemp("scratch"), manifest, seed)
    return root


@pytest.fixture
def publish_version(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str, int], str]:
    """Publishes another version of one of the tiny models, from a seed."""

    def publish(root: Path, name: str, seed: int) -> str:
        (manifest,) = [manifest for manifest in tiny_manifests() if manifest.name == name]
        return publish_tiny(Store(root), tmp_path_factory.mktemp("scratch"), manifest, seed)

    return publish


class Collector:
    """Takes traces by OTLP over HTTP; `received` has the path and what came, of each request."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.received: list[tuple[str, ExportTraceServiceRequest]] = []
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.bodies.append(body)
                collector.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of traces."""
    made = Collector()
    yield made
    made.close()


class ServiceProcess:
    """`reward-service serve` as a process of its own on loopback; `url` is where it listens.

    Args:
        folder: Where its settings file goes.
        settings: Its settings; the port is a free one.
        path: Folders of modules that it may import.
        max_file_bytes: What the system lets it write into one file.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], path: str, max_file_bytes: int | None = None) -> None:
        self._config = folder / "service.yaml"
        self.write(settings)
        command = [sys.executable, "-m", "reward_service.cli", "serve", "--config", str(self._config)]
        self.log: list[str] = []
        self._listening = threading.Event()

        def limit_files() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

        self.popen = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            preexec_fn=None if max_file_bytes is None else limit_files,
        )
        threading.Thread(target=self._read, daemon=True).start()
        assert self._listening.wait(PROCESS_TIMEOUT_S), "".join(self.log)
        found = re.search(r"listening on (http://[\w.:]+)", "".join(self.log))
        assert found, "".join(self.log)
        self.url = found.group(1)

    def write(self, settings: dict[str, Any]) -> None:
        """Write its settings file."""
        self._config.write_text(yaml.safe_dump({"port": 0, "batching": {"threads": 1}, **settings}))

    def reload(self, told: str) -> None:
        """SIGHUP, and wait until the log has another line with `told`."""
        before = sum(told in line for line in self.log)
        self.popen.send_signal(signal.SIGHUP)
        end_s = time.monotonic() + PROCESS_TIMEOUT_S
        while sum(told in line for line in self.log) == before:
            assert self.popen.poll() is None, "".join(self.log)
            assert time.monotonic() < end_s, "".join(self.log)
            time.sleep(0.02)

    def end(self) -> int:
        """SIGTERM; returns the exit status."""
        self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(PROCESS_TIMEOUT_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self.popen.kill()
        self.popen.wait(PROCESS_TIMEOUT_S)

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.log.append(line)
            if "listening on" in line:
                self._listening.set()
        self._listening.set()


@pytest.fixture(scope="module")
def start_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ServiceProcess]]:
    """Starts services that are killed after the module's tests.

    Call it with settings; `modules` gives further Python files that the service may import, by name, `max_file_bytes`
    what it may write into one file.
    """
    started: list[ServiceProcess] = []

    def start(
        modules: dict[str, str] | None = None, max_file_bytes: int | None = None, **settings: Any
    ) -> ServiceProcess:
        folder = tmp_path_factory.mktemp("service")
        for name, code in (modules or {}).items():
            (folder / f"{name}.py").write_text(code)
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        started.append(ServiceProcess(folder, settings, path, max_file_bytes))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test on any script error, dialog or request to another host."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    hosts = r"(blob:)?(http://127\.0\.0\.1:\d+/|data:)"
    page.on("request", lambda request: re.match(hosts, request.url) or faults.append(request.url))
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits until something that another thread does is done."""

    def wait(is_done: Callable[[], bool]) -> None:
        end_s = time.monotonic() + PROCESS_TIMEOUT_S
        while not is_done():
            assert time.monotonic() < end_s, "it never came"
            time.sleep(0.002)

    return wait
