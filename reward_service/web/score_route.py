"""The endpoint that scores."""

from fastapi import APIRouter, Request, Response
from pydantic import Field, ValidationError, create_model

from reward_proto.errors import ErrorCode
from reward_proto.score import ScoreItem, ScoreReply, ScoreRequest
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
    items = (list[ScoreItem], Field(min_length=1, max_length=max_items))
    bounded: type[ScoreRequest] = create_model("BoundedScoreRequest", __base__=ScoreRequest, items=items)

    def parse(body: bytes) -> ScoreRequest:
        try:  # Items that are over the limit are not even looked at.
            return bounded.model_validate_json(body, strict=True)
        except ValidationError as error:
            fault = error.errors()[0] if error.error_count() == 1 else None
            if fault is not None and (fault["type"], fault["loc"]) == ("too_long", ("items",)):
                raise PayloadTooLargeError(f"more than {max_items} items", max_items=max_items) from None
            raise

    @router.post(
        "/v1/score",
        response_model=ScoreReply,
        responses=errors_of(*_ERRORS),
        openapi_extra=body_of(ScoreRequest),
    )
    async def score(request: Request) -> Response:
        """Score every item with every model that the request names."""
        asker = read_asker(request)
        wanted = parse(await read_body(request, max_body_bytes))
        ids = to_ids(wanted.items)
        items = await to_text_items(wanted.items)
        scoring = scorer.score(items, wanted.models, wanted.timeout_s, request.state.client_job)
        outcome = await while_connected(request, scoring)
        if ledger is not None:
            ledger.record(asker, ids, items, outcome.models)
        reply = await to_reply(ids, outcome, request.state.request_id, return_logits=wanted.return_logits)
        return Response(reply, media_type=JSON, headers={"Server-Timing": server_timing(outcome)})
