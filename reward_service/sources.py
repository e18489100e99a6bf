"""Settings of rewards that are not encoders -> what serves them. Nothing here calls a remote service."""

import hashlib
import importlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.cache.cached_source import CachedSource
from reward_service.cache.key import KeyMaker
from reward_service.cache.score_cache import ScoreCache
from reward_service.config import AnyModelSettings, ModelSettings, read_key
from reward_service.core.fair_share import JobPolicies
from reward_service.core.prefix_difference import PrefixDifferenceSource
from reward_service.core.segmenter_version import segmenter_version
from reward_service.core.source import ScoreSource
from reward_service.core.telemetry import Telemetry
from reward_service.core.text_reward import TextReward
from reward_service.core.text_source import TextSource
from reward_service.domain import Head, ModelCard
from reward_service.errors import ConfigError
from reward_service.text_rewards.settings import (
    ApiSettings,
    CallableSettings,
    JudgeSettings,
    PerspectiveSettings,
    TextSettings,
)

logger = logging.getLogger(__name__)

RULES_VERSION = "text-rewards-1"
"""Part of every version here. Raise it with any change of code that changes a score."""

VERSION_CHARS = 12
NO_TOKEN_LIMIT = 0
"""`max_tokens` of a model that counts no tokens."""

EXTRA = "pip install 'fine-grained-rlhf[text-rewards]'"


def text_sources(
    models: Sequence[AnyModelSettings],
    *,
    max_queue_items: int,
    telemetry: Telemetry,
    cache: ScoreCache | None = None,
    policies: JobPolicies | None = None,
) -> dict[int, ScoreSource]:
    """The sources of the entries that are not the store's, by their index in `models`; none is started.

    Raises:
        ConfigError: With every entry whose key, function or package is not there.
    """
    made: dict[int, ScoreSource] = {}
    faults: list[str] = []
    for index, wanted in enumerate(models):
        if isinstance(wanted, ModelSettings):
            continue
        try:
            made[index] = _source(wanted, max_queue_items, telemetry, cache, policies)
        except _EntryError as error:
            faults.append(f"models[{index}]{error}")
    if faults:
        raise ConfigError("settings", faults)
    for source in made.values():
        for card in source.cards:
            logger.info("set up %s@%s on %s", card.name, card.version, card.runtime)
    return made


def by_prefix_difference(inner: ScoreSource, granularity: Granularity) -> PrefixDifferenceSource:
    """Serve a classifier of whole texts as one of their parts.

    Args:
        inner: Its one model's score is 1 - toxicity of a whole text.
        granularity: Of the parts.
    """
    (card,) = inner.cards
    head = Head(ModelKind.SEQUENCE_REGRESSION)
    return PrefixDifferenceSource(replace(card, head=head, granularity=granularity), inner)


class _EntryError(Exception):
    """What is wrong with an entry, after the place in it: `.key_env: ...`."""


def _source(
    wanted: TextSettings,
    max_queue_items: int,
    telemetry: Telemetry,
    cache: ScoreCache | None,
    policies: JobPolicies | None,
) -> ScoreSource:
    identity = wanted.model_dump(mode="json", exclude=set(wanted.UNVERSIONED))
    if isinstance(wanted, CallableSettings):
        card, reward = _callable(wanted, identity)
    elif isinstance(wanted, JudgeSettings):
        card, reward = _judge(wanted, identity)
    elif isinstance(wanted, PerspectiveSettings):
        card, reward = _perspective(wanted, identity)
    else:
        raise TypeError(f"no source for {type(wanted).__name__}")
    batch_items = wanted.batch_items if isinstance(wanted, CallableSettings) else 1
    source: ScoreSource = TextSource(
        card,
        reward,
        concurrency=wanted.concurrency,
        batch_items=batch_items,
        max_queue_items=max_queue_items,
        telemetry=telemetry,
        policies=policies,
    )
    if cache is not None and wanted.cache:
        # The Perspective API gets the response alone.
        reads = () if isinstance(wanted, PerspectiveSettings) else None
        # Call by call, so that what a quota has granted is kept even when the caller leaves.
        source = CachedSource(source, cache, KeyMaker([card], reads=reads), items_per_call=batch_items)
    if isinstance(wanted, PerspectiveSettings) and wanted.scoring == "prefix_difference":
        return by_prefix_difference(source, Granularity.SENTENCE)
    return source


def _perspective(wanted: PerspectiveSettings, identity: dict[str, Any]) -> tuple[ModelCard, TextReward]:
    _need_clients()
    from reward_service.text_rewards.perspective import LABELS, OK_LABEL, PerspectiveReward

    head = Head(ModelKind.SEQUENCE_CLASSIFICATION, LABELS, OK_LABEL)
    card = _card(wanted, identity, head, Granularity.SEQUENCE, "perspective")
    return card, PerspectiveReward(wanted, _key_of(wanted))


def _judge(wanted: JudgeSettings, identity: dict[str, Any]) -> tuple[ModelCard, TextReward]:
    _need_clients()
    from reward_service.text_rewards.judge import JudgeReward, reply_form, system_message

    asked = {"system": system_message(wanted), "form": reply_form(wanted)}
    head = Head(_classifier_of(wanted.granularity), tuple(wanted.labels), wanted.ok_label)
    card = _card(wanted, identity | asked, head, wanted.granularity, f"openai-chat/{wanted.model}")
    return card, JudgeReward(wanted, _key_of(wanted))


def _callable(wanted: CallableSettings, identity: dict[str, Any]) -> tuple[ModelCard, TextReward]:
    from reward_service.text_rewards.callable_reward import LABELS, OK_LABEL, CallableReward, load_function, provenance

    try:
        function = load_function(wanted.function)
    except ValueError as error:
        raise _EntryError(f".function: {error}") from error
    try:
        code = provenance(wanted.function, wanted.packages)
    except ValueError as error:
        raise _EntryError(f".packages: {error}") from error
    if wanted.kind == "classifier":
        head = Head(_classifier_of(wanted.granularity), LABELS, OK_LABEL)
    else:
        head = Head(ModelKind.SEQUENCE_REGRESSION)
    return _card(wanted, identity | {"code": code}, head, wanted.granularity, "python"), CallableReward(
        function, wanted
    )


def _classifier_of(granularity: Granularity) -> ModelKind:
    is_whole = granularity is Granularity.SEQUENCE
    return ModelKind.SEQUENCE_CLASSIFICATION if is_whole else ModelKind.TOKEN_CLASSIFICATION


def _card(
    wanted: TextSettings, identity: Mapping[str, Any], head: Head, granularity: Granularity, runtime: str
) -> ModelCard:
    told = {"rules": RULES_VERSION, "segmenter": segmenter_version(wanted.language), **identity}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return ModelCard(
        name=wanted.name,
        version=digest[:VERSION_CHARS],
        digest=digest,
        aliases=(),
        head=head,
        granularity=granularity,
        language=wanted.language,
        template="",
        max_tokens=NO_TOKEN_LIMIT,
        runtime=runtime,
    )


def _key_of(wanted: ApiSettings) -> str | None:
    if wanted.key_env is None:
        return None
    try:
        return read_key(wanted.key_env)
    except ValueError as error:
        raise _EntryError(f".key_env: {error}") from error


def _need_clients() -> None:
    """Tell which extra is missing, before the modules that need it are imported."""
    for module in ("aiolimiter", "httpx", "stamina"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise _EntryError(f": source needs {module}, which is not installed: {EXTRA}") from error
    logging.getLogger("httpx").setLevel(logging.WARNING)  # It would log each request.
