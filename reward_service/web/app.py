"""The FastAPI application."""

from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from reward_proto.errors import HTTP_STATUS, ErrorCode
from reward_proto.models import LoadRequest
from reward_proto.score import ScoreRequest, SegmentRequest
from reward_proto.version import CONTRACT_VERSION
from reward_service.compat_settings import Compat
from reward_service.core.scorer import Scorer
from reward_service.ledger.answer import Ledger
from reward_service.web import error_map
from reward_service.web.access import OPEN_PATHS, Access, guard
from reward_service.web.admin import Lineup, UnloadRequest, make_admin_router
from reward_service.web.bare_route import BareRoute
from reward_service.web.compat.error_shapes import ErrorShapes
from reward_service.web.compat.routes import BODIES, add_compat_routes
from reward_service.web.context import RequestContext
from reward_service.web.metrics import Metrics
from reward_service.web.routes import make_router
from reward_service.web.score_route import add_score_route
from reward_service.web.trace import Tracer
from reward_service.web.ui.routes import make_ui_router

TITLE = "Fine-grained reward service"


def create_app(
    scorer: Scorer,
    metrics: Metrics,
    *,
    max_items: int,
    max_body_bytes: int,
    compat: Compat | None = None,
    access: Access | None = None,
    ui: bool = False,
    annotate: APIRouter | None = None,
    lineup: Lineup | None = None,
    tracer: Tracer | None = None,
    ledger: Ledger | None = None,
) -> FastAPI:
    """Build the app.

    Args:
        scorer: Answers the requests; closing it is the caller's.
        metrics: Counts them.
        max_items: Items of one request.
        max_body_bytes: Size of one request's body.
        compat: How the protocols of existing trainers get their one scalar.
        access: Who may call; everybody may score if None.
        ui: Whether `/ui` shows a page to try the models with.
        annotate: The endpoints of the page on which people annotate, if there is one.
        lineup: Changes what is served; None refuses every change.
        tracer: Makes spans of requests, if there is one.
        ledger: Keeps what was answered, if there is one.
    """
    access = access or Access()
    app = FastAPI(
        title=TITLE,
        version=CONTRACT_VERSION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(guard(access))],
    )
    app.add_middleware(RequestContext, metrics=metrics, access=access, tracer=tracer)
    app.add_middleware(ErrorShapes)
    error_map.install(app)
    app.router.route_class = BareRoute
    limits = {"max_items": max_items, "max_body_bytes": max_body_bytes}
    add_score_route(app.router, scorer, ledger, **limits)
    add_compat_routes(app.router, scorer, compat or Compat(), ledger, **limits)
    app.include_router(make_router(scorer, metrics, lineup, max_body_bytes=max_body_bytes))
    app.include_router(make_admin_router(lineup, access))
    if ui:
        app.include_router(make_ui_router())
    if annotate is not None:
        app.include_router(annotate)
    for source in scorer.sources:
        metrics.watch(source)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _openapi(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the schemas of the bodies that the routes parse themselves, and one error shape."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    wanted: list[type[BaseModel]] = [ScoreRequest, SegmentRequest, LoadRequest, UnloadRequest, *BODIES]
    _, bodies = models_json_schema(
        [(body, "validation") for body in wanted],
        ref_template="#/components/schemas/{model}",
    )
    schemas = document["components"]["schemas"]
    schemas.update(bodies["$defs"])
    # FastAPI promises its own 422 for every path parameter; a model's name is any text, so that it never comes.
    del document["paths"]["/v1/models/{name}"]["get"]["responses"]["422"]
    del schemas["HTTPValidationError"], schemas["ValidationError"]
    _tell_of_keys(document)
    return document


def _tell_of_keys(document: dict[str, Any]) -> None:
    """Every endpoint but the open ones may ask for a key, and refuse without."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorReply"}}}}
    invalid = str(HTTP_STATUS[ErrorCode.INVALID_REQUEST])
    for path, operations in document["paths"].items():
        if path in OPEN_PATHS:
            continue
        for operation in operations.values():
            operation["security"] = [{}, {"key": []}]
            content = operation["responses"].get(invalid, error)["content"]  # In the shape of its other errors.
            refusal = {"description": ErrorCode.UNAUTHENTICATED.value, "content": content}
            operation["responses"][str(HTTP_STATUS[ErrorCode.UNAUTHENTICATED])] = refusal
