"""The files of the pages: sent as they are, under the policy, and all of the look that is shared in one place."""

import re

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from reward_service.web.annotate.page import ANNOTATE_FILES
from reward_service.web.page_files import CSS, HEADERS, PageFiles, add_page_files, read_page_file
from reward_service.web.ui.routes import UI_FILES

PAGES = {"/ui": UI_FILES, "/annotate": ANNOTATE_FILES}


def test_a_file_is_sent_with_its_type_and_the_policy() -> None:
    router = APIRouter()
    add_page_files(router, {"/look": ("theme.css", CSS)})
    app = FastAPI()
    app.include_router(router)
    reply = TestClient(app).get("/look")
    assert reply.content == read_page_file("theme.css")
    assert reply.headers["Content-Type"] == CSS
    assert {name: reply.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize(("path", "page_files"), PAGES.items())
def test_a_page_asks_for_its_own_files_and_for_no_others(path: str, page_files: PageFiles) -> None:
    html = read_page_file(page_files[path][0]).decode()
    asked = {f"/{name}" for name in re.findall(r'(?:href|src)="([^":]+)"', html)}
    scripts = [read_page_file(name).decode() for name, _ in page_files.values() if name.endswith(".js")]
    asked |= {f"{path}/{name}" for script in scripts for name in re.findall(r'from "\./([^"]+)"', script)}
    assert asked == page_files.keys() - {path}


def test_no_rule_of_the_theme_is_written_again() -> None:
    theme = set(read_page_file("theme.css").decode().splitlines()) - {":root {", "}"}
    for name in ("ui/page.css", "annotate/page.css"):
        assert not theme & set(read_page_file(name).decode().splitlines())
