"""The endpoints that change what is served: for admins alone."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from reward_proto.errors import HTTP_STATUS, ErrorCode, ErrorReply
from reward_proto.models import LoadRequest, ModelList, ModelState
from reward_service.core.scorer import ServedModel
from reward_service.domain import ModelCard
from reward_service.errors import ForbiddenError
from reward_service.web.access import Access
from reward_service.web.body import read_body
from reward_service.web.convert import to_info, to_model_info

MAX_BODY_BYTES = 4096
JSON = "application/json"

R = TypeVar("R")


class Lineup(Protocol):
    """What is needed of `reward_service.lineup.Lineup`."""

    @property
    def unserved(self) -> Mapping[str, tuple[ModelCard, ModelState]]:
        """Models that are not served, and why not."""
        ...

    async def load(self, name: str, version: str) -> Sequence[ServedModel]:
        """Serve a version."""
        ...

    async def unload(self, name: str) -> Sequence[ModelCard]:
        """Serve a model no longer."""
        ...


class UnloadRequest(BaseModel):
    """`POST /v1/models/{name}/unload`: nothing, or an empty object."""

    model_config = ConfigDict(extra="forbid")


def make_admin_router(lineup: Lineup | None, access: Access) -> APIRouter:
    """Load and unload.

    Args:
        lineup: What is changed; None refuses every change.
        access: Who may.
    """

    async def admin(request: Request) -> None:
        access.check_admin(request.state.caller)

    router = APIRouter(dependencies=[Depends(admin)], tags=["admin"])
    changes: set[asyncio.Task[Any]] = set()

    def changeable() -> Lineup:
        if lineup is None:
            raise ForbiddenError("what this service serves cannot be changed")
        return lineup

    async def whole(change: Coroutine[Any, Any, R]) -> R:
        """A change that began goes on when its caller leaves."""
        task = asyncio.ensure_future(change)
        changes.add(task)
        task.add_done_callback(changes.discard)
        return await asyncio.shield(task)

    @router.post(
        "/v1/models/{name}/load",
        response_model=ModelList,
        responses=_errors(ErrorCode.MODEL_FAILED),
        openapi_extra=_body(LoadRequest, required=True),
    )
    async def load(name: str, request: Request) -> Response:
        """Load a version of a model beside the one that is served, then exchange them; answers when that is done."""
        wanted = LoadRequest.model_validate_json(await read_body(request, MAX_BODY_BYTES), strict=True)
        served = await whole(changeable().load(name, wanted.version))
        return _models(ModelList(models=[to_model_info(model) for model in served]))

    @router.post(
        "/v1/models/{name}/unload",
        response_model=ModelList,
        responses=_errors(),
        openapi_extra=_body(UnloadRequest, required=False),
    )
    async def unload(name: str, request: Request) -> Response:
        """Serve a model no longer; requests that it is at work on are answered."""
        UnloadRequest.model_validate_json(await read_body(request, MAX_BODY_BYTES) or b"{}", strict=True)
        cards = await whole(changeable().unload(name))
        return _models(ModelList(models=[to_info(card, ModelState.UNLOADED) for card in cards]))

    return router


def _models(models: ModelList) -> Response:
    return Response(models.model_dump_json(), media_type=JSON)


def _body(schema: type[BaseModel], *, required: bool) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema.__name__}"}
    return {"requestBody": {"required": required, "content": {JSON: {"schema": reference}}}}


def _errors(*more: ErrorCode) -> dict[int | str, dict[str, Any]]:
    always = (
        ErrorCode.INVALID_REQUEST,
        ErrorCode.FORBIDDEN,
        ErrorCode.UNKNOWN_MODEL,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.OVERLOADED,
        ErrorCode.DRAINING,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.INTERNAL,
    )
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in (*always, *more):
        known = by_status.setdefault(HTTP_STATUS[code], {"model": ErrorReply, "description": ""})
        known["description"] += f"{', ' if known['description'] else ''}{code}"
    return by_status
