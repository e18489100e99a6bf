"""The page to try the models with: four files, nothing from elsewhere. What it shows it asks the API for."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Response

UI_FILES = {
    "/ui": ("page.html", "text/html; charset=utf-8"),
    "/ui/page.css": ("page.css", "text/css; charset=utf-8"),
    "/ui/live.js": ("live.js", "text/javascript; charset=utf-8"),
    "/ui/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
"""Path -> file of this package, and its type. None holds anything of the models or of the texts."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Scripts and styles come from these files alone, and no other page may frame this one."""


def make_ui_router() -> APIRouter:
    """The page's endpoints; no part of the contract."""
    router = APIRouter(include_in_schema=False)
    for path, (name, media_type) in UI_FILES.items():
        content = files(__package__).joinpath(name).read_bytes()
        router.add_api_route(path, _sender(content, media_type), methods=["GET"])
    return router


def _sender(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return send
