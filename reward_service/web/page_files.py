"""Sending the files of the pages for people: nothing from elsewhere, and a policy that keeps it so."""

from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files

from fastapi import APIRouter, Response

HTML = "text/html; charset=utf-8"
CSS = "text/css; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Scripts and styles come from these files alone, and no other page may frame this one."""

PageFiles = Mapping[str, tuple[str, str]]
"""Path -> file below this package, and its type. `theme.css` has what all pages look like."""


def add_page_files(router: APIRouter, page_files: PageFiles) -> None:
    """Have a router send the files of a page."""
    for path, (name, media_type) in page_files.items():
        content = read_page_file(name)
        router.add_api_route(path, _sender(content, media_type), methods=["GET"])


def read_page_file(name: str) -> bytes:
    """What is in a file of this package."""
    return files(__package__).joinpath(name).read_bytes()


def _sender(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def send() -> Response:
        return Response(content, media_type=media_type, headers=HEADERS)

    return send
