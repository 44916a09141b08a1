"""Runs the application on bound sockets: in this process, or in several that share them."""

import asyncio
import logging
import os
import shutil
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any

import typer
import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from agent_gateway import metrics
from agent_gateway.app import app_of_worker, create_app
from agent_gateway.apps.config import AppConfig
from agent_gateway.cli.environment import read_settings
from agent_gateway.cli.listen import bind, listening_on, url_of
from agent_gateway.cli.values import without_password
from agent_gateway.errors import ConfigError
from agent_gateway.garbage import spare_loaded_objects
from agent_gateway.openers import owned_database, prepare, secret_key
from agent_gateway.routes.http.sessions import SignInLinks
from agent_gateway.server.config import server_config
from agent_gateway.settings import Settings
from agent_gateway.startup_checks import validate_settings
from agent_gateway.store.db.url import async_url, described

START_FAILED = 2
METRICS_BYTES = 256 * 1024 * 1024
"""Room that the files of the metrics need in any case, however many workers there are and die."""

logger = logging.getLogger("uvicorn.error")


class Server(uvicorn.Server):
    """uvicorn's server, which also tells where it runs and with what when the sockets were bound before."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self.settings = settings

    # `typing.override` is newer than the oldest Python supported here.
    async def startup(  # pyrefly: ignore[missing-override-decorator]
        self, sockets: list[socket.socket] | None = None
    ) -> None:
        """Called in the event loop."""
        await super().startup(sockets)
        tell(self.settings, workers=1)


class Supervisor(Multiprocess):
    """uvicorn's supervisor, which here replaces only workers that died.

    uvicorn's own also kills workers that do not answer for five seconds. On a busy machine it would kill
    every worker that starts, again and again, and sometimes one that drives turns.
    """

    def keep_subprocess_alive(self) -> None:  # pyrefly: ignore[missing-override-decorator]
        """Called twice a second."""
        for index, worker in enumerate(self.processes):
            if worker.process.is_alive() or self.should_exit.is_set():
                continue
            if worker.exitcode == STARTUP_FAILURE:
                # The other workers would fail in the same way.
                self.should_exit.set()
                return
            logger.error("worker %s has died (%s): another one is started", worker.pid, worker.exitcode)
            if worker.pid is not None and metrics.FOLDER in os.environ:
                mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
            self.processes[index] = Process(self.config, self.sockets)
            self.processes[index].start()


def serve(host: str | None, port: int | None, workers: int) -> None:
    """Serve at this address, by default that of the settings. Raises ConfigError and StoreError."""
    settings = read_settings(host, port)
    config = validate_settings(settings)
    if workers > 1 and settings.embedded_database:
        raise ConfigError("--workers needs Postgres: an SQLite database belongs to one process")
    # A process that cannot serve changes nothing.
    with ExitStack() as stack:
        sockets = bind(settings.host, settings.port)
        for one in sockets:
            stack.enter_context(one)
        host, port = listening_on(sockets)
        settings = settings.model_copy(update={"host": host, "port": port})
        if workers == 1:
            serve_here(settings, config, sockets)
        else:
            serve_in_workers(settings, config, sockets, workers)


def serve_here(settings: Settings, config: AppConfig, sockets: list[socket.socket]) -> None:
    """Serve in this process until a signal ends it. Raises ConfigError and StoreError."""
    with owned_database(settings):
        asyncio.run(prepare(settings))
        app = create_app(settings, config=config, prepared=True)
        spare_loaded_objects()
        try:
            with suppress(KeyboardInterrupt):
                Server(_configured(settings, app), settings).run(sockets)
        except OSError as error:
            # Another process has bound the same address in the meantime.
            raise ConfigError(f"cannot listen on {url_of(settings.host, settings.port)}: {error}") from None


def serve_in_workers(
    settings: Settings, config: AppConfig, sockets: list[socket.socket], workers: int
) -> None:
    """Serve in several processes until a signal ends them all. A process that dies is replaced."""
    asyncio.run(prepare(settings))
    app = partial(app_of_worker, settings, config)
    server = _configured(settings, app, factory=True, workers=workers)
    tell(settings, workers)
    with suppress(KeyboardInterrupt), _shared_metrics(settings):
        supervisor = Supervisor(server, sockets)
        supervisor.run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
            raise typer.Exit(START_FAILED)


@contextmanager
def _shared_metrics(settings: Settings) -> Generator[None]:
    """A folder in which the workers share their metrics, whichever of them is asked."""
    if not settings.metrics:
        yield
        return
    try:
        shared = TemporaryDirectory(prefix="agent-gateway-metrics-")
    except OSError as error:
        raise ConfigError(f"no temporary folder for the metrics: {error.strerror}: set TMPDIR") from None
    with shared as folder:
        free = shutil.disk_usage(folder).free
        if free < METRICS_BYTES:
            # A process that writes to a file in memory for which there is no room is killed.
            logger.warning("each worker has metrics of its own: %s has only %d bytes left", folder, free)
            yield
            return
        os.environ[metrics.FOLDER] = folder
        try:
            yield
        finally:
            os.environ.pop(metrics.FOLDER, None)


def _configured(settings: Settings, app: Any, **more: Any) -> uvicorn.Config:
    return server_config(app, host=settings.host, port=settings.port, **more)


def tell(settings: Settings, workers: int) -> None:
    """Log where everything is, and print where a browser begins."""
    here = url_of(settings.host, settings.port)
    logger.info("running on %s", here, extra=summary_of(settings, workers))
    if settings.shows_playground:
        # Printed, not logged: whoever has the link signs in with it, once.
        link = SignInLinks(secret_key(settings)).make(settings.agent_url)
        print(
            f"\n  Chat in your browser: {link}\n  (The link works once, and expires after a day.)\n",
            flush=True,
        )
    elif settings.playground is None:
        reason = "PUBLIC_URL is set" if settings.is_local else "HOST is not only this machine"
        logger.info("the playground is off, since %s: AGENT_GATEWAY_PLAYGROUND=true turns it on", reason)


def summary_of(settings: Settings, workers: int) -> dict[str, object]:
    """What a start tells in one line: where everything is. No password, no key."""
    here = url_of(settings.host, settings.port)
    agent = (
        {"backend": without_password(settings.backend_url)}
        if settings.backend_url
        else {"model": settings.model or "(that of the app, or the demo agent)"}
    )
    return {
        "version": version("agent-gateway"),
        "database": described(async_url(settings.resolved_database_url())),
        **agent,
        "data": str(settings.data_dir.absolute()),
        "files": without_password(settings.files_url) or str((settings.data_dir / "files").absolute()),
        "public_url": settings.public_url or "(none)",
        "docs": f"{settings.public_url or here}/docs",
        "workers": workers,
    }
