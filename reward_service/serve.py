"""Wires the service: settings to store, runtimes, workers, scorer and app.

Runtimes are imported when a model needs them, so that serving on ONNX Runtime loads neither torch nor transformers.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from reward_service.config import Batching, Limits, ModelSettings, Precision, Runtime, ServiceSettings
from reward_service.core.backend import Backend
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.core.scorer import Scorer, ServedModel
from reward_service.core.token_queue import TokenQueue
from reward_service.core.worker import Entry, Telemetry, Worker
from reward_service.domain import ModelCard
from reward_service.errors import StoreError
from reward_service.registry.store import Published, Store
from reward_service.web.app import create_app
from reward_service.web.metrics import Metrics
from reward_service.web.server import run

logger = logging.getLogger(__name__)


def serve(settings: ServiceSettings) -> None:
    """Load every model, then serve until a signal.

    Raises:
        StoreError: A model is missing, changed or refused, or its runtime cannot be used.
        ModelFailedError: A model does not run.
        OSError: The address cannot be bound.
    """
    limits = settings.limits
    metrics = Metrics(CollectorRegistry(), limits.max_client_jobs)
    store = Store(settings.store)
    models = [load_model(store, model, limits, settings.batching, metrics) for model in settings.models]
    scorer = make_scorer(models, limits, settings.batching, metrics)
    app = create_app(scorer, metrics, max_items=limits.max_items, max_body_bytes=limits.max_body_bytes)
    for model in models:
        model.worker.start()
    drain = settings.drain
    run(app, scorer, settings.host, settings.port, grace_s=drain.grace_s, timeout_s=drain.timeout_s)


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of a service, whatever its models."""
    limits = Limits()
    metrics = Metrics(CollectorRegistry(), limits.max_client_jobs)
    scorer = make_scorer([], limits, Batching(), metrics)
    return create_app(scorer, metrics, max_items=limits.max_items, max_body_bytes=limits.max_body_bytes).openapi()


def make_scorer(models: Sequence[ServedModel], limits: Limits, batching: Batching, telemetry: Telemetry) -> Scorer:
    """The scorer of loaded models."""
    return Scorer(
        models,
        max_queue_items=limits.max_queue_items,
        encode_threads=batching.encode_threads,
        telemetry=telemetry,
    )


def load_model(
    store: Store, wanted: ModelSettings, limits: Limits, batching: Batching, telemetry: Telemetry
) -> ServedModel:
    """Load and warm one model; its worker is not started.

    Raises:
        StoreError: It is missing, changed or refused, or its runtime cannot be used.
        ModelFailedError: It does not run.
    """
    begin_s = time.monotonic()
    published = store.resolve(wanted.name)
    manifest = published.manifest
    try:
        backend = _load_backend(published, wanted, batching.threads)
        encoder = InputEncoder(
            published.load_tokenizer(),
            InputSpec(manifest.template, manifest.kind, manifest.max_tokens, manifest.cut_field),
        )
    except (ValueError, ImportError) as error:
        raise StoreError(f"{published.name}@{published.version}: {error}") from error
    queue: TokenQueue[Entry] = TokenQueue(
        max_items=limits.max_queue_items,
        max_tokens=limits.max_queue_tokens,
        max_batch_tokens=batching.max_batch_tokens,
        max_padding=batching.max_padding,
    )
    worker = Worker(published.name, backend, manifest.head, encoder.pad_id, queue, telemetry)
    worker.warm_up()
    logger.info(
        "loaded %s@%s on %s in %.1f s",
        published.name,
        published.version,
        backend.runtime,
        time.monotonic() - begin_s,
    )
    return ServedModel(_card(published, backend.runtime), encoder, worker)


def _card(published: Published, runtime: str) -> ModelCard:
    manifest = published.manifest
    calibration = manifest.calibration
    return ModelCard(
        name=published.name,
        version=published.version,
        digest=published.digest,
        aliases=published.aliases,
        head=manifest.head,
        granularity=manifest.granularity,
        language=manifest.segmenter.language,
        template=manifest.template,
        max_tokens=manifest.max_tokens,
        runtime=runtime,
        calibration=None if calibration is None else (calibration.mean, calibration.std),
    )


def _load_backend(published: Published, wanted: ModelSettings, threads: int) -> Backend:
    if _choose_runtime(published, wanted) is Runtime.ONNXRUNTIME:
        from reward_service.backends.onnx_backend import OnnxBackend

        path: Path = published.onnx_path(wanted.precision)
        return OnnxBackend(path, threads=threads, device=wanted.device, precision=wanted.precision)
    from reward_service.backends.torch_backend import TorchBackend

    kind = published.manifest.kind
    return TorchBackend(published.path, kind, threads=threads, device=wanted.device, precision=wanted.precision)


def _choose_runtime(published: Published, wanted: ModelSettings) -> Runtime:
    if wanted.runtime is not Runtime.AUTO:
        return wanted.runtime
    is_exported = published.export_path(f"onnxruntime-{wanted.precision}").is_dir()
    return Runtime.ONNXRUNTIME if is_exported or wanted.precision is Precision.INT8 else Runtime.TORCH
