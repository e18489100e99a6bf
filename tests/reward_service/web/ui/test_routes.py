"""The page's files: only where it is switched on, open to everybody, with a strict policy."""

import re
from importlib.resources import files

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from reward_service.web.access import OPEN_PATHS
from reward_service.web.ui.routes import UI_FILES, make_ui_router


@pytest.fixture
def http() -> TestClient:
    app = FastAPI()
    app.include_router(make_ui_router())
    return TestClient(app)


@pytest.mark.parametrize("path", list(UI_FILES))
def test_each_file_is_sent_with_its_type_and_the_policy(path: str, http: TestClient) -> None:
    reply = http.get(path)
    name, media_type = UI_FILES[path]
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == media_type
    assert reply.content == files("reward_service.web").joinpath(name).read_bytes()
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_who_has_no_key_yet_can_open_the_page() -> None:
    assert set(UI_FILES) < OPEN_PATHS


def test_nothing_is_asked_of_other_hosts_and_no_text_becomes_markup() -> None:
    texts = {name: files("reward_service.web").joinpath(name).read_text() for name, _ in UI_FILES.values()}
    for name, text in texts.items():
        links = re.findall(r"(?:https?:)?//[\w.]+", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
        assert set(links) <= {"http://www.w3.org"}, name
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Storage", "cookie"):
            assert way not in text, (name, way)
    assert " style=" not in texts["ui/page.html"]
    assert not re.search(r"\son\w+=", texts["ui/page.html"])


def test_it_is_off_unless_switched_on(service: object) -> None:
    assert service.request("GET", "/ui").status_code == 404  # type: ignore[attr-defined]
