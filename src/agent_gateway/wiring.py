"""Makes the parts of a running gateway from its settings, and closes them in reverse order."""

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final

from agent_gateway import metrics
from agent_gateway.apps.config import AppConfig
from agent_gateway.backend.fold.translate import FOLD_VERSIONS
from agent_gateway.backend.protocol import Backend
from agent_gateway.bootstrap import Bootstrap
from agent_gateway.crowd import Ticker
from agent_gateway.domain.ids import new_id
from agent_gateway.errors import StoreError
from agent_gateway.filetypes import SizeLimits
from agent_gateway.gauges import LOOK_SECONDS, Gauges, Meter
from agent_gateway.limits import Limits
from agent_gateway.openers import open_backend, open_database, open_files, secret_key
from agent_gateway.routes.dependencies.state import AppState, Installed
from agent_gateway.routes.http.api_key_cache import ApiKeyCache
from agent_gateway.routes.http.sessions import Sessions
from agent_gateway.routes.http.tickets import FileTickets, Tickets
from agent_gateway.routes.streams.frames import Frames
from agent_gateway.routes.streams.reader import PING_TICKS
from agent_gateway.routes.streams.turn_sources import TurnSources
from agent_gateway.settings import SECRET_CHARACTERS, Settings
from agent_gateway.store.apps import AppStore
from agent_gateway.store.conversations import ConversationStore
from agent_gateway.store.db.database import Database
from agent_gateway.store.end_users import EndUserStore
from agent_gateway.store.feedbacks import FeedbackStore
from agent_gateway.store.files import FileStore
from agent_gateway.store.keys import USE_SECONDS, KeyStore
from agent_gateway.store.messages import MessageStore
from agent_gateway.store.question_forms import FormStore
from agent_gateway.store.retention import Retention
from agent_gateway.store.secret_marks import NOTE_SECONDS, Secrets
from agent_gateway.store.turns.backlog import BacklogReader
from agent_gateway.store.turns.rows import OwnerContext
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turn_resources import Resources
from agent_gateway.turns.auxiliary_runs import AuxiliaryRuns
from agent_gateway.turns.form_waiters import FormWaiters
from agent_gateway.turns.maintenance import Job, Maintenance
from agent_gateway.turns.outbox_worker import OutboxWorker
from agent_gateway.turns.registry import LiveTurns

LAST_WORD_SECONDS: Final = 1.0
"""How long a process that exits waits for its last statement."""
TICKET_MARGIN_SECONDS: Final = 3600
"""How much longer than a turn a ticket is valid."""

logger = logging.getLogger(__name__)


async def open_gateway(
    settings: Settings, config: AppConfig, limits: Limits, stack: AsyncExitStack
) -> AppState:
    """Open every part; `stack` closes them. `config` is the default app's. Raises ConfigError, StoreError."""
    storage = await _open_storage(settings, limits, stack)
    tickets = _make_tickets(settings, storage)
    backend = open_backend(settings, storage.database, storage.owner, limits.backend)
    stack.push_async_callback(backend.aclose)
    turns = await _open_turns(settings, limits, storage, backend, tickets, stack)
    keys = ApiKeyCache(storage.keys, storage.database.clock, limits.requests)
    gauges = Gauges(turns.live, storage.database, BacklogReader(storage.database))
    jobs = [Job(keys.write_use, USE_SECONDS)]
    if metrics.is_on():
        jobs.append(Job(gauges.look_at_backlog, LOOK_SECONDS))
        stack.callback(Meter().stop)
    await _start_work(settings, config, limits, storage, turns, jobs, stack)
    return AppState(
        installed=storage.installed,
        database=storage.database,
        turns=storage.turns,
        conversations=ConversationStore(storage.database),
        messages=MessageStore(storage.database),
        feedbacks=FeedbackStore(storage.database),
        end_users=EndUserStore(storage.database),
        forms=storage.forms,
        form_waiters=turns.form_waiters,
        live=turns.live,
        maintenance=turns.maintenance,
        auxiliary_runs=turns.auxiliary_runs,
        outbox_worker=turns.outbox_worker,
        keys=keys,
        sessions=_make_sessions(settings, storage.secret),
        tickets=tickets.events,
        files=storage.files,
        file_tickets=tickets.files,
        file_sizes=SizeLimits(
            image=settings.image_file_size_limit,
            document=settings.file_size_limit,
            audio=settings.audio_file_size_limit,
            video=settings.video_file_size_limit,
        ),
        sources=TurnSources(
            turns.live,
            storage.turns,
            Frames(tickets.files.url),
            limits.requests.deleted_check_seconds,
            Ticker(settings.ping_seconds / PING_TICKS),
        ),
        ping_seconds=settings.ping_seconds,
        limits=limits.requests,
        sample=gauges.sample,
    )


@dataclass(frozen=True, slots=True)
class _Storage:
    database: Database
    owner: str
    """This process, in the rows."""
    secret: bytes
    secrets: Secrets | None
    installed: Installed
    turns: TurnStores
    apps: AppStore
    keys: KeyStore
    files: FileStore
    forms: FormStore


async def _open_storage(settings: Settings, limits: Limits, stack: AsyncExitStack) -> _Storage:
    secret = secret_key(settings)
    if len(secret) < SECRET_CHARACTERS:
        logger.warning(
            "the secret key has fewer than %d characters: one who sees a ticket may guess it",
            SECRET_CHARACTERS,
        )
    database = open_database(settings, limits.database)
    stack.push_async_callback(database.close)
    owner = OwnerContext(new_id(), settings.lease_seconds, settings.turn_timeout_seconds, FOLD_VERSIONS)
    storage = _Storage(
        database=database,
        owner=owner.owner,
        secret=secret,
        secrets=None if settings.embedded_database else Secrets(database, owner.owner, secret),
        installed=Installed(),
        turns=TurnStores.open(database, owner),
        apps=AppStore(database),
        keys=KeyStore(database, secret),
        files=FileStore(database, open_files(settings)),
        forms=FormStore(database),
    )
    await database.hold()
    return storage


@dataclass(frozen=True, slots=True)
class _Tickets:
    events: Tickets
    files: FileTickets
    agent_files: FileTickets
    """The same files, with URLs by which the agent reaches this gateway."""


def _make_tickets(settings: Settings, storage: _Storage) -> _Tickets:
    seconds = settings.turn_timeout_seconds + TICKET_MARGIN_SECONDS
    secret, clock, public_url = storage.secret, storage.database.clock, settings.public_url
    return _Tickets(
        events=Tickets(secret, seconds=seconds, clock=clock, public_url=public_url),
        files=FileTickets(secret, seconds=seconds, clock=clock, public_url=public_url),
        agent_files=FileTickets(secret, seconds=seconds, clock=clock, public_url=settings.agent_url),
    )


def _make_sessions(settings: Settings, secret: bytes) -> Sessions | None:
    if not settings.shows_playground:
        return None
    return Sessions(secret, domain=settings.cookie_domain, public_url=settings.public_url)


@dataclass(frozen=True, slots=True)
class _Turns:
    live: LiveTurns
    auxiliary_runs: AuxiliaryRuns
    outbox_worker: OutboxWorker
    form_waiters: FormWaiters
    maintenance: Maintenance


async def _open_turns(
    settings: Settings,
    limits: Limits,
    storage: _Storage,
    backend: Backend,
    tickets: _Tickets,
    stack: AsyncExitStack,
) -> _Turns:
    live = await stack.enter_async_context(
        LiveTurns(
            resources=Resources(
                backend=backend,
                store=storage.turns,
                files=storage.files,
                limits=limits.turn,
                idle_seconds=settings.idle_timeout_seconds,
                environ=os.environ,
                file_url=tickets.agent_files.url,
                clock=storage.database.clock,
            ),
            most=settings.max_active_turns,
            shared=not settings.embedded_database,
            limits=limits.registry,
            drain_limits=limits.drain,
        )
    )
    if settings.embedded_database:
        # No other process can own turns of this database, so a turn with another owner has lost it.
        while orphans := await storage.turns.owned.adopt(expired=True, everyone=True):
            for turn in orphans:
                live.adopt(turn)
    auxiliary_runs = AuxiliaryRuns(backend, os.environ, limits.turn.cancel_seconds)
    outbox_worker = OutboxWorker(
        storage.turns,
        backend,
        auxiliary_runs,
        live.draining,
        limits.outbox,
        limits.turn.cancel_seconds,
    )
    await stack.enter_async_context(outbox_worker)
    form_waiters = FormWaiters(storage.forms)
    return _Turns(
        live=live,
        auxiliary_runs=auxiliary_runs,
        outbox_worker=outbox_worker,
        form_waiters=form_waiters,
        maintenance=Maintenance(
            live,
            storage.turns,
            outbox_worker,
            form_waiters,
            Retention(
                storage.database,
                storage.files,
                settings.retention_days,
                settings.turn_timeout_seconds,
            ),
            settings.lease_seconds,
            limits.maintenance,
        ),
    )


async def _start_work(
    settings: Settings,
    config: AppConfig,
    limits: Limits,
    storage: _Storage,
    turns: _Turns,
    jobs: Sequence[Job],
    stack: AsyncExitStack,
) -> None:
    """Start what runs as long as the process. The bootstrap is last: a key that it prints must work."""
    further = list(jobs)
    if storage.secrets is not None:
        further.append(Job(storage.secrets.note, NOTE_SECONDS))
        stack.push_async_callback(_leave, storage.database, storage.secrets)
    await stack.enter_async_context(turns.maintenance.running(storage.installed, *further))
    bootstrap = Bootstrap(
        settings=settings,
        config=config,
        database=storage.database,
        apps=storage.apps,
        keys=storage.keys,
        secrets=storage.secrets,
        installed=storage.installed,
        limits=limits.start,
    )
    await stack.enter_async_context(bootstrap.running())


async def _leave(database: Database, secrets: Secrets) -> None:
    """Remove this process's row, if possible. Otherwise others wait a minute before they accept a new key."""
    with suppress(StoreError, TimeoutError):
        async with asyncio.timeout(LAST_WORD_SECONDS):
            await database.shielded(secrets.leave())
