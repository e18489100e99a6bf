"""Endpoints on the path of every reward: FastAPI documents them, and leaves out what it does anew for each request."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class BareRoute(APIRoute):
    """A route whose endpoint takes the request alone, reads it, and returns the response.

    FastAPI solves dependencies and parameters for every request, which takes longer than the rest of its routing, and
    here there are none to solve but the router's own checks. Register it on a router that has them.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Run the checks, then the endpoint."""
        checks = [depends.dependency for depends in self.dependencies if depends.dependency is not None]
        if not checks:
            raise ValueError(f"{self.path} would be open to everybody: its router has no check")

        async def handle(request: Request) -> Response:
            for check in checks:
                await check(request)
            response: Response = await self.endpoint(request)
            return response

        return handle
