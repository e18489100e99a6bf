"""The OpenAPI document in the repository is the one that the service would give."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reward_proto import CONTRACT_VERSION, HTTP_STATUS, ErrorCode
from reward_service.serve import openapi_document

EXPORTED = Path(__file__).parents[2] / "proto" / "openapi.json"


def test_the_exported_document_has_not_drifted() -> None:
    exported = json.loads(EXPORTED.read_text(encoding="utf-8"))
    assert exported == openapi_document(), "run `reward-service openapi --output proto/openapi.json`"


def test_it_has_the_contracts_version_and_paths() -> None:
    document = openapi_document()
    assert document["info"]["version"] == CONTRACT_VERSION
    assert set(document["paths"]) == {
        "/v1/score",
        "/v1/segment",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/models/{name}/load",
        "/v1/models/{name}/unload",
        "/healthz",
        "/readyz",
        "/v2/health/live",
        "/v2/health/ready",
        "/metrics",
        "/get_reward",
        "/classify",
        "/predict",
        "/rm",
        "/v1/rewards",
    }
    body = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ScoreRequest"}


def test_every_status_of_scoring_is_documented() -> None:
    paths = openapi_document()["paths"]
    # Everything but `forbidden`: what an endpoint that changes the service says.
    expected = {"200", *(str(status) for code, status in HTTP_STATUS.items() if code is not ErrorCode.FORBIDDEN)}
    assert set(paths["/v1/score"]["post"]["responses"]) == expected
    assert {"401", "403", "404", "422"} < set(paths["/v1/models/{name}/load"]["post"]["responses"])


def test_every_reference_resolves() -> None:
    document = openapi_document()
    known = document["components"]["schemas"]
    assert "HTTPValidationError" not in known, "errors have one shape, not FastAPI's own"
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in known


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)
