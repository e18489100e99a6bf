"""The page to try the models with: a few files, nothing from elsewhere. What it shows it asks the API for."""

from fastapi import APIRouter

from reward_service.web.page_files import CSS, HTML, SCRIPT, PageFiles, add_page_files

UI_FILES: PageFiles = {
    "/ui": ("ui/page.html", HTML),
    "/ui/theme.css": ("theme.css", CSS),
    "/ui/page.css": ("ui/page.css", CSS),
    "/ui/live.js": ("ui/live.js", SCRIPT),
    "/ui/page.js": ("ui/page.js", SCRIPT),
}
"""None holds anything of the models or of the texts."""


def make_ui_router() -> APIRouter:
    """The page's endpoints; no part of the contract."""
    router = APIRouter(include_in_schema=False)
    add_page_files(router, UI_FILES)
    return router
