"""The endpoints: read, validate, hand to the scorer, answer.

Bodies are parsed from bytes and written to bytes by pydantic itself, which is several times faster than FastAPI's
own path through dicts; `web.app` adds the bodies' schemas to the OpenAPI document.
"""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from reward_proto.errors import ErrorCode, ErrorReply
from reward_proto.models import ModelInfo, ModelList
from reward_proto.score import SegmentReply, SegmentRequest
from reward_service.core.scorer import Scorer
from reward_service.core.segment import DEFAULT_LANGUAGE
from reward_service.core.segmenter_version import segmenter_version
from reward_service.web.admin import Lineup
from reward_service.web.body import read_body, while_connected
from reward_service.web.convert import to_info, to_model_info
from reward_service.web.documented import JSON, body_of, errors_of
from reward_service.web.error_map import error_response
from reward_service.web.metrics import Metrics

NOT_READY_STATUS = 503


def make_router(
    scorer: Scorer,
    metrics: Metrics,
    lineup: Lineup | None,
    *,
    max_body_bytes: int,
) -> APIRouter:
    """The endpoints of the native interface that neither score nor change anything, bound to what is served."""
    router = APIRouter()

    @router.post(
        "/v1/segment",
        response_model=SegmentReply,
        responses=errors_of(
            ErrorCode.INVALID_REQUEST,
            ErrorCode.TOO_LONG,
            ErrorCode.PAYLOAD_TOO_LARGE,
            ErrorCode.OVERLOADED,
            ErrorCode.DRAINING,
            ErrorCode.DEADLINE_EXCEEDED,
        ),
        openapi_extra=body_of(SegmentRequest),
    )
    async def segment(request: Request) -> Response:
        """Divide a text as the models of this granularity do."""
        wanted = SegmentRequest.model_validate_json(await read_body(request, max_body_bytes), strict=True)
        segments = await while_connected(request, scorer.segment(wanted.text, wanted.granularity))
        segmenter = segmenter_version(DEFAULT_LANGUAGE)
        return _json(SegmentReply(granularity=wanted.granularity, segmenter=segmenter, segments=list(segments)))

    @router.get("/v1/models", response_model=ModelList)
    async def models() -> Response:
        """List the served models, and those that are loading, failed to load or were unloaded."""
        unserved = lineup.unserved.values() if lineup else ()
        listed = [to_model_info(model) for model in scorer.models.values()]
        return _json(ModelList(models=listed + [to_info(card, state) for card, state in unserved]))

    @router.get("/v1/models/{name}", response_model=ModelInfo, responses=errors_of(ErrorCode.UNKNOWN_MODEL))
    async def model(name: str) -> Response:
        """Describe one model, by `name`, `name@alias` or `name@version`."""
        if lineup and name in lineup.unserved:
            return _json(to_info(*lineup.unserved[name]))
        return _json(to_model_info(scorer.find(name)))

    @router.get("/healthz", response_class=Response)
    @router.get("/v2/health/live", response_class=Response)
    async def live() -> Response:
        """Tell that the process lives."""
        return Response('{"live":true}', media_type=JSON)

    @router.get("/readyz", response_class=Response, responses={NOT_READY_STATUS: {"model": ErrorReply}})
    @router.get("/v2/health/ready", response_class=Response, responses={NOT_READY_STATUS: {"model": ErrorReply}})
    async def ready(request: Request) -> Response:
        """Tell whether requests are taken and every model's worker is alive."""
        return _readiness(scorer, request.state.request_id)

    @router.get("/metrics", response_class=Response)
    async def exposition() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _readiness(scorer: Scorer, request_id: str) -> Response:
    failed = [name for name, model in scorer.models.items() if not model.source.alive]
    if scorer.draining:
        return error_response(request_id, ErrorCode.DRAINING, "the service is shutting down")
    if not scorer.models:
        message = "no model is served"
        return error_response(request_id, ErrorCode.MODEL_FAILED, message, status=NOT_READY_STATUS)
    if failed:
        message = f"the worker has ended of: {', '.join(failed)}"
        details = {"models": failed}
        return error_response(request_id, ErrorCode.MODEL_FAILED, message, status=NOT_READY_STATUS, details=details)
    return Response('{"ready":true}', media_type=JSON)


def _json(reply: BaseModel) -> Response:
    return Response(reply.model_dump_json(), media_type=JSON)
