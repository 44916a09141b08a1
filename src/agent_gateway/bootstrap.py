"""From an open database to a process that takes turns: a usable schema, the default app and its key."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from agent_gateway.apps.config import AppConfig
from agent_gateway.conditions import Condition
from agent_gateway.errors import StoreError, StoreUnavailable
from agent_gateway.limits import StartLimits
from agent_gateway.routes.dependencies.state import Installed
from agent_gateway.settings import Settings
from agent_gateway.store.apps import DEFAULT_SLUG, AppStore
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import schema_is_current
from agent_gateway.store.keys import KeyStore
from agent_gateway.store.secret_marks import Secrets

RETRY_SECONDS: Final = 2.0
"""Pause between two checks of the database, while the process is not ready."""
CANCEL_SECONDS: Final = 1.0
OTHERS_DIFFER: Final = (
    "Other processes work on this database with another AGENT_GATEWAY_SECRET_KEY: set theirs, or stop them."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Installs the default app as soon as the database has a schema that this code can use."""

    settings: Settings
    config: AppConfig
    database: Database
    apps: AppStore
    keys: KeyStore
    secrets: Secrets | None
    """None with SQLite, where only one process uses the database."""
    installed: Installed
    limits: StartLimits
    unusable: Condition = field(default_factory=lambda: Condition(logger, "the database cannot be used"))
    """It answers, but not to this process."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """While entered, install in the background. Entering waits for the first attempt.

        With SQLite it waits until the app is installed. With Postgres a process also starts without a usable
        database, so that its probes can report the reason.
        """
        task = asyncio.create_task(self._install(), name="install")
        task.add_done_callback(lambda _: self.installed.tried.set())
        try:
            if self.settings.embedded_database:
                await task
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.limits.listen_seconds):
                        await self.installed.tried.wait()
            yield
        finally:
            task.cancel()
            # With a frozen database it would take longer.
            await asyncio.wait([task], timeout=CANCEL_SECONDS)

    async def _install(self) -> None:
        while not await self._attempt():
            self.installed.tried.set()
            await asyncio.sleep(RETRY_SECONDS)
        self.installed.set()

    async def _attempt(self) -> bool:
        self.installed.missing = Installed.missing
        try:
            if not await schema_is_current(self.database):
                self.unusable.met("its schema is behind: run `agent-gateway migrate`")
                return False
            if self.secrets is not None and not await self.secrets.are_shared():
                self.installed.missing = OTHERS_DIFFER
                self.unusable.met(OTHERS_DIFFER)
                return False
            # From here on the database's clock is known as well.
            await self.database.now()
            await self._install_default_app()
        except StoreUnavailable as error:
            logger.debug("the database cannot be used: %s", error)
            return False
        except StoreError as error:
            self.unusable.met(error)
            return False
        self.unusable.passed()
        return True

    async def _install_default_app(self) -> None:
        built_in = self.settings.app_file is None
        app_id = (await self.apps.apply(DEFAULT_SLUG, self.config, built_in=built_in)).app_id
        if key := self.settings.api_key.get_secret_value():
            found = await self.keys.bootstrap(app_id, key)
            if found.replaced:
                logger.warning(
                    "AGENT_GATEWAY_API_KEY (or the secret key) has changed: the key before is revoked; "
                    "it works again when it is set again"
                )
            if not found.works:
                logger.error(
                    "AGENT_GATEWAY_API_KEY opens nothing here: it was revoked, or is a key of another app; "
                    "set another one"
                )
        elif key := await self.keys.make_first(app_id):
            # Printed, not logged: the operator sees a key once, and no log has it.
            print(f"\n  API key of the default app (shown only once): {key}\n", flush=True)  # noqa: T201
        if others := await self.keys.count_of_another_secret():
            logger.warning(
                "API keys that open nothing: %d. They were made under another AGENT_GATEWAY_SECRET_KEY. "
                "Set that one again, or make new keys and revoke these (`agent-gateway key list APP`)",
                others,
            )
