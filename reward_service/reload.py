"""SIGHUP: the settings file is read again, and what can change while requests run does."""

import logging
from collections.abc import Callable

from reward_service.config import ServiceSettings
from reward_service.core.fair_share import JobPolicies
from reward_service.errors import ConfigError, ServiceError, StoreError
from reward_service.key_file import read_keys
from reward_service.lineup import Lineup
from reward_service.logs import configure_logging
from reward_service.web.access import Access

logger = logging.getLogger(__name__)

LIVE = frozenset({"models", "auth", "fairness", "log_level", "log_format"})
"""Settings that take effect at once; the others need a restart."""


class Reload:
    """Reads the settings again and follows them. Faults are logged, and what was in force stays in force.

    Args:
        settings: With which the service was started.
        reread: Reads them again.
        access: Gets the keys.
        policies: Gets the weights and quotas of jobs.
        lineup: Gets the models.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        reread: Callable[[], ServiceSettings],
        access: Access,
        policies: JobPolicies,
        lineup: Lineup,
    ) -> None:
        self._settings = settings
        self._reread = reread
        self._access = access
        self._policies = policies
        self._lineup = lineup

    async def __call__(self) -> None:
        """Follow the file as it is now: keys, jobs and log at once, models when all of them are loaded."""
        logger.info("SIGHUP: reading the settings again")
        try:
            settings = self._reread()
            keys = None if settings.auth.keys is None else read_keys(settings.auth.keys)
        except (ConfigError, OSError) as error:
            logger.error("the old settings stay: %s", error)
            return
        if keys is None and self._access.keys is not None:
            logger.warning("auth.keys is gone: everybody who reaches the port may score now")
        self._access.keys = keys
        self._access.open_metrics = settings.auth.open_metrics
        self._policies.replace(settings.fairness.default.policy, settings.fairness.by_job())
        configure_logging(settings.log_level, settings.log_format)
        others = [name for name in ServiceSettings.model_fields if name not in LIVE]
        if fixed := [name for name in others if getattr(settings, name) != getattr(self._settings, name)]:
            logger.warning("needs a restart to change: %s", ", ".join(fixed))
        try:
            await self._lineup.follow(settings.models)
        except (ConfigError, StoreError, ServiceError, OSError) as error:
            logger.error("the old models stay: %s", error)
            return
        logger.info("the settings are in force")
