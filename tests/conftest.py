"""A whole service in this process: the real app, scorer and workers over backends whose logits are told by hand.

And headless Chromium, for the pages of both programs.
"""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

    from reward_service.compat_settings import Compat
    from reward_service.domain import Batch
    from reward_service.ledger.answer import Ledger
    from reward_service.web.access import Access
    from reward_service.web.trace import Tracer

VERSIONS = {"relevance": "3fa94c01d2be", "factuality": "9d1b7703aa52", "completeness": "c07e55d8f419"}
TIMEOUT_S = 20.0
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class FakeService:
    """The three models of the paper on `FakeBackend`, with one token for each byte; `before` is its hook.

    The separator has the id 2, so that every segment has P(ok) = 1 / (1 + exp(-4/7)) and every scalar is 2/7.
    """

    def __init__(
        self,
        before: "Callable[[Batch], None] | None" = None,
        compat: "Compat | None" = None,
        access: "Access | None" = None,
        tracer: "Tracer | None" = None,
        ledger: "Ledger | None" = None,
        **limits: int,
    ) -> None:
        from prometheus_client import CollectorRegistry

        from reward_service.config import Limits
        from reward_service.core.scorer import Scorer
        from reward_service.web.app import create_app
        from reward_service.web.metrics import Metrics

        self.limits = Limits(**limits)
        self.metrics = Metrics(CollectorRegistry(), self.limits.max_client_jobs)
        self._pool = ThreadPoolExecutor(2)
        sources = [self._source(name, before) for name in VERSIONS]
        self.scorer = Scorer(sources, self._pool)
        self.app = create_app(
            self.scorer,
            self.metrics,
            max_items=self.limits.max_items,
            max_body_bytes=self.limits.max_body_bytes,
            compat=compat,
            access=access,
            tracer=tracer,
            ledger=ledger,
        )
        for source in sources:
            source.start()
        self._runner = asyncio.Runner()

    def run(self, work: "Callable[[httpx.AsyncClient], Any]") -> Any:
        """Run a coroutine function with a client of the app, on the one loop of this service."""
        import httpx

        async def connected() -> Any:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service") as client:
                return await work(client)

        return self._runner.run(connected())

    def request(self, method: str, path: str, **options: Any) -> "httpx.Response":
        """Send one request."""
        reply: httpx.Response = self.run(lambda client: client.request(method, path, **options))
        return reply

    def score(self, body: Any, **options: Any) -> "httpx.Response":
        """Post to /v1/score: bytes or text as they are, anything else as JSON."""
        content = {"content": body} if isinstance(body, bytes | str) else {"json": body}
        return self.request("POST", "/v1/score", **content, **options)

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of a metric's sample, None if it has none."""
        return self.metrics.registry.get_sample_value(name, labels)

    def close(self) -> None:
        """End the workers."""
        self.scorer.close(TIMEOUT_S)
        self._runner.close()

    def _source(self, name: str, before: "Callable[[Batch], None] | None") -> Any:
        from tokenizers import Tokenizer, models, pre_tokenizers, processors

        from reward_proto.models import ModelKind
        from reward_proto.score import Granularity
        from reward_service.backends.fake_backend import FakeBackend
        from reward_service.core.division import Division
        from reward_service.core.encode import InputEncoder, InputSpec
        from reward_service.core.encoder_source import EncoderSource
        from reward_service.core.token_queue import TokenQueue
        from reward_service.core.worker import Worker
        from reward_service.domain import Head, ModelCard

        kind, granularity, template, labels = {
            "relevance": (
                ModelKind.TOKEN_CLASSIFICATION,
                Granularity.SUB_SENTENCE,
                "question: {question} answer:",
                ("ok", "error"),
            ),
            "factuality": (ModelKind.TOKEN_CLASSIFICATION, Granularity.SENTENCE, "{prompt}", ("ok", "error")),
            "completeness": (ModelKind.SEQUENCE_REGRESSION, Granularity.SEQUENCE, "{prompt}", ()),
        }[name]
        max_tokens = 2000
        head = Head(kind, labels, labels[0] if labels else "")
        names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(names)}, [], unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.add_special_tokens(names[:4])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
        encoder = InputEncoder(tokenizer, InputSpec(template, (kind,), max_tokens))
        queue: TokenQueue[Any] = TokenQueue(
            max_items=self.limits.max_queue_items,
            max_tokens=self.limits.max_queue_tokens,
            max_batch_tokens=8192,
            max_padding=0.9,
        )
        card = ModelCard(
            name=name,
            version=VERSIONS[name],
            digest=VERSIONS[name] + "0" * 52,
            aliases=("latest",),
            head=head,
            granularity=granularity,
            language="en",
            template=template,
            max_tokens=max_tokens,
            runtime="fake-fp32",
            calibration=(0.25, 0.5) if kind is ModelKind.SEQUENCE_REGRESSION else None,
        )
        worker = Worker(name, [Division(FakeBackend(head, before=before))], [head], encoder.pad_id, queue, self.metrics)
        return EncoderSource(
            [card],
            encoder,
            worker,
            pool=self._pool,
            telemetry=self.metrics,
        )


class Gate:
    """A hook for `FakeService` that holds every batch until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, _: "Batch") -> None:
        """Hold the worker's thread."""
        self._entered.set()
        assert self._opened.wait(TIMEOUT_S)

    def open(self) -> None:
        """Let every batch through from now on."""
        self._opened.set()

    async def until_busy(self) -> None:
        """Wait until a batch is held."""
        assert await asyncio.to_thread(self._entered.wait, TIMEOUT_S)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def make_service() -> Iterator[Callable[..., FakeService]]:
    """Builds services that are closed after the test."""
    made: list[FakeService] = []

    def make(*arguments: Any, **options: Any) -> FakeService:
        made.append(FakeService(*arguments, **options))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def service(make_service: Callable[..., FakeService]) -> FakeService:
    """A service with the default limits."""
    return make_service()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Pass it to `make_service` to hold the workers."""
    made = Gate()
    yield made
    made.open()
