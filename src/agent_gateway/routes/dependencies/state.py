"""The parts of the running service, as the routes get them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from agent_gateway.filetypes import SizeLimits
from agent_gateway.limits import RequestLimits
from agent_gateway.routes.http.api_key_cache import ApiKeyCache
from agent_gateway.routes.http.sessions import Sessions
from agent_gateway.routes.http.tickets import FileTickets, Tickets
from agent_gateway.routes.streams.turn_sources import TurnSources
from agent_gateway.store.conversations import ConversationStore
from agent_gateway.store.db.database import Database
from agent_gateway.store.end_users import EndUserStore
from agent_gateway.store.feedbacks import FeedbackStore
from agent_gateway.store.files import FileStore
from agent_gateway.store.messages import MessageStore
from agent_gateway.store.question_forms import FormStore
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turns.auxiliary_runs import AuxiliaryRuns
from agent_gateway.turns.form_waiters import FormWaiters
from agent_gateway.turns.maintenance import Maintenance
from agent_gateway.turns.outbox_worker import OutboxWorker
from agent_gateway.turns.registry import LiveTurns


class Installed(asyncio.Event):
    """Set when the database can be used and the default app is in place."""

    missing: str = "The database schema is behind: run `agent-gateway migrate`."
    """Why not yet; the text is for operators, and safe."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = asyncio.Event()
        """Set once the first attempt is over, however it ended."""


@dataclass(frozen=True, slots=True)
class AppState:
    """Everything that lives as long as the service does."""

    installed: Installed
    """Set once the schema is current and the default app is in place."""
    database: Database
    turns: TurnStores
    conversations: ConversationStore
    messages: MessageStore
    feedbacks: FeedbackStore
    end_users: EndUserStore
    forms: FormStore
    form_waiters: FormWaiters
    live: LiveTurns
    maintenance: Maintenance
    auxiliary_runs: AuxiliaryRuns
    outbox_worker: OutboxWorker
    keys: ApiKeyCache
    sessions: Sessions | None
    """The browsers at the playground; None when that is off."""
    tickets: Tickets
    files: FileStore
    file_tickets: FileTickets
    file_sizes: SizeLimits
    sources: TurnSources
    ping_seconds: float
    limits: RequestLimits
    sample: Callable[[], None]
    """Sets the gauges of this process."""


async def get_state(request: Request) -> AppState:
    """The parts of the service that answers this request. Async, or it would be run in a thread."""
    state: AppState = request.app.state.gateway
    return state


StateDep = Annotated[AppState, Depends(get_state)]
