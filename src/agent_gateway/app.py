"""The composition root: builds every part from settings and takes them down in reverse."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Depends, FastAPI

from agent_gateway import logs
from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.apps.file import load_app_file, refusal
from agent_gateway.backend.client import HTTPBackend
from agent_gateway.backend.compose import has_place_for_files
from agent_gateway.backend.fold.fold import FOLD_VERSIONS
from agent_gateway.backend.protocol import Backend
from agent_gateway.domain.ids import new_id
from agent_gateway.errors import StoreError
from agent_gateway.filetypes import SizeLimits
from agent_gateway.limits import DEFAULTS, BackendLimits, Limits
from agent_gateway.preparation import check_database, open_database, open_files, owned_database, prepare
from agent_gateway.routes import (
    app_info,
    audio,
    chat_messages,
    conversations,
    end_users,
    feedbacks,
    files,
    health,
    human_input,
    index,
    messages,
    turn_events,
    unserved,
    variables,
)
from agent_gateway.routes.dependencies.state import AppState, Installed
from agent_gateway.routes.http import cors, docs_page, errors, openapi
from agent_gateway.routes.http.api_key_cache import ApiKeyCache
from agent_gateway.routes.http.middleware import HeadRequests, RequestBodies, RequestIds
from agent_gateway.routes.http.request_text import require_text
from agent_gateway.routes.http.tickets import FileTickets, Tickets
from agent_gateway.routes.streams.frames import Frames
from agent_gateway.runner import Resources
from agent_gateway.settings import SECRET_CHARACTERS, Settings
from agent_gateway.signals import draining_first
from agent_gateway.store.apps import DEFAULT_SLUG, AppStore
from agent_gateway.store.conversations import ConversationStore
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.migrations import schema_is_current
from agent_gateway.store.db.shielded import shielded
from agent_gateway.store.end_users import EndUserStore
from agent_gateway.store.feedbacks import FeedbackStore
from agent_gateway.store.files import FileStore
from agent_gateway.store.keys import USE_SECONDS, KeyStore
from agent_gateway.store.question_forms import FormStore
from agent_gateway.store.secrets import NOTE_SECONDS, Secrets
from agent_gateway.store.turns.rows import OwnerContext
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turns.auxiliary_runs import AuxiliaryRuns
from agent_gateway.turns.form_waiters import FormWaiters
from agent_gateway.turns.maintenance import Maintenance
from agent_gateway.turns.outbox_worker import OutboxWorker
from agent_gateway.turns.registry import LiveTurns

INSTALL_SECONDS: Final = 2.0
"""How often a process that is not ready looks at its database again."""

CANCEL_SECONDS: Final = 1.0
LEAVE_SECONDS: Final = 2.0
"""How long requests may go on after the drain."""

LAST_WORD_SECONDS: Final = 1.0
"""How long a process that ends waits for its last word to the database."""
OTHERS_DIFFER: Final = (
    "Other processes work on this database with another AGENT_GATEWAY_SECRET_KEY: set theirs, or stop them."
)

logger = logging.getLogger(__name__)


def app_from_environment() -> FastAPI:
    """The application with settings from the environment, for servers that want a factory."""
    settings = Settings.read()
    logs.configure(settings.log_format)
    return create_app(settings)


def app_of_worker(settings: Settings, config: AppConfig) -> FastAPI:
    """The application of one of several processes, with what their parent has read."""
    logs.configure(settings.log_format)
    return create_app(settings, config=config)


def create_app(
    settings: Settings,
    *,
    config: AppConfig | None = None,
    prepared: bool = False,
    limits: Limits = DEFAULTS,
) -> FastAPI:
    """The ASGI application. Nothing is opened before its lifespan starts.

    `config` is the default app's, if it was read already. With `prepared` the caller owns and has prepared
    the database. `limits` are bounds that no setting changes.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            if not prepared:
                stack.enter_context(owned_database(settings))
                await prepare(settings)
            default = config or load_config(settings)
            gateway = app.state.gateway = await _open(settings, default, limits, stack)

            async def leave(seconds: float) -> None:
                answered = await gateway.live.drain(seconds)
                # Requests that the database does not answer would keep the server from its exit.
                delay = LEAVE_SECONDS if answered else 0.0
                asyncio.get_running_loop().call_later(delay, gateway.database.abort)

            with draining_first(leave, settings.drain_seconds):
                yield

    app = FastAPI(
        title="Agent Gateway",
        version=version("agent-gateway"),
        lifespan=lifespan,
        docs_url=None,  # routes/http/docs_page.py has it
        redoc_url=None,
        # A redirect has no envelope, and names whatever host the request did.
        redirect_slashes=False,
        separate_input_output_schemas=False,
        # The framework's own telemetry would record URLs, tickets and rejected values.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    routes = APIRouter(dependencies=[Depends(require_text)])
    for module in (
        chat_messages,
        turn_events,
        conversations,
        messages,
        variables,
        feedbacks,
        files,
        human_input,
        app_info,
        end_users,
        audio,
        index,
        unserved,
    ):
        routes.include_router(module.router)
    app.include_router(routes)
    app.include_router(routes, prefix="/v1", include_in_schema=False)
    app.include_router(health.router)
    app.add_middleware(RequestBodies, most=settings.max_body_bytes)
    app.add_middleware(HeadRequests)
    app.add_middleware(RequestIds)
    cors.install(app, settings.cors_origins)
    errors.install(app)
    docs_page.install(app)
    openapi.install(app, settings.public_url)
    return app


def check(settings: Settings) -> AppConfig:
    """The configuration of the default app. Raises ConfigError for what no start could work with, so that it
    is told before anything starts."""
    check_database(settings)
    settings.given_secret_key()
    config = load_config(settings)
    if settings.model and not settings.backend_url:
        build_backend(settings)
    return config


def build_backend(settings: Settings, limits: BackendLimits = DEFAULTS.backend) -> Backend:
    """The agent backend these settings name; ConfigError when the model can not be used."""
    if settings.backend_url:
        return HTTPBackend(
            settings.backend_url,
            token=settings.backend_token.get_secret_value(),
            reconnect_seconds=settings.backend_reconnect_seconds,
            fallback=settings.backend_schema,
            limits=limits,
        )
    # Imported here: the agent library takes a second to load and is not needed with BACKEND_URL.
    from agent_gateway.backend.embedded import EmbeddedBackend

    return EmbeddedBackend(settings.model)


def load_config(settings: Settings) -> AppConfig:
    """The configuration of the default app; ConfigError when its file is wrong."""
    if settings.app_file is None:
        return default_app(settings.app_mode)
    config = load_app_file(settings.app_file, os.environ)
    check_app(settings, config, str(settings.app_file))
    return config


def check_app(settings: Settings, config: AppConfig, source: str) -> list[str]:
    """Raise ConfigError for what the embedded agent would leave out; returns what else is worth a note.

    What another backend knows is its own business. `source` says whose data it is.
    """
    notes: list[str] = []
    if config.file_upload.enabled and not has_place_for_files(config.composition):
        notes.append("files of messages reach no layer: say ${files} in a prompt, or turn file_upload off")
    if settings.backend_url:
        return notes
    from agent_gateway.backend.embedded.app_check import problems, unknown_models

    if found := problems(config):
        raise refusal(source, found, " for the embedded agent (AGENT_GATEWAY_BACKEND_URL is not set)")
    return notes + unknown_models(config)


async def _open(settings: Settings, config: AppConfig, limits: Limits, stack: AsyncExitStack) -> AppState:
    secret = settings.resolved_secret_key()
    if len(secret) < SECRET_CHARACTERS:
        logger.warning(
            "the secret key has fewer than %d characters: who sees a ticket may guess it",
            SECRET_CHARACTERS,
        )
    database = open_database(settings)
    stack.push_async_callback(database.close)
    terms = OwnerContext(new_id(), settings.lease_seconds, settings.turn_timeout_seconds, FOLD_VERSIONS)
    turns, apps, keys = TurnStores.open(database, terms), AppStore(database), KeyStore(database, secret)
    file_store = FileStore(database, open_files(settings))
    seconds = settings.turn_timeout_seconds + 3600
    file_tickets = FileTickets(secret, seconds=seconds, clock=database.clock, public_url=settings.public_url)
    await database.hold()
    backend = build_backend(settings, limits.backend)
    stack.push_async_callback(backend.aclose)
    live = await stack.enter_async_context(
        LiveTurns(
            resources=Resources(
                backend=backend,
                store=turns,
                files=file_store,
                limits=limits.turn,
                idle_seconds=settings.idle_timeout_seconds,
                environ=os.environ,
                file_url=FileTickets(
                    secret, seconds=seconds, clock=database.clock, public_url=settings.agent_url
                ).url,
            ),
            most=settings.max_active_turns,
            shared=not settings.embedded_database,
            limits=limits.registry,
            drain_limits=limits.drain,
        )
    )
    if settings.embedded_database:
        # Nobody else can hold turns of this database: whatever has an owner lost it.
        while orphans := await turns.owned.adopt(expired=True, everyone=True):
            for turn in orphans:
                live.adopt(turn)
    installed = Installed()
    secrets = None if settings.embedded_database else Secrets(database, terms.owner, secret)
    auxiliary_runs = AuxiliaryRuns(backend, os.environ, limits.turn.cancel_seconds)
    errands = OutboxWorker(
        turns.outbox, backend, auxiliary_runs, live.draining, limits.outbox, limits.turn.cancel_seconds
    )
    stack.push_async_callback(errands.aclose)
    key_ring = ApiKeyCache(keys, database.clock)
    form_store = FormStore(database)
    answers = FormWaiters(form_store)
    duties = Maintenance(
        live, turns, errands, answers, file_store, settings.lease_seconds, limits.maintenance
    )
    noting = []
    if secrets is not None:
        noting.append((secrets.note, NOTE_SECONDS))
        stack.push_async_callback(_leave, secrets)
    stack.push_async_callback(_cancel, *duties.start(installed, (key_ring.write_use, USE_SECONDS), *noting))
    # Last, since a key that is printed has to work.
    install = asyncio.create_task(
        _install(settings, database, apps, keys, config, installed, secrets), name="install"
    )
    install.add_done_callback(lambda _: installed.tried.set())
    stack.push_async_callback(_cancel, install)
    if settings.embedded_database:
        await install
    else:
        # Usually a moment. Without a usable database the process answers its probes all the same.
        await _first_attempt(installed, limits.start.listen_seconds)
    return AppState(
        installed=installed,
        database=database,
        turns=turns,
        conversations=ConversationStore(database),
        feedbacks=FeedbackStore(database),
        end_users=EndUserStore(database),
        forms=form_store,
        form_waiters=answers,
        live=live,
        maintenance=duties,
        auxiliary_runs=auxiliary_runs,
        outbox_worker=errands,
        keys=key_ring,
        tickets=Tickets(secret, seconds=seconds, clock=database.clock, public_url=settings.public_url),
        files=file_store,
        file_tickets=file_tickets,
        file_sizes=SizeLimits(
            image=settings.image_file_size_limit,
            document=settings.file_size_limit,
            audio=settings.audio_file_size_limit,
            video=settings.video_file_size_limit,
        ),
        frames=Frames(file_tickets.url),
        ping_seconds=settings.ping_seconds,
        limits=limits.requests,
    )


async def _install(
    settings: Settings,
    database: Database,
    apps: AppStore,
    keys: KeyStore,
    config: AppConfig,
    installed: Installed,
    secrets: Secrets | None,
) -> None:
    """Install the default app as soon as the database has a schema this code can use."""
    while not installed.is_set():
        try:
            installed.missing = Installed.missing
            if await schema_is_current(database):
                if secrets is not None and not await secrets.are_shared():
                    installed.missing = OTHERS_DIFFER
                    logger.error("%s", OTHERS_DIFFER)
                    installed.tried.set()
                    await asyncio.sleep(INSTALL_SECONDS)
                    continue
                # Now the database's clock is known, too.
                await database.now()
                await _install_default_app(settings, apps, keys, config)
                installed.set()
                return
            logger.error("the database schema is behind: run `agent-gateway migrate`")
        except StoreError as error:
            logger.error("the database can not be used: %s", error)
        installed.tried.set()
        await asyncio.sleep(INSTALL_SECONDS)


async def _first_attempt(installed: Installed, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await installed.tried.wait()


async def _install_default_app(settings: Settings, apps: AppStore, keys: KeyStore, config: AppConfig) -> None:
    app_id = (await apps.apply(DEFAULT_SLUG, config, built_in=settings.app_file is None)).app_id
    if key := settings.api_key.get_secret_value():
        found = await keys.bootstrap(app_id, key)
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
    elif key := await keys.make_first(app_id):
        # Printed, not logged: a key belongs on the operator's screen once, and in no log.
        print(f"\n  API key of the default app (shown only once): {key}\n", flush=True)  # noqa: T201


async def _leave(secrets: Secrets) -> None:
    """Best effort: without it others wait for a minute before they take another secret key."""
    with suppress(StoreError, TimeoutError):
        async with asyncio.timeout(LAST_WORD_SECONDS):
            await shielded(secrets.leave())


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    """End these, but wait for none that does not end: its database may be frozen."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
