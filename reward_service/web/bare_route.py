"""Endpoints on the path of every reward: FastAPI documents them, and leaves out what it does anew for each request."""

from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


class BareRoute(APIRoute):
    """A route whose endpoint takes the request alone, reads it, and returns the response.

    FastAPI solves dependencies and parameters for every request, and opens what they may have to close, which takes
    longer than the rest of its routing. Here there are none to solve but the router's own checks. Register it on a
    router that has them. The app's handlers answer exceptions.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        checks = [depends.dependency for depends in self.dependencies if depends.dependency is not None]
        if not checks:
            raise ValueError(f"{self.path} would be open to everybody: its router has no check")

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive, send)
            for check in checks:
                await check(request)
            response: Response = await self.endpoint(request)
            await response(scope, receive, send)

        self.app = answer
