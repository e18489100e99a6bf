"""The endpoints of existing trainers: each reads its own request, all get their numbers from one combiner."""

from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, TypeAdapter

from reward_proto.errors import HTTP_STATUS, ErrorCode, ErrorReply
from reward_service.compat_settings import Compat
from reward_service.core.scorer import Scorer
from reward_service.ledger.answer import Ledger
from reward_service.web.body import read_body
from reward_service.web.compat import classify, llama_factory, openrlhf, slime, tei
from reward_service.web.compat.combine import Combiner, Rewards
from reward_service.web.compat.error_shapes import CLASSIFY_PATH, PREDICT_PATH
from reward_service.web.compat.texts import Sample
from reward_service.web.convert import server_timing
from reward_service.web.documented import JSON, body_of, errors_of

BODIES: tuple[type[BaseModel], ...] = (
    openrlhf.OpenRlhfRequest,
    classify.ClassifyRequest,
    tei.PredictRequest,
    slime.RmRequest,
    llama_factory.RewardsRequest,
)
"""What the routes parse themselves, for the OpenAPI document."""

TAG = "protocols of existing trainers"
PREDICTIONS = TypeAdapter(list[tei.Prediction] | list[list[tei.Prediction]])

B = TypeVar("B", bound=BaseModel)


def add_compat_routes(
    router: APIRouter,
    scorer: Scorer,
    settings: Compat,
    ledger: Ledger | None = None,
    *,
    max_items: int,
    max_body_bytes: int,
) -> None:
    """Register every endpoint of another trainer's or server's protocol on a router of `BareRoute`s."""
    combiner = Combiner(scorer, settings, max_items, ledger)

    async def parse(request: Request, schema: type[B]) -> B:
        return schema.model_validate_json(await read_body(request, max_body_bytes), strict=True)

    async def score(request: Request, samples: Sequence[Sample], field: str) -> Rewards:
        return await combiner.score(request, samples, [f"{field}.{index}" for index in range(len(samples))])

    @router.post("/get_reward", response_model=openrlhf.OpenRlhfReply, **_documented(openrlhf.OpenRlhfRequest))
    async def get_reward(request: Request) -> Response:
        """OpenRLHF's remote reward model."""
        wanted = await parse(request, openrlhf.OpenRlhfRequest)
        rewards = await score(request, openrlhf.to_samples(wanted, settings), "query")
        return _reply(openrlhf.to_reply(rewards).model_dump_json(), rewards)

    @router.post(
        CLASSIFY_PATH,
        response_model=classify.ClassifyReply,
        **_documented(classify.ClassifyRequest, classify.ClassifyErrorReply, HTTP_STATUS[ErrorCode.RATE_LIMITED]),
    )
    async def classify_texts(request: Request) -> Response:
        """The classification API of vLLM, as verl asks it for rewards."""
        wanted = await parse(request, classify.ClassifyRequest)
        rewards = await score(request, classify.to_samples(wanted, settings), "input")
        return _reply(classify.to_reply(wanted, rewards, request.state.request_id).model_dump_json(), rewards)

    @router.post(
        PREDICT_PATH,
        response_model=list[tei.Prediction] | list[list[tei.Prediction]],
        **_documented(tei.PredictRequest, tei.PredictErrorReply),
    )
    async def predict(request: Request) -> Response:
        """Text Embeddings Inference's sequence classification."""
        wanted = await parse(request, tei.PredictRequest)
        rewards = await score(request, tei.to_samples(wanted, settings), "inputs")
        return _reply(PREDICTIONS.dump_json(tei.to_reply(wanted, rewards)), rewards)

    @router.post("/rm", response_model=float, **_documented(slime.RmRequest))
    async def rm(request: Request) -> Response:
        """The remote reward model of slime."""
        wanted = await parse(request, slime.RmRequest)
        rewards = await combiner.score(request, [slime.to_sample(wanted)], ["response"])
        return _reply(repr(rewards.values[0]), rewards)

    @router.post("/v1/rewards", response_model=llama_factory.RewardsReply, **_documented(llama_factory.RewardsRequest))
    async def rewards_of_messages(request: Request) -> Response:
        """The reward server of LLaMA-Factory."""
        wanted = await parse(request, llama_factory.RewardsRequest)
        rewards = await score(request, llama_factory.to_samples(wanted, settings), "messages")
        return _reply(llama_factory.RewardsReply(scores=rewards.values).model_dump_json(), rewards)


def _reply(content: str | bytes, rewards: Rewards) -> Response:
    headers = {} if rewards.outcome is None else {"Server-Timing": server_timing(rewards.outcome)}
    return Response(content, media_type=JSON, headers=headers)


def _documented(body: type[BaseModel], error: type[BaseModel] = ErrorReply, *unused_statuses: int) -> dict[str, Any]:
    """What FastAPI cannot see: the body, and which errors there are, in which shape."""
    codes = (code for code in ErrorCode if HTTP_STATUS[code] not in unused_statuses)
    return {"responses": errors_of(*codes, error=error), "tags": [TAG], "openapi_extra": body_of(body)}
