"""Sends a load to a running service and notes what comes back. It never sends faster than the service asks for."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import httpx
from pydantic import ValidationError

from reward_proto.errors import ErrorReply
from reward_proto.models import ModelList
from reward_proto.score import ScoreItem, ScoreReply, ScoreRequest
from reward_service.bench.plan import Plan
from reward_service.errors import ConfigError

CLIENT_JOB_HEADER = "X-Client-Job"
GRACE_S = 10.0
"""How much longer than its deadline a reply is waited for."""

MAX_PAUSE_S = 30.0
FAULT_PAUSE_S = 0.5
"""After a connection that failed, so that a service which is gone is not hammered."""

BAD_REPLY = "bad_reply"
"""Counted for a reply that is not what the contract says."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes:
        job: Who sent it.
        latency_s: From sending to the last byte.
        code: The error of the whole request; None if it was answered.
        scores: Scores that came.
        cached: Of them, those that were computed before.
        failed: Scores that did not come, by their error's code.
        items: Items with every score that was asked for.
        input_tokens: As the service says.
        padded_tokens: The same.
    """

    job: str
    latency_s: float
    code: str | None = None
    scores: int = 0
    cached: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    items: int = 0
    input_tokens: int = 0
    padded_tokens: int = 0


@dataclass(slots=True)
class Run:
    """A load as it goes on.

    Attributes:
        answers: What became of each request, in the order of the replies.
        elapsed_s: How long the clients have been at work.
        stopped: Set to end it early; requests under way are dropped.
    """

    answers: list[Answer] = field(default_factory=list)
    elapsed_s: float = 0.0
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


async def check_service(http: httpx.AsyncClient, models: Sequence[str] | None) -> list[str]:
    """Ask what is served before anything is sent.

    Returns:
        The names of the served models.

    Raises:
        ConfigError: The service does not answer, or does not serve a model.
    """
    try:
        reply = await http.get("/v1/models")
        reply.raise_for_status()
        served = [model.name for model in ModelList.model_validate_json(reply.content).models]
    except (httpx.HTTPError, ValidationError) as error:
        raise ConfigError("--url", [f"{http.base_url} gives no list of models: {error}"]) from error
    unknown = [name for name in models or () if name.partition("@")[0] not in served]
    if unknown:
        raise ConfigError("--models", [f"{name} is not served; there is {', '.join(served)}" for name in unknown])
    return served


async def send_load(
    connect: Callable[[], httpx.AsyncClient],
    items: Sequence[ScoreItem],
    plan: Plan,
    run: Run,
    on_answer: Callable[[Answer], None],
) -> None:
    """Send the plan's load; the run fills as it goes.

    Args:
        connect: Makes each client its own connection. One pool for all looks through all its connections whenever a
            request begins or ends, which with tens of them takes longer than to send it.
        items: Sent in turn, again and again.
        plan: What to send, and until when.
        run: Where the answers go.
        on_answer: Is told of each.
    """
    requests = _requests(items, plan)
    begin_s = time.monotonic()

    async def one_client(job: str) -> None:
        headers = {CLIENT_JOB_HEADER: job} if job else {}
        async with connect() as http:
            for body in requests:
                answer, pause_s = await _ask(http, job, body, headers, plan.timeout_s + GRACE_S)
                run.answers.append(answer)
                on_answer(answer)
                if pause_s:
                    await asyncio.sleep(pause_s)

    clients = [asyncio.create_task(one_client(job)) for job, number in plan.clients.items() for _ in range(number)]
    stop = asyncio.create_task(run.stopped.wait())
    try:
        async with asyncio.timeout(plan.duration_s):
            await _first_of(stop, clients)
    except TimeoutError:
        pass  # As planned.
    finally:
        run.elapsed_s = time.monotonic() - begin_s
        for task in (stop, *clients):
            task.cancel()
        await asyncio.gather(stop, *clients, return_exceptions=True)


async def _first_of(stop: "asyncio.Task[bool]", clients: "Sequence[asyncio.Task[None]]") -> None:
    """Wait until it is stopped, every client is done, or one has met a fault of this program, which is raised."""
    waiting: set[asyncio.Task[None]] = set(clients)
    while waiting and not stop.done():
        ended, _ = await asyncio.wait([stop, *waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in waiting & ended:
            task.result()
        waiting -= ended


def _requests(items: Sequence[ScoreItem], plan: Plan) -> Iterator[bytes]:
    """Bodies without end, or as many as the plan says."""
    models = None if plan.models is None else list(plan.models)
    for number in count() if plan.requests is None else range(plan.requests):
        first = number * plan.items
        chosen = [items[(first + place) % len(items)] for place in range(plan.items)]
        if plan.is_unique:
            chosen = [
                item.model_copy(update={"response": f"{item.response} {first + place}"})
                for place, item in enumerate(chosen)
            ]
        request = ScoreRequest(
            # Their places in the request are names enough.
            items=[item.model_copy(update={"id": None}) for item in chosen],
            models=models,
            timeout_s=plan.timeout_s,
        )
        yield request.model_dump_json(exclude_none=True).encode()


async def _ask(
    http: httpx.AsyncClient, job: str, body: bytes, headers: dict[str, str], timeout_s: float
) -> tuple[Answer, float]:
    """Send one request; returns how long to wait before the next one."""
    begin_s = time.monotonic()
    try:
        reply = await http.post("/v1/score", content=body, headers=headers, timeout=timeout_s)
    except httpx.HTTPError as error:
        return Answer(job, time.monotonic() - begin_s, type(error).__name__), FAULT_PAUSE_S
    latency_s = time.monotonic() - begin_s
    if reply.status_code != httpx.codes.OK:
        return Answer(job, latency_s, _code(reply)), _pause_s(reply)
    try:
        return _answer(job, latency_s, ScoreReply.model_validate_json(reply.content)), 0.0
    except ValidationError:
        return Answer(job, latency_s, BAD_REPLY), FAULT_PAUSE_S


def _answer(job: str, latency_s: float, reply: ScoreReply) -> Answer:
    scores = [score for result in reply.results for score in result.scores.values()]
    errors = [score.error.code for score in scores if score.error is not None]
    return Answer(
        job=job,
        latency_s=latency_s,
        scores=len(scores) - len(errors),
        cached=sum(score.cached for score in scores),
        failed=Counter(str(code) for code in errors),
        items=sum(all(score.error is None for score in result.scores.values()) for result in reply.results),
        input_tokens=reply.usage.input_tokens,
        padded_tokens=reply.usage.padded_tokens,
    )


def _code(reply: httpx.Response) -> str:
    try:
        return str(ErrorReply.model_validate_json(reply.content).error.code)
    except ValidationError:
        return f"http_{reply.status_code}"


def _pause_s(reply: httpx.Response) -> float:
    """What the service asks for; nothing after an error that it can answer again at once."""
    try:
        return min(float(reply.headers["Retry-After"]), MAX_PAUSE_S)
    except (KeyError, ValueError):
        return 0.0
