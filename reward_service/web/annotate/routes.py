"""What the page on which people annotate asks for: tasks, saving, agreement, downloads. No part of the contract."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from reward_service.annotate_settings import AnnotateSettings
from reward_service.annotation.annotation import Annotation, Types, checked_name, faults_of
from reward_service.annotation.files import TaskFormat, render
from reward_service.annotation.store import AnnotationStore
from reward_service.errors import InvalidRequestError
from reward_service.keys import Role
from reward_service.web.access import Caller
from reward_service.web.annotate.page import ANNOTATE_FILES
from reward_service.web.body import read_body
from reward_service.web.page_files import add_page_files

JSON_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class SaveRequest(BaseModel):
    """A person's annotation of a task, as it is now.

    Attributes:
        annotation: All of it.
        done: Whether it is finished.
        based_on: The revision that was changed; 0 for none.
    """

    model_config = ConfigDict(extra="forbid")

    annotation: Annotation
    done: bool
    based_on: int = Field(ge=0)


class AnnotateApi:
    """Answers the page.

    Args:
        store: Tasks and annotations.
        types: What marks may be called.
        annotators_per_task: How many people each task is offered to.
        max_body_bytes: Size of one annotation.
    """

    def __init__(self, store: AnnotationStore, types: Types, *, annotators_per_task: int, max_body_bytes: int) -> None:
        self._store = store
        self._types = types
        self._annotators_per_task = annotators_per_task
        self._max_body_bytes = max_body_bytes
        self._agreement: tuple[int, dict[str, Any]] | None = None
        self._comparing = asyncio.Lock()

    async def tasks(self, request: Request) -> dict[str, Any]:
        """Every task as it is to the one who asks."""
        name = _annotator(request)
        states = await asyncio.to_thread(self._store.states, name)
        return {
            "annotator": name,
            "error_types": self._types.errors,
            "missing_types": self._types.missing,
            "tasks": [
                {
                    "id": state.id,
                    "state": {None: "new", False: "draft", True: "done"}[state.done],
                    "offered": state.done is not None or state.others < self._annotators_per_task,
                }
                for state in states
            ],
        }

    async def task(self, request: Request, task_id: str) -> dict[str, Any]:
        """A task, and what the one who asks has said of it."""
        name = _annotator(request)
        task = await asyncio.to_thread(self._store.task, task_id)
        kept = await asyncio.to_thread(self._store.find, task_id, name)
        annotation = Annotation() if kept is None else kept.annotation
        return {
            "task": {"id": task_id, **task.to_dict(), "pairs": task.pairs},
            "annotation": annotation.model_dump(mode="json", by_alias=True),
            "done": kept is not None and kept.done,
            "revision": 0 if kept is None else kept.revision,
        }

    async def save(self, request: Request, task_id: str) -> dict[str, int]:
        """Keep an annotation."""
        name = _annotator(request)
        body = SaveRequest.model_validate_json(await read_body(request, self._max_body_bytes))
        task = await asyncio.to_thread(self._store.task, task_id)
        faults = faults_of(task, body.annotation, done=body.done, types=self._types)
        if faults:
            raise InvalidRequestError("; ".join(faults))

        def save() -> int:
            return self._store.save(task_id, name, body.annotation, done=body.done, based_on=body.based_on)

        return {"revision": await asyncio.to_thread(save)}

    async def agreement(self) -> dict[str, Any]:
        """How far people agree on what several of them finished."""
        async with self._comparing:
            changes = await asyncio.to_thread(self._store.changes)
            if self._agreement is None or self._agreement[0] != changes:
                self._agreement = changes, await asyncio.to_thread(self._compare)
            return self._agreement[1]

    def _compare(self) -> dict[str, Any]:
        from reward_service.annotation.agreement import agreement  # NLTK takes seconds to load.

        return dataclasses.asdict(agreement(self._store.annotated(), self._types))

    async def export(self, request: Request, data_format: TaskFormat) -> Response:
        """A file of what people finished: everybody's, or with a key that may only annotate one's own."""
        caller: Caller = request.state.caller
        own = caller.key is not None and not caller.key.allows(Role.ADMIN)
        name = _annotator(request) if own else None
        text = await asyncio.to_thread(lambda: render(self._store, data_format, annotator=name))
        return Response(text, media_type="application/json", headers=JSON_HEADERS)


def make_annotate_router(
    store: AnnotationStore | None, settings: AnnotateSettings, max_body_bytes: int
) -> APIRouter | None:
    """The page's endpoints; None where there is no store.

    Args:
        store: Tasks and annotations.
        settings: What marks may be called, and how many people each task is offered to.
        max_body_bytes: Size of one annotation.
    """
    if store is None:
        return None
    api = AnnotateApi(
        store,
        Types.of(settings),
        annotators_per_task=settings.annotators_per_task,
        max_body_bytes=max_body_bytes,
    )
    router = APIRouter(include_in_schema=False)
    add_page_files(router, ANNOTATE_FILES)
    router.add_api_route("/annotate/api/tasks", api.tasks, response_model=None, methods=["GET"])
    router.add_api_route("/annotate/api/tasks/{task_id}", api.task, response_model=None, methods=["GET"])
    router.add_api_route("/annotate/api/tasks/{task_id}", api.save, response_model=None, methods=["PUT"])
    router.add_api_route("/annotate/api/agreement", api.agreement, response_model=None, methods=["GET"])
    router.add_api_route("/annotate/api/export/{data_format}", _exporter(api), response_model=None, methods=["GET"])
    return router


def _exporter(api: AnnotateApi) -> Callable[[Request, str], Awaitable[Response]]:
    async def export(request: Request, data_format: str) -> Response:
        try:
            wanted = TaskFormat(data_format)
        except ValueError as error:
            raise InvalidRequestError(f"no format {data_format!r}; there is {', '.join(TaskFormat)}") from error
        return await api.export(request, wanted)

    return export


def _annotator(request: Request) -> str:
    """Whose work it is: the job of the key, if it has one; the name in the query otherwise.

    Raises:
        InvalidRequestError: It is no name.
    """
    caller: Caller = request.state.caller
    bound = caller.key.job if caller.key is not None else None
    try:
        return checked_name(bound or request.query_params.get("annotator", ""))
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error
