"""Wires the service: settings to store, runtimes, workers, scorer and app.

Runtimes are imported when a model needs them, so that serving on ONNX Runtime loads neither torch nor transformers.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from reward_service.annotating import opened_annotations
from reward_service.annotation.store import AnnotationStore
from reward_service.cache.cached_source import CachedSource
from reward_service.cache.key import KeyMaker
from reward_service.cache.score_cache import ScoreCache
from reward_service.caching import computation_of, opened_cache
from reward_service.config import AnyModelSettings, Batching, Limits, ModelSettings, ServiceSettings
from reward_service.core.encode import InputEncoder
from reward_service.core.encoder_source import EncoderSource
from reward_service.core.fair_share import JobPolicies
from reward_service.core.quotas import Quotas
from reward_service.core.scorer import Scorer
from reward_service.core.source import ScoreSource
from reward_service.core.submission import Entry as Waiting
from reward_service.core.telemetry import Telemetry
from reward_service.core.template import template_fields
from reward_service.core.token_queue import TokenQueue
from reward_service.core.worker import Worker
from reward_service.errors import ConfigError, StoreError
from reward_service.key_file import read_keys
from reward_service.ledger.answer import Ledger
from reward_service.ledgering import opened_ledger
from reward_service.lineup import Entry, Lineup
from reward_service.registry.cards import make_cards
from reward_service.registry.manifest import Scoring
from reward_service.registry.store import Store
from reward_service.reload import Reload
from reward_service.runtimes.replicas import load_divisions
from reward_service.sources import by_prefix_difference, text_sources
from reward_service.tracing import start_tracing
from reward_service.web.access import Access
from reward_service.web.annotate.routes import make_annotate_router
from reward_service.web.app import create_app
from reward_service.web.arrival import BodyArrival, protocol_within
from reward_service.web.cache_metrics import CacheMetrics
from reward_service.web.ledger_metrics import LedgerMetrics
from reward_service.web.metrics import Metrics
from reward_service.web.server import run

logger = logging.getLogger(__name__)


def serve(settings: ServiceSettings, reread: Callable[[], ServiceSettings] | None = None) -> None:
    """Load every model, then serve until a signal.

    Args:
        settings: What to serve, and how.
        reread: Reads the settings again at a SIGHUP; None leaves the signal alone.

    Raises:
        ConfigError: A key, a function, a package, a model or a folder that the settings name is not there.
        StoreError: A model is missing, changed or refused, or its runtime cannot be used.
        ModelFailedError: A model does not run.
        OSError: The address cannot be bound.
    """
    if reread is not None:
        signal.signal(signal.SIGHUP, lambda *_: logger.warning("SIGHUP: still loading, ignored"))
    metrics = Metrics(CollectorRegistry(), settings.limits.max_client_jobs)
    with (
        opened_cache(settings.cache, CacheMetrics(metrics.registry)) as cache,
        opened_ledger(settings.ledger, lambda: LedgerMetrics(metrics.registry)) as ledger,
        opened_annotations(settings.annotate) as annotations,
    ):
        _serve(settings, reread, metrics, cache, ledger, annotations)


def _serve(
    settings: ServiceSettings,
    reread: Callable[[], ServiceSettings] | None,
    metrics: Metrics,
    cache: ScoreCache | None,
    ledger: Ledger | None,
    annotations: AnnotationStore | None,
) -> None:
    limits = settings.limits
    access = make_access(settings)
    tracer = start_tracing(settings.tracing)
    metrics.show_limits(limits.max_queue_items, limits.max_queue_tokens)
    policies = settings.fairness.make_policies()
    store = Store(settings.store)
    pool = make_pool(settings.batching)
    make_texts = partial(
        text_sources, max_queue_items=limits.max_queue_items, telemetry=metrics, cache=cache, policies=policies
    )
    texts = make_texts(settings.models)

    def build(model: AnyModelSettings) -> ScoreSource:
        if isinstance(model, ModelSettings):
            return load_source(store, model, limits, settings.batching, pool, metrics, policies, cache)
        return make_texts([model])[0]

    def check(served: Sequence[ScoreSource]) -> None:
        check_names(served, settings.compat.weights)

    entries = [Entry(model, texts.get(index) or build(model)) for index, model in enumerate(settings.models)]
    sources = [entry.source for entry in entries]
    check(sources)
    scorer = Scorer(sources, pool, Quotas(policies))
    lineup = Lineup(scorer, entries, store, build, check, metrics)
    app = create_app(
        scorer,
        metrics,
        max_items=limits.max_items,
        max_body_bytes=limits.max_body_bytes,
        compat=settings.compat,
        access=access,
        ui=settings.ui,
        annotate=make_annotate_router(annotations, settings.annotate, limits.max_body_bytes),
        lineup=lineup,
        tracer=tracer,
        ledger=ledger,
    )
    app.add_middleware(
        BodyArrival,
        timeout_s=limits.receive_timeout_s,
        max_bytes=limits.max_body_bytes,
        max_pending_bytes=limits.max_pending_bytes,
    )
    for source in sources:
        source.start()
    drain = settings.drain
    reload = None if reread is None else Reload(settings, reread, access, policies, lineup)
    try:
        run(
            app,
            scorer,
            settings.host,
            settings.port,
            protocol_within(limits.receive_timeout_s),
            grace_s=drain.grace_s,
            timeout_s=drain.timeout_s,
            reload=reload,
        )
    finally:
        if tracer is not None:
            tracer.close()


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of a service, whatever its models."""
    limits = Limits()
    metrics = Metrics(CollectorRegistry(), limits.max_client_jobs)
    scorer = Scorer([], make_pool(Batching()))
    return create_app(scorer, metrics, max_items=limits.max_items, max_body_bytes=limits.max_body_bytes).openapi()


def make_pool(batching: Batching) -> ThreadPoolExecutor:
    """The threads that segment and tokenize."""
    return ThreadPoolExecutor(batching.encode_threads, thread_name_prefix="encode")


def make_access(settings: ServiceSettings) -> Access:
    """Who may call.

    Raises:
        ConfigError: The file of keys cannot be read or has faults.
    """
    auth = settings.auth
    return Access(None if auth.keys is None else read_keys(auth.keys), open_metrics=auth.open_metrics)


def check_names(sources: Sequence[ScoreSource], weights: Iterable[str] = ()) -> None:
    """Check the names of models where all are known: a network's heads bring names that the settings do not show.

    Args:
        sources: What is served.
        weights: Names that `compat.weights` gives.

    Raises:
        ConfigError: A name is served twice, or has a weight and is not served.
    """
    names = [card.name for source in sources for card in source.cards]
    twice = sorted({name for name in names if names.count(name) > 1})
    unknown = sorted(set(weights) - set(names))
    faults = [f"models: {name} is served twice" for name in twice]
    faults += [f"compat.weights: {name} is not served; there is {', '.join(names)}" for name in unknown]
    if faults:
        raise ConfigError("settings", faults)


def load_source(
    store: Store,
    wanted: ModelSettings,
    limits: Limits,
    batching: Batching,
    pool: Executor,
    telemetry: Telemetry,
    policies: JobPolicies | None = None,
    cache: ScoreCache | None = None,
) -> ScoreSource:
    """Load and warm one model of the store; its worker is not started.

    Raises:
        StoreError: It is missing, changed or refused, or its runtime cannot be used.
        ModelFailedError: It does not run.
    """
    begin_s = time.monotonic()
    published = store.resolve(wanted.name)
    manifest = published.manifest
    try:
        divisions = load_divisions(published, wanted, batching)
        encoder = InputEncoder(published.load_tokenizer(), manifest.input_spec)
        queue: TokenQueue[Waiting] = TokenQueue(
            max_items=limits.max_queue_items,
            max_tokens=limits.max_queue_tokens,
            max_batch_tokens=batching.max_batch_tokens,
            max_padding=batching.max_padding,
            policies=policies,
        )
        worker = Worker(
            published.name,
            divisions,
            manifest.logit_heads,
            encoder.pad_id,
            queue,
            telemetry,
            shares_cores=set(wanted.all_devices) == {"cpu"},
        )
    except (ValueError, ImportError, RuntimeError) as error:
        raise StoreError(f"{published.name}@{published.version}: {error}") from error
    worker.warm_up()
    logger.info(
        "loaded %s@%s on %s in %.1f s",
        published.name,
        published.version,
        divisions[0].runtime,
        time.monotonic() - begin_s,
    )
    cards = make_cards(published, divisions[0].runtime)
    source: ScoreSource = EncoderSource(
        cards,
        encoder,
        worker,
        pool=pool,
        telemetry=telemetry,
    )
    if cache is not None and wanted.cache:
        computation = computation_of(published, divisions[0].runtime, wanted.all_devices)
        source = CachedSource(source, cache, KeyMaker(cards, computation, template_fields(manifest.template)))
    if manifest.scoring is Scoring.PREFIX_DIFFERENCE:
        return by_prefix_difference(source, manifest.granularity)
    return source
