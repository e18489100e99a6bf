"""Prometheus metrics of the service. The registry is passed in, so that two apps in one process do not mix."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from reward_service.core.source import ScoreSource
from reward_service.core.telemetry import BatchReport

MAX_UNCOUNTED = 64
"""So much may have happened that is not counted yet: about a millisecond's work."""

M = TypeVar("M", bound=MetricWrapperBase)

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_ITEMS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BATCH_TOKENS_BUCKETS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
SCORE_BUCKETS = (-10, -5, -2, -1, -0.5, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1, 2, 5, 10)
"""Fine inside [0, 1] for classifiers, wide outside for regressors."""

OTHER_JOBS = "other"
"""Label that the jobs beyond the cap share."""

NO_JOB = "none"
"""Label of requests that name no job."""

MAX_JOB_LABEL_CHARS = 64
UNPRINTABLE = "?"
"""Stands in a label for a character that no screen shows; some of them cannot even be written as UTF-8."""


class Metrics:
    """Counts what the web layer and the core tell it; the core's `Telemetry`.

    Nobody waits for the counting: what has happened is kept, and counted when somebody asks for the metrics, or when
    there is a lot of it. What is asked for is always up to date.

    Args:
        registry: Where the metrics are registered.
        max_client_jobs: Different job labels; further jobs share `other`.
    """

    def __init__(self, registry: CollectorRegistry, max_client_jobs: int) -> None:
        self.registry = registry
        self._max_client_jobs = max_client_jobs
        self._jobs: set[str] = set()
        self._uncounted: deque[Callable[[], None]] = deque()
        self._counting = threading.Lock()
        registry.register(_Beforehand(self.count))

        self._by_model: list[MetricWrapperBase] = []

        def listed(metric: M, labels: list[str]) -> M:
            if "model" in labels:
                self._by_model.append(metric)
            return metric

        def histogram(name: str, text: str, labels: list[str], buckets: Iterable[float]) -> Histogram:
            return listed(Histogram(name, text, labels, buckets=tuple(buckets), registry=registry), labels)

        def counter(name: str, text: str, labels: list[str]) -> Counter:
            return listed(Counter(name, text, labels, registry=registry), labels)

        def gauge(name: str, text: str, labels: list[str]) -> Gauge:
            return listed(Gauge(name, text, labels, registry=registry), labels)

        request_labels = ["endpoint", "client_job"]
        self._request_s = histogram(
            "reward_request_duration_seconds", "From headers to the last byte", request_labels, LATENCY_BUCKETS_S
        )
        self._tokenize_s = histogram(
            "reward_tokenize_duration_seconds", "Segmenting and tokenizing a request", ["model"], LATENCY_BUCKETS_S
        )
        self._queue_s = histogram(
            "reward_queue_duration_seconds", "An input's wait for its batch", ["model"], LATENCY_BUCKETS_S
        )
        self._inference_s = histogram(
            "reward_inference_duration_seconds", "One batch in the backend", ["model"], LATENCY_BUCKETS_S
        )
        self._batch_items = histogram("reward_batch_items", "Inputs in a batch", ["model"], BATCH_ITEMS_BUCKETS)
        self._batch_tokens = histogram(
            "reward_batch_padded_tokens", "Tokens of a batch, padding included", ["model"], BATCH_TOKENS_BUCKETS
        )
        self._score = histogram("reward_score", "Sequence scores", ["model"], SCORE_BUCKETS)
        # A histogram that reaches below zero has no `_sum`, since that could fall; these two never do.
        self._score_magnitude = counter(
            "reward_score_magnitude_total", "Sum of the absolute sequence scores, by their sign", ["model", "sign"]
        )
        self._score_squares = counter("reward_score_squares_total", "Sum of the squared sequence scores", ["model"])
        self._requests = counter("reward_requests_total", "Requests by HTTP status", [*request_labels, "code"])
        self._rejected = counter("reward_rejected_total", "Requests answered with an error", ["reason"])
        self._tokens = counter("reward_tokens_total", "Tokens computed", ["model", "kind"])
        self._job_tokens = counter(
            "reward_job_padded_tokens_total", "Tokens computed for a job, padding included", ["model", "client_job"]
        )
        self._truncated = counter("reward_truncated_total", "Inputs that were cut", ["model"])
        self._queue_items = gauge("reward_queue_items", "Inputs that wait", ["model"])
        self._queue_tokens = gauge("reward_queue_tokens", "Tokens that wait", ["model"])
        self._limit_items = gauge("reward_queue_limit_items", "Inputs that may wait for one model", [])
        self._limit_tokens = gauge("reward_queue_limit_tokens", "Tokens that may wait for one model", [])
        self._model_info = gauge("reward_model_info", "1 for each served model", ["model", "version", "runtime"])
        self._worker_alive = gauge("reward_worker_alive", "1 while a model's worker runs, 0 once it ended", ["model"])
        ProcessCollector(registry=registry)  # CPU time, memory, open files and start of this process, on Linux.

    def show_limits(self, max_queue_items: int, max_queue_tokens: int) -> None:
        """Show how much may wait for each model."""
        self._limit_items.set(max_queue_items)
        self._limit_tokens.set(max_queue_tokens)

    def watch(self, source: ScoreSource) -> None:
        """Show the models of a source, and its queue."""
        for card in source.cards:
            self._model_info.labels(card.name, card.version, card.runtime).set(1)
        self._queue_items.labels(source.name).set_function(lambda: source.queue_items)
        self._queue_tokens.labels(source.name).set_function(lambda: source.queue_tokens)
        self._worker_alive.labels(source.name).set_function(lambda: source.alive)

    def forget(self, source: ScoreSource, served: Sequence[ScoreSource]) -> None:
        """Show no longer what is gone with a source that has ended.

        Args:
            source: Ended, so that it reports nothing any more.
            served: What is served now; the names in it keep their series, as another version of a model counts on.
        """
        self.count()
        cards = {(card.name, card.version, card.runtime) for other in served for card in other.cards}
        for card in source.cards:
            if (card.name, card.version, card.runtime) not in cards:
                labels = {"model": card.name, "version": card.version, "runtime": card.runtime}
                self._model_info.remove_by_labels(labels)
        names = {name for other in served for name in (other.name, *(card.name for card in other.cards))}
        for name in {source.name, *(card.name for card in source.cards)} - names:
            for metric in self._by_model:
                metric.remove_by_labels({"model": name})

    def request_done(self, endpoint: str, client_job: str, status: int, duration_s: float) -> None:
        """A request was answered."""
        self._keep(partial(self._count_request, endpoint, client_job, status, duration_s))

    def rejected(self, reason: str) -> None:
        """A request was answered with this error code."""
        self._rejected.labels(reason).inc()

    def encoded(self, model: str, tokenize_s: float, truncated: int) -> None:
        """See `core.telemetry.Telemetry`."""
        self._keep(partial(self._count_encoded, model, tokenize_s, truncated))

    def batch_done(self, report: BatchReport) -> None:
        """See `core.telemetry.Telemetry`."""
        self._keep(partial(self._count_batch, report))

    def count(self) -> None:
        """Count what has happened."""
        with self._counting:
            while self._uncounted:
                self._uncounted.popleft()()

    def _keep(self, count: Callable[[], None]) -> None:
        self._uncounted.append(count)
        if len(self._uncounted) >= MAX_UNCOUNTED:
            self.count()

    def _count_request(self, endpoint: str, client_job: str, status: int, duration_s: float) -> None:
        job = self._job_label(client_job)
        self._request_s.labels(endpoint, job).observe(duration_s)
        self._requests.labels(endpoint, job, str(status)).inc()

    def _count_encoded(self, model: str, tokenize_s: float, truncated: int) -> None:
        self._tokenize_s.labels(model).observe(tokenize_s)
        self._truncated.labels(model).inc(truncated)

    def _count_batch(self, report: BatchReport) -> None:
        model = report.model
        self._inference_s.labels(model).observe(report.inference_s)
        self._batch_items.labels(model).observe(report.items)
        self._batch_tokens.labels(model).observe(report.padded_tokens)
        self._tokens.labels(model, "real").inc(report.real_tokens)
        self._tokens.labels(model, "padding").inc(report.padded_tokens - report.real_tokens)
        for job, padded_tokens in report.jobs:
            self._job_tokens.labels(model, self._job_label(job)).inc(padded_tokens)
        queue_s = self._queue_s.labels(model)
        for waited_s in report.queue_s:
            queue_s.observe(waited_s)
        for head, values in report.scores:
            self._count_scores(head, values)

    def _count_scores(self, model: str, values: Iterable[float]) -> None:
        score, squares = self._score.labels(model), self._score_squares.labels(model)
        positive, negative = (self._score_magnitude.labels(model, sign) for sign in ("positive", "negative"))
        for value in values:
            score.observe(value)
            squares.inc(value * value)
            (negative if value < 0 else positive).inc(abs(value))

    def _job_label(self, client_job: str) -> str:
        if not client_job:
            return NO_JOB
        shown = client_job[:MAX_JOB_LABEL_CHARS]
        label = shown if shown.isprintable() else "".join(c if c.isprintable() else UNPRINTABLE for c in shown)
        if label not in self._jobs:
            if len(self._jobs) >= self._max_client_jobs:
                return OTHER_JOBS
            self._jobs.add(label)
        return label


class _Beforehand(Collector):
    """Is asked for metrics before all others, and has none itself.

    Args:
        do: What is done then.
    """

    def __init__(self, do: Callable[[], None]) -> None:
        self._do = do

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        self._do()
        return ()

    def describe(self) -> Iterable[Metric]:
        """None, so that nothing is counted when this is registered."""
        return ()
