"""Routes without FastAPI's own solving, in an app of their own; the service's run in `test_routes`."""

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.testclient import TestClient

from reward_service.web.bare_route import BareRoute


async def refuse_strangers(request: Request) -> None:
    if "X-Friend" not in request.headers:
        raise HTTPException(401, "who are you?")


async def echo(request: Request) -> Response:
    """Give back."""
    return Response(await request.body())


def test_the_endpoint_runs_after_the_checks() -> None:
    app = FastAPI(dependencies=[Depends(refuse_strangers)])
    app.router.route_class = BareRoute
    app.router.post("/echo")(echo)
    with TestClient(app) as http:
        assert http.post("/echo", content=b"a").status_code == 401
        assert http.post("/echo", content=b"a", headers={"X-Friend": "1"}).content == b"a"
        assert http.get("/echo", headers={"X-Friend": "1"}).status_code == 405
    assert app.openapi()["paths"]["/echo"]["post"]["description"] == "Give back."


def test_a_route_without_a_check_is_refused() -> None:
    with pytest.raises(ValueError, match="/echo would be open to everybody"):
        APIRouter(route_class=BareRoute).post("/echo")(echo)
