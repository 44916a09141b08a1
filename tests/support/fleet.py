"""Several gateways on one Postgres and one backend, and faults for them."""

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.domain.ids import TaskId
from agent_gateway.domain.turns import Caller, TurnRequest
from agent_gateway.limits import DEFAULTS, Limits
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import IdempotencyRow, TurnRow
from agent_gateway.store.turns.intake import StartedTurn
from tests.support.chat import Chat
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import API_KEY, BOUND, GatewayServer, wait_until
from tests.support.rows import Rows, add_app, installed, look, rows_of

T = TypeVar("T")

LEASE_SECONDS = 1.2


class Fleet:
    """Starts gateways that share everything; all are stopped when the test is over."""

    def __init__(self, stack: ExitStack, database_url: str, backend_url: str, folder: Path) -> None:
        self.database_url = database_url
        self._backend_url = backend_url
        self._folder = folder
        self._stack = stack
        self._processes = 0
        self.limits = DEFAULTS
        """Defaults of the gateways that `start` makes."""

    def start(self, *, limits: Limits | None = None, **settings: Any) -> GatewayServer:
        """One more gateway, in a thread of this process."""
        given: dict[str, Any] = {
            "database_url": self.database_url,
            "backend_url": self._backend_url,
            "lease_seconds": LEASE_SECONDS,
            "ping_seconds": 0.1,
            **settings,
        }
        return installed(
            self._stack.enter_context(GatewayServer(self._folder, limits=limits or self.limits, **given))
        )

    def process(self, *arguments: str, **settings: Any) -> GatewayProcess:
        """One more gateway, in a process of its own; settings are named without AGENT_GATEWAY_."""
        self._processes += 1
        folder = self._folder / f"process-{self._processes}"
        folder.mkdir()
        given: dict[str, Any] = {
            "DATABASE_URL": self.database_url,
            "BACKEND_URL": self._backend_url,
            "API_KEY": API_KEY,
            "LEASE_SECONDS": LEASE_SECONDS,
            "PING_SECONDS": 0.2,
            **settings,
        }
        return self._stack.enter_context(GatewayProcess(folder, *arguments, **given))

    def chat(self, server: GatewayServer | GatewayProcess, user: str, key: str = API_KEY) -> Chat:
        """This user at that gateway."""
        client = server.client(key)
        return Chat(self._stack.enter_context(client), user)

    def app(self, key: str, **config: Any) -> None:
        """One more app, with this key."""
        changed: AppConfig = default_app().model_copy(update=config)
        add_app(self.database_url, key, changed)

    def rows(self, task_id: str) -> Rows:
        """The rows of a turn."""
        return rows_of(self.database_url, task_id)

    def change(self, task_id: str, **values: Any) -> None:
        """Change a turn's row behind everybody's back."""

        async def work(session: AsyncSession) -> None:
            await session.execute(update(TurnRow).where(col(TurnRow.id) == task_id).values(**values))

        look(self.database_url, work)

    def age_keys(self, seconds: float) -> None:
        """Every Idempotency-Key was used that long ago."""

        async def work(session: AsyncSession) -> None:
            await session.execute(update(IdempotencyRow).values({"created_at": now_plus(-seconds)}))

        look(self.database_url, work)


def within(server: GatewayServer, work: Coroutine[Any, Any, T]) -> T:
    """Do something in the gateway's own loop."""
    return asyncio.run_coroutine_threadsafe(work, server._loop).result(BOUND)


def die(server: GatewayServer) -> None:
    """As kill -9, for all that others can see: its turns and its maintenance end without notice."""
    gateway = server.gateway

    async def run() -> None:
        await asyncio.wait(
            [*gateway.maintenance.cancel(), *gateway.outbox_worker.cancel(), *gateway.live.cancel()]
        )

    within(server, run())


def begun(server: GatewayServer, user: str, query: str) -> TaskId:
    """A turn that is begun by a process that dies before it does anything else."""

    async def run() -> TaskId:
        app = await server.gateway.keys.open(API_KEY)
        request = TurnRequest(query=query, inputs={}, files=[])
        turn = await server.gateway.turns.intake.begin(Caller(app, user), request)
        assert isinstance(turn, StartedTurn)
        return turn.turn.task_id

    return within(server, run())


def fall_silent(server: GatewayServer, task_id: str) -> None:
    """The run of this turn has said nothing for as long as it may, however long that is."""

    async def run() -> None:
        live = server.gateway.live.find(TaskId(task_id))
        assert live is not None
        live.runner._bounds.idle_seconds = 0.0
        live.runner._bounds.check()

    within(server, run())


def drives(server: GatewayServer, *task_ids: str) -> bool:
    """True when these are among the turns that this gateway drives."""
    return set(task_ids) <= {live.turn.task_id for live in server.gateway.live.running()}


def adopted(server: GatewayServer, *task_ids: str) -> None:
    """Wait until this gateway drives these turns."""
    wait_until(lambda: drives(server, *task_ids))
