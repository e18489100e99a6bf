"""The page's files and its API on a store, without a browser."""

import asyncio
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from reward_service.annotate_settings import AnnotateSettings
from reward_service.annotation.annotation import Annotation
from reward_service.annotation.store import AnnotationStore
from reward_service.annotation.task import Task
from reward_service.keys import Key, Role, hash_key
from reward_service.web.access import OPEN_PATHS, Access
from reward_service.web.annotate.page import ANNOTATE_FILES
from reward_service.web.annotate.routes import make_annotate_router

TASKS = [Task.of(f"q{number}?", [("title", "A sentence.")], ["One 👍 two.", "b", "c", "d"]) for number in range(3)]
EMPTY = Annotation().model_dump(mode="json", by_alias=True)
MARKED = {
    "feedback": {
        "errors": [{"error type": "Irrelevant", "explanation": "", "start": 4, "end": 10}],
        "missing-info": [{"error type": "Missing-Answer", "passage_id": 1, "sentence_id": [1]}],
        "corrected-prediction": "x",
    },
    "preference": [1, 1, 0, 2, 1, 2],
}


class Annotating:
    """The API over a store, in this process."""

    def __init__(self, path: Path, make_service: Any, access: Access | None) -> None:
        self.store = AnnotationStore(path)
        self.store.add_tasks(TASKS)
        self.service = make_service(access=access)
        app: FastAPI = self.service.app
        router = make_annotate_router(self.store, AnnotateSettings(path=path, annotators_per_task=2), 4096)
        assert router is not None
        app.include_router(router)

    def call(self, method: str, path: str, *, who: str = "anna", key: str = "", body: Any = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        options = {} if body is None else {"content": body if isinstance(body, str) else json.dumps(body)}
        reply: httpx.Response = self.service.request(
            method, f"/annotate/api/{path}", params={"annotator": who}, headers=headers, **options
        )
        return reply

    def save(self, annotation: Any, *, based_on: int = 0, done: bool = False, **who: str) -> httpx.Response:
        body = {"annotation": annotation, "done": done, "based_on": based_on}
        return self.call("PUT", f"tasks/{TASKS[0].id}", body=body, **who)


@pytest.fixture
def annotating(tmp_path: Path, make_service: Any) -> Iterator[Annotating]:
    made = Annotating(tmp_path / "a.db", make_service, None)
    yield made
    made.store.close()


def message(reply: httpx.Response) -> str:
    text: str = reply.json()["error"]["message"]
    return text


@pytest.mark.parametrize("path", list(ANNOTATE_FILES))
def test_each_file_is_sent_with_its_type_and_the_policy(path: str, annotating: Annotating) -> None:
    reply = annotating.service.request("GET", path)
    name, media_type = ANNOTATE_FILES[path]
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == media_type
    assert reply.content == files("reward_service.web").joinpath(name).read_bytes()
    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert set(ANNOTATE_FILES) < OPEN_PATHS, "who has no key yet can open the page"


def test_nothing_is_asked_of_other_hosts_and_no_text_becomes_markup() -> None:
    for name, _ in ANNOTATE_FILES.values():
        text = files("reward_service.web").joinpath(name).read_text()
        code = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
        assert not re.search(r"(?:https?:)?//[\w.]+", code), name
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Storage", "cookie"):
            assert way not in text, (name, way)
        if name.endswith(".html"):
            assert not re.search(r"\s(on\w+|style)=", text)


def test_it_is_off_unless_switched_on(service: Any) -> None:
    assert make_annotate_router(None, AnnotateSettings(), 1) is None
    assert service.request("GET", "/annotate").status_code == 404
    assert service.request("GET", "/annotate/api/tasks").status_code == 404


def test_an_annotation_is_kept_and_given_back(annotating: Annotating) -> None:
    path = f"tasks/{TASKS[0].id}"
    new = annotating.call("GET", path).json()
    assert new["task"] == {"id": TASKS[0].id, **TASKS[0].to_dict(), "pairs": [0, 1, 2, 3, 4, 5]}
    assert (new["annotation"], new["done"], new["revision"]) == (EMPTY, False, 0)
    assert annotating.save(MARKED).json() == {"revision": 1}
    assert annotating.save(MARKED, based_on=1, done=True).json() == {"revision": 2}
    kept = annotating.call("GET", path).json()
    assert (kept["annotation"], kept["done"], kept["revision"]) == (MARKED, True, 2)
    assert annotating.call("GET", path, who="bob").json()["revision"] == 0, "each person sees their own"


def test_a_task_is_offered_to_as_many_as_are_wanted(annotating: Annotating) -> None:
    for who in ("anna", "bob"):
        assert annotating.save(EMPTY, who=who).status_code == 200

    def seen(who: str) -> list[tuple[str, bool]]:
        reply = annotating.call("GET", "tasks", who=who).json()
        assert [task["id"] for task in reply["tasks"]] == [task.id for task in TASKS]
        return [(task["state"], task["offered"]) for task in reply["tasks"]]

    assert seen("anna")[0] == ("draft", True)
    assert seen("cleo") == [("new", False), ("new", True), ("new", True)]


def test_what_cannot_be_meant_is_refused(annotating: Annotating) -> None:
    outside = json.loads(json.dumps(MARKED))
    outside["feedback"]["errors"][0]["end"] = 11
    reply = annotating.save(outside)
    assert reply.status_code == 422
    assert "[4, 11) is outside the response (10 characters)" in message(reply)
    assert "5 of 6 pairs" in message(annotating.save({**EMPTY, "preference": [1, *[None] * 5]}, done=True))
    for body in ("{", {}, {"annotation": EMPTY, "done": False, "based_on": -1}):
        assert annotating.call("PUT", f"tasks/{TASKS[0].id}", body=body).status_code == 422
    assert annotating.call("GET", "tasks/x").status_code == 422
    assert annotating.call("GET", "tasks", who=" ").status_code == 422
    assert "annotator's name" in message(annotating.call("GET", "tasks", who="a\x07"))
    assert "no format" in message(annotating.call("GET", "export/csv"))
    big = {**EMPTY, "feedback": {"corrected-prediction": "x" * 5000}}
    assert annotating.save(big).status_code == 413
    assert annotating.store.changes() == 0


def test_a_window_that_is_behind_is_told(annotating: Annotating) -> None:
    annotating.save(EMPTY)
    reply = annotating.save(MARKED)
    assert reply.status_code == 422
    assert "changed elsewhere" in message(reply)
    assert reply.json()["error"]["details"] == {"stored_revision": 1}


def test_agreement_follows_what_is_finished(annotating: Annotating) -> None:
    assert annotating.call("GET", "agreement").json()["tasks"] == 0
    for who in ("anna", "bob"):
        annotating.save(MARKED, done=True, who=who)
    told = annotating.call("GET", "agreement").json()
    assert (told["tasks"], told["annotators"], told["spans"], told["missing"]) == (1, 2, 1.0, 1.0)
    assert told["categories"] == {"relevance": 1.0, "factuality": None}


KEYS = [
    Key(id="a", role=Role.ANNOTATE, job="anna", sha256=hash_key("annas")),
    Key(id="b", role=Role.ANNOTATE, sha256=hash_key("anybodys")),
    Key(id="c", role=Role.SCORE, sha256=hash_key("scores")),
    Key(id="d", role=Role.ADMIN, sha256=hash_key("admins")),
]


@pytest.fixture
def locked(tmp_path: Path, make_service: Any) -> Iterator[Annotating]:
    made = Annotating(tmp_path / "a.db", make_service, Access(KEYS))
    yield made
    made.store.close()


def test_keys_say_who_may_annotate(locked: Annotating) -> None:
    for method, path in (
        ("GET", "tasks"),
        ("GET", f"tasks/{TASKS[0].id}"),
        ("PUT", f"tasks/{TASKS[0].id}"),
        ("GET", "agreement"),
        ("GET", "export/qa_feedback"),
    ):
        assert locked.call(method, path).status_code == 401, path
        reply = locked.call(method, path, key="scores")
        assert (reply.status_code, "role annotate" in message(reply)) == (403, True), path
        body = {"annotation": EMPTY, "done": False, "based_on": 0}
        for key in ("annas", "admins"):
            reply = locked.call(method, path, who=key, key=key, body=body if method == "PUT" else None)
            assert reply.status_code == 200, path
    reply = locked.service.score({"items": [{"response": "x"}]}, headers={"Authorization": "Bearer annas"})
    assert (reply.status_code, "role score" in message(reply)) == (403, True)


def test_a_keys_job_is_the_annotators_name(locked: Annotating) -> None:
    assert locked.call("GET", "tasks", who="bob", key="annas").json()["annotator"] == "anna"
    assert locked.call("GET", "tasks", who="bob", key="anybodys").json()["annotator"] == "bob"


def test_annotators_download_their_own_and_an_admin_everybodys(locked: Annotating) -> None:
    locked.save({**MARKED, "preference": [1] * 6}, done=True, key="annas")
    locked.save(MARKED, done=True, key="anybodys", who="bob")
    count = {
        key: len(locked.call("GET", "export/qa_feedback", who="bob", key=key).json())
        for key in ("annas", "anybodys", "admins")
    }
    assert count == {"annas": 1, "anybodys": 1, "admins": 2}
    (own,) = locked.call("GET", "export/qa_feedback", who="bob", key="annas").json()
    assert own["preference"] == [1] * 6


def test_many_people_save_at_once(annotating: Annotating) -> None:
    async def save_all(client: httpx.AsyncClient) -> list[int]:
        body = {"annotation": MARKED, "done": True, "based_on": 0}
        replies = await asyncio.gather(
            *(
                client.put(f"/annotate/api/tasks/{TASKS[number % 3].id}", params={"annotator": f"p{number}"}, json=body)
                for number in range(30)
            )
        )
        return [reply.status_code for reply in replies]

    assert annotating.service.run(save_all) == [200] * 30
    assert len(annotating.store.annotated()) == 30
