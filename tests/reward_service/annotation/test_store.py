import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reward_service.annotation.annotation import Annotation
from reward_service.annotation.store import AnnotationStore, Kept, opened_store
from reward_service.annotation.task import Task
from reward_service.errors import ConfigError, InvalidRequestError


def other(number: int) -> Task:
    return Task.of(f"question {number}", [], ["a response"])


def test_tasks_are_kept_once_and_in_order(store: AnnotationStore, task: Task) -> None:
    assert store.add_tasks([other(1), task, other(2)]) == 3
    assert store.add_tasks([task, other(3)]) == 1
    assert store.all_tasks() == [other(1), task, other(2), other(3)]
    assert store.task(task.id) == task
    with pytest.raises(InvalidRequestError, match="no task 'x'"):
        store.task("x")


def test_each_annotator_has_an_annotation(store: AnnotationStore, task: Task, annotation: Annotation) -> None:
    store.add_tasks([task])
    assert store.find(task.id, "anna") is None
    assert store.save(task.id, "anna", Annotation(), done=False, based_on=0) == 1
    assert store.save(task.id, "anna", annotation, done=True, based_on=1) == 2
    assert store.save(task.id, "bob", Annotation(), done=False, based_on=0) == 1
    assert store.find(task.id, "anna") == Kept("anna", annotation, True, 2)
    assert [kept.annotator for _, kept in store.annotated()] == ["anna"]
    assert [kept.annotator for _, kept in store.annotated(drafts=True)] == ["anna", "bob"]
    assert store.annotated("bob") == []
    assert store.changes() == 3


def test_what_was_changed_elsewhere_is_not_overwritten(store: AnnotationStore, task: Task) -> None:
    store.add_tasks([task])
    store.save(task.id, "anna", Annotation(), done=False, based_on=0)
    for stale in (0, 2):
        with pytest.raises(InvalidRequestError, match="changed elsewhere"):
            store.save(task.id, "anna", Annotation(), done=True, based_on=stale)
    kept = store.find(task.id, "anna")
    assert kept is not None
    assert (kept.done, kept.revision) == (False, 1)


def test_an_annotation_needs_its_task(store: AnnotationStore) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.save("x", "anna", Annotation(), done=False, based_on=0)
    assert store.add_tasks([other(1)]) == 1, "the failed change left nothing open"


def test_states_are_each_persons(store: AnnotationStore, task: Task) -> None:
    store.add_tasks([task, other(1), other(2)])
    store.save(task.id, "anna", Annotation(), done=True, based_on=0)
    store.save(task.id, "bob", Annotation(), done=False, based_on=0)
    store.save(other(1).id, "bob", Annotation(), done=False, based_on=0)
    assert [(state.done, state.others) for state in store.states("anna")] == [(True, 1), (None, 1), (None, 0)]
    assert [(state.done, state.others) for state in store.states("bob")] == [(False, 1), (False, 0), (None, 0)]
    assert [(state.done, state.others) for state in store.states("cleo")] == [(None, 2), (None, 1), (None, 0)]


def test_only_one_of_many_changes_at_a_time_wins(store: AnnotationStore, task: Task) -> None:
    store.add_tasks([task])
    won: list[int] = []
    lost: list[Exception] = []

    def save() -> None:
        try:
            won.append(store.save(task.id, "anna", Annotation(), done=False, based_on=0))
        except InvalidRequestError as error:
            lost.append(error)

    threads = [threading.Thread(target=save) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (won, len(lost)) == ([1], 7)


KILLED = """
import os, signal, sys
from pathlib import Path
from reward_service.annotation.annotation import Annotation
from reward_service.annotation.store import AnnotationStore
from reward_service.annotation.task import Task
store = AnnotationStore(Path(sys.argv[1]))
task = Task.of("q", [], ["a"])
store.add_tasks([task])
store.save(task.id, "anna", Annotation(), done=True, based_on=0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_saved_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=120)
    with opened_store(path) as store:
        assert [kept.annotator for _, kept in store.annotated()] == ["anna"]


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as sql:
        sql.execute("CREATE TABLE cats (name TEXT)")
    sql.close()
    before = foreign.read_bytes()
    with pytest.raises(ConfigError, match="another program's"):
        AnnotationStore(foreign)
    assert foreign.read_bytes() == before
    (tmp_path / "text.db").write_text("no database at all, but long enough to be one" * 30)
    with pytest.raises(ConfigError, match="not a database"):
        AnnotationStore(tmp_path / "text.db")
    with pytest.raises(ConfigError, match="unable to open"):
        AnnotationStore(tmp_path / "no" / "folder.db")
