import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from starlette.datastructures import Headers

from reward_proto import ErrorReply
from reward_service.errors import ForbiddenError, UnauthenticatedError
from reward_service.keys import Key, Role
from reward_service.web.access import OPEN_PATHS, Access
from reward_service.web.annotate.page import ANNOTATE_FILES
from reward_service.web.ui.routes import UI_FILES

ONE = {"items": [{"response": "Yes.", "fields": {"question": "Why?"}}]}
BODIES = {"/v1/score": ONE, "/v1/segment": {"text": "One.", "granularity": "sentence"}}


def key(secret: str, role: Role = Role.SCORE, job: str | None = None) -> Key:
    return Key(id=secret, role=role, job=job, sha256=hashlib.sha256(secret.encode()).hexdigest())


KEYS = (key("bound", job="summaries"), key("free"), key("boss", Role.ADMIN))


def bearer(secret: str, **more: str) -> Headers:
    return Headers({"Authorization": f"Bearer {secret}", **more})


def test_a_keys_job_outranks_the_header() -> None:
    access = Access(KEYS)
    named = {"X-Client-Job": "other"}
    assert access.identify(bearer("bound", **named)).job == "summaries"
    assert access.identify(bearer("bound")).job == "summaries"
    assert access.identify(bearer("free", **named)).job == "other"
    assert access.identify(bearer("free")).job == ""


def test_who_has_no_key_names_no_job_where_keys_are_asked_for() -> None:
    named = {"X-Client-Job": "other"}
    assert Access(KEYS).identify(bearer("wrong", **named)).job == ""
    assert Access(KEYS).identify(Headers(named)).job == ""
    assert Access().identify(Headers(named)).job == "other"


@pytest.mark.parametrize(("sent", "job"), [("jöb 🎉".encode(), "jöb 🎉"), ("jöb".encode("latin-1"), "jöb"), (b"", "")])
def test_a_jobs_name_is_what_its_bytes_say(sent: bytes, job: str) -> None:
    assert Access().identify(Headers(raw=[(b"x-client-job", sent)])).job == job


@pytest.mark.parametrize(
    "header", ["", "free", "Basic free", "Bearer", "Bearer ", "Bearer fre", "Bearer frée", "Bearer free x"]
)
def test_only_a_bearers_valid_key_counts(header: str) -> None:
    access = Access(KEYS)
    caller = access.identify(Headers(raw=[(b"authorization", header.encode("latin-1"))]))
    assert caller.key is None
    with pytest.raises(UnauthenticatedError):
        access.check("/v1/score", caller)
    with pytest.raises(UnauthenticatedError):
        access.check_admin(caller)


def basic(text: str) -> Headers:
    return Headers({"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"})


def test_an_address_with_job_and_key_is_enough() -> None:
    caller = Access(KEYS).identify(basic("poems:free"))
    assert (caller.key, caller.job) == (KEYS[1], "poems")
    assert Access(KEYS).identify(basic("poems:bound")).job == "summaries"
    assert Access(KEYS).identify(basic(":free")).job == ""
    assert Access().identify(basic("poems:")).job == "poems"
    for wrong in (basic("free"), basic("free:"), Headers({"Authorization": "Basic /w=="})):
        assert Access(KEYS).identify(wrong).key is None


def test_the_scheme_is_written_in_any_case() -> None:
    assert Access(KEYS).identify(Headers({"Authorization": "bearer  free"})).key == KEYS[1]


def test_what_changes_the_service_needs_an_admin() -> None:
    access = Access(KEYS)
    access.check_admin(access.identify(bearer("boss")))
    with pytest.raises(ForbiddenError, match="role admin"):
        access.check_admin(access.identify(bearer("free")))
    with pytest.raises(ForbiddenError, match="no keys are configured"):
        Access().check_admin(Access().identify(bearer("boss")))


@pytest.fixture
def locked(make_service: Callable[..., Any]) -> Any:
    return make_service(access=Access(KEYS))


def test_every_endpoint_but_the_open_ones_asks_for_a_key(locked: Any) -> None:
    paths = locked.request("GET", "/openapi.json").json()["paths"]
    assert {*paths, "/openapi.json", *UI_FILES, *ANNOTATE_FILES} > OPEN_PATHS
    for path, operations in paths.items():
        for method in operations:
            reply = locked.request(method, path.replace("{name}", "relevance"), json=BODIES.get(path))
            if path in OPEN_PATHS or path == "/metrics":
                assert reply.status_code == 200, path
                continue
            assert reply.status_code == 401, path
            assert reply.headers["WWW-Authenticate"] == "Bearer"
            if path in BODIES:  # Protocols of trainers have shapes of their own.
                assert ErrorReply.model_validate_json(reply.content).error.code == "unauthenticated"
            assert "401" in operations[method]["responses"]


def test_the_metrics_can_be_closed(make_service: Callable[..., Any]) -> None:
    service = make_service(access=Access(KEYS, open_metrics=False))
    assert service.request("GET", "/metrics").status_code == 401
    assert service.request("GET", "/metrics", headers=dict(bearer("free"))).status_code == 200


def test_a_valid_key_scores_as_its_job(locked: Any) -> None:
    reply = locked.score(ONE, headers={"Authorization": "Bearer bound", "X-Client-Job": "other"})
    assert reply.status_code == 200
    assert locked.metric("reward_requests_total", endpoint="/v1/score", client_job="summaries", code="200") == 1
    assert locked.score(ONE, headers={"X-Client-Job": "other"}).status_code == 401
    assert locked.metric("reward_requests_total", endpoint="/v1/score", client_job="none", code="401") == 1
    assert locked.metric("reward_rejected_total", reason="unauthenticated") == 1


def test_keys_change_while_serving(make_service: Callable[..., Any]) -> None:
    access = Access(KEYS)
    service = make_service(access=access)
    assert service.score(ONE, headers=dict(bearer("free"))).status_code == 200
    access.keys = (key("new"),)
    assert service.score(ONE, headers=dict(bearer("free"))).status_code == 401
    assert service.score(ONE, headers=dict(bearer("new"))).status_code == 200
