"""The endpoint that scores."""

from fastapi import APIRouter, Request, Response

from reward_proto.errors import ErrorCode
from reward_proto.score import ScoreReply, ScoreRequest
from reward_service.core.scorer import Scorer
from reward_service.errors import PayloadTooLargeError
from reward_service.ledger.answer import Ledger
from reward_service.web.asker import read_asker
from reward_service.web.body import read_body, while_connected
from reward_service.web.convert import server_timing, to_ids, to_reply, to_text_items
from reward_service.web.documented import JSON, body_of, errors_of

_ERRORS = tuple(code for code in ErrorCode if code not in (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN))
"""What scoring may answer; `web.app` adds the first of the two to every endpoint."""


def add_score_route(
    router: APIRouter, scorer: Scorer, ledger: Ledger | None, *, max_items: int, max_body_bytes: int
) -> None:
    """Register `/v1/score`, bound to what is served, on a router of `BareRoute`s."""

    @router.post(
        "/v1/score",
        response_model=ScoreReply,
        responses=errors_of(*_ERRORS),
        openapi_extra=body_of(ScoreRequest),
    )
    async def score(request: Request) -> Response:
        """Score every item with every model that the request names."""
        asker = read_asker(request)
        wanted = ScoreRequest.model_validate_json(await read_body(request, max_body_bytes), strict=True)
        if len(wanted.items) > max_items:
            raise PayloadTooLargeError(f"{len(wanted.items)} items are over {max_items}", max_items=max_items)
        ids = to_ids(wanted.items)
        items = await to_text_items(wanted.items)
        scoring = scorer.score(items, wanted.models, wanted.timeout_s, request.state.client_job)
        outcome = await while_connected(request, scoring)
        if ledger is not None:
            ledger.record(asker, ids, items, outcome.models)
        reply = await to_reply(ids, outcome, request.state.request_id, return_logits=wanted.return_logits)
        return Response(reply, media_type=JSON, headers={"Server-Timing": server_timing(outcome)})
