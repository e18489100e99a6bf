"""Parts of the OpenAPI document that FastAPI cannot see: bodies that endpoints read themselves, and errors."""

from typing import Any

from pydantic import BaseModel

from reward_proto.errors import HTTP_STATUS, ErrorCode, ErrorReply

JSON = "application/json"


def body_of(schema: type[BaseModel]) -> dict[str, Any]:
    """An endpoint's `openapi_extra`: its body, whose schema `web.app` adds to the document."""
    reference = {"$ref": f"#/components/schemas/{schema.__name__}"}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": reference}}}}


def errors_of(*codes: ErrorCode, error: type[BaseModel] = ErrorReply) -> dict[int | str, dict[str, Any]]:
    """An endpoint's `responses`: the errors that it may answer, by their status.

    Args:
        codes: The errors.
        error: Their shape.
    """
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        known = by_status.setdefault(HTTP_STATUS[code], {"model": error, "description": ""})
        known["description"] += f"{', ' if known['description'] else ''}{code}"
    return by_status
