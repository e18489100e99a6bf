"""The annotations that the service keeps: opened, and filled with the tasks of its settings."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from reward_service.annotate_settings import AnnotateSettings
from reward_service.annotation.files import TaskFormat, add_imported, read_annotations
from reward_service.annotation.store import AnnotationStore, opened_store
from reward_service.errors import ConfigError

logger = logging.getLogger(__name__)


@contextmanager
def opened_annotations(settings: AnnotateSettings) -> Iterator[AnnotationStore | None]:
    """The store for as long as the service runs; None where the settings switch the page off.

    Raises:
        ConfigError: The file cannot be there or is somebody else's; faults in a file of tasks; a package is missing.
    """
    if settings.path is None:
        yield None
        return
    if find_spec("nltk") is None:
        raise ConfigError("settings", ["annotate needs a package: pip install 'fine-grained-rlhf[annotation]'"])
    if not settings.path.parent.is_dir():
        raise ConfigError("settings", [f"annotate.path: {settings.path.parent} is no folder"])
    with opened_store(settings.path) as store:
        for path in settings.tasks:
            added = add_imported(store, read_annotations(path, TaskFormat.QA_FEEDBACK))
            logger.info("%d new tasks to annotate from %s", added.tasks, path)
        yield store
