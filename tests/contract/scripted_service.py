"""A real app on a backend whose scores can be told by hand from the text. Run as a script it serves on the given port.

Byte-level tokens: a printable ASCII character c has the id `ord(c) - 29`.
- relevance (sentences, needs the field `question`): P(ok) = sigmoid(id of the segment's first character / 50).
- length (the whole response): the number of tokens of the input, template and special tokens included.
A segment that begins with one of TRIGGERS makes the backend raise, give NaN, or take its time.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from reward_proto import Granularity, ModelKind
from reward_service.config import Limits
from reward_service.core.division import Division
from reward_service.core.encode import InputEncoder, InputSpec
from reward_service.core.encoder_source import EncoderSource
from reward_service.core.scorer import Scorer
from reward_service.core.token_queue import TokenQueue
from reward_service.core.worker import Worker
from reward_service.domain import Batch, Head, ModelCard
from reward_service.web.app import create_app
from reward_service.web.metrics import Metrics
from reward_service.web.server import run

RAISES, GIVES_NAN, IS_SLOW = "~", "|", "^"
SLOW_S = 0.4
ID_OFFSET = 29
MAX_TOKENS = 2000
LIMITS = Limits(max_items=64, max_body_bytes=200_000, max_queue_items=512)
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
VERSIONS = {"relevance": "aaaaaaaaaaaa", "length": "bbbbbbbbbbbb"}
TEMPLATES = {"relevance": "{question}:", "length": ""}


class TextBackend:
    """Logits from the text itself."""

    runtime = "scripted-fp32"

    def __init__(self, head: Head) -> None:
        self._head = head

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Compute logits; see `core.backend.Backend`."""
        ids = batch.input_ids
        if (ids == ord(RAISES) - ID_OFFSET).any():
            raise RuntimeError("scripted")
        time.sleep(SLOW_S * int((ids == ord(IS_SLOW) - ID_OFFSET).sum(axis=1).max()))
        if self._head.kind is ModelKind.TOKEN_CLASSIFICATION:
            # A separator is followed by a space and the segment's first character.
            ahead = np.concatenate([ids[:, 2:], np.zeros_like(ids[:, :2])], axis=1)
            logits = np.stack([ahead / 50, np.zeros(ids.shape)], axis=-1)
        else:
            logits = batch.attention_mask.sum(axis=1, keepdims=True).astype(np.float64)
        has_nan = (ids == ord(GIVES_NAN) - ID_OFFSET).any(axis=1)
        logits[has_nan] = np.nan
        return logits.astype(np.float32)

    def close(self) -> None:
        """Nothing to free."""


def make_app() -> tuple[FastAPI, Scorer]:
    """The app with both models loaded and their workers running."""
    metrics = Metrics(CollectorRegistry(), LIMITS.max_client_jobs)
    classifier = Head(ModelKind.TOKEN_CLASSIFICATION, ("ok", "error"), "ok")
    pool = ThreadPoolExecutor(2)
    sources = [
        _source("relevance", classifier, Granularity.SENTENCE, metrics, pool),
        _source("length", Head(ModelKind.SEQUENCE_REGRESSION), Granularity.SEQUENCE, metrics, pool),
    ]
    scorer = Scorer(sources, pool)
    app = create_app(scorer, metrics, max_items=LIMITS.max_items, max_body_bytes=LIMITS.max_body_bytes)
    for source in sources:
        source.start()
    return app, scorer


def _source(
    name: str, head: Head, granularity: Granularity, metrics: Metrics, pool: ThreadPoolExecutor
) -> EncoderSource:
    encoder = InputEncoder(_byte_tokenizer(), InputSpec(TEMPLATES[name], (head.kind,), MAX_TOKENS))
    queue = TokenQueue(
        max_items=LIMITS.max_queue_items, max_tokens=LIMITS.max_queue_tokens, max_batch_tokens=4096, max_padding=0.2
    )
    backend = TextBackend(head)
    card = ModelCard(
        name=name,
        version=VERSIONS[name],
        digest=VERSIONS[name] * 4,
        aliases=("latest",),
        head=head,
        granularity=granularity,
        language="en",
        template=TEMPLATES[name],
        max_tokens=MAX_TOKENS,
        runtime=backend.runtime,
        calibration=(0.5, 0.25),
    )
    worker = Worker(name, [Division(backend)], [head], encoder.pad_id, queue, metrics)
    return EncoderSource([card], encoder, worker, pool=pool, telemetry=metrics)


def _byte_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate([*SPECIAL, *alphabet])}, [], unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


if __name__ == "__main__":
    application, its_scorer = make_app()
    run(application, its_scorer, "127.0.0.1", int(sys.argv[1]), grace_s=0.1, timeout_s=10.0)
