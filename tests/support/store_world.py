"""Shared by store tests: callers of two apps, processes that hold turns, and a look at the rows."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Executable, MetaData, insert, select, update

from agent_gateway.apps.config import AppConfig
from agent_gateway.domain.events import GATEWAY_END, Endings, LLMChunk, Result
from agent_gateway.domain.human_input import FormAction, FormDefinition, FormInput, Submission
from agent_gateway.domain.ids import AppId, AppVersionId, ConversationId, RunId, new_id
from agent_gateway.domain.turns import App, Caller, Outcome, Step, Turn, TurnRequest, Usage
from agent_gateway.store.apps import AppStore
from agent_gateway.store.conversations import ConversationStore
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import Row
from agent_gateway.store.keys import KeyStore
from agent_gateway.store.messages import MessageStore
from agent_gateway.store.turns.intake import StartedTurn
from agent_gateway.store.turns.rows import OwnerContext
from agent_gateway.store.turns.stores import TurnStores

METADATA: MetaData = Row.metadata
apps, app_versions, turns = (METADATA.tables[name] for name in ("apps", "app_versions", "turns"))


@dataclass
class World:
    """A database with two apps, and the actions of a gateway process on it."""

    database: Database
    app: App
    other_app: App
    owner: str = field(default_factory=new_id)

    @classmethod
    async def make(cls, database: Database) -> "World":
        return cls(database, await _put_app(database, "one"), await _put_app(database, "two"))

    @property
    def ann(self) -> Caller:
        return Caller(self.app, "ann")

    @property
    def ben(self) -> Caller:
        return Caller(self.app, "ben")

    @property
    def stranger(self) -> Caller:
        """Another app's caller, with the same name there."""
        return Caller(self.other_app, "ann")

    @property
    def apps(self) -> AppStore:
        return AppStore(self.database)

    @property
    def keys(self) -> KeyStore:
        return KeyStore(self.database, b"secret")

    @property
    def conversations(self) -> ConversationStore:
        return ConversationStore(self.database)

    @property
    def messages(self) -> MessageStore:
        return MessageStore(self.database)

    @property
    def turns(self) -> TurnStores:
        """The turn writes of the process that most tests are about."""
        return self.process(self.owner)

    def process(
        self, owner: str | None = None, *, lease_seconds: float = 60.0, folds: tuple[int, ...] = (1,)
    ) -> TurnStores:
        """The turn writes of a process; without an owner, of another one. `folds` are those it knows."""
        return TurnStores.open(self.database, OwnerContext(owner or new_id(), lease_seconds, 600.0, folds))

    async def begin(
        self, caller: Caller | None = None, conversation_id: str | None = None, **request: Any
    ) -> Turn:
        """A turn that begins now, held by `turns`."""
        begun = await self.turns.intake.begin(caller or self.ann, ask(conversation_id, **request))
        assert isinstance(begun, StartedTurn)
        return begun.turn

    async def begun_by(self, process: TurnStores) -> Turn:
        """A turn that begins now, held by this process."""
        begun = await process.intake.begin(self.ann, ask())
        assert isinstance(begun, StartedTurn)
        return begun.turn

    async def fail(self, turn: Turn) -> None:
        """Another process takes the turn over and ends it as interrupted."""
        await self.expire(turn)
        process = self.process()
        (adopted,) = [
            found for found in await process.owned.adopt(expired=True) if found.task_id == turn.task_id
        ]
        assert await process.owned.finish(adopted, Endings(interrupted(), interrupted(stop=True)))

    async def ended(
        self,
        caller: Caller | None = None,
        conversation_id: str | None = None,
        *,
        snapshot: str | None = None,
    ) -> Turn:
        """A turn that was run to its end."""
        turn = await self.begin(caller, conversation_id)
        assert await self.turns.owned.arm(turn)
        assert await self.turns.owned.mark_running(turn, RunId("run")) is not None
        assert await self.turns.owned.finish(turn, Endings.always(completed(snapshot=snapshot)))
        return turn

    async def execute(self, statement: Executable, **parameters: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(statement, parameters or None)

    async def change(self, turn: Turn, **values: Any) -> None:
        """Change a turn's row behind everybody's back."""
        await self.execute(update(turns).where(turns.c.id == turn.task_id).values(**values))

    async def expire(self, turn: Turn) -> None:
        """The process that holds the turn is long silent."""
        await self.change(turn, lease_until=now_plus(-1))

    async def row(self, turn: Turn) -> Any:
        """The turn's row."""
        async with self.database.reading() as session:
            return (await session.execute(select(turns).where(turns.c.id == turn.task_id))).one()

    async def everything(self) -> Mapping[str, list[tuple[Any, ...]]]:
        """All rows of all tables."""
        async with self.database.reading() as session:
            return {
                name: [
                    tuple(row) for row in await session.execute(select(table).order_by(*table.primary_key))
                ]
                for name, table in METADATA.tables.items()
            }

    @asynccontextmanager
    async def unchanged(self) -> AsyncGenerator[None]:
        """Nothing in the whole database may change in here."""
        before = await self.everything()
        yield
        assert await self.everything() == before


def ask(
    conversation_id: str | None = None,
    *,
    query: str = "Hi",
    key: str | None = None,
    inputs: dict[str, Any] | None = None,
) -> TurnRequest:
    return TurnRequest(
        query=query,
        inputs={"name": "Ann"} if inputs is None else inputs,
        files=[],
        conversation_id=ConversationId(conversation_id) if conversation_id else None,
        idempotency_key=key,
    )


def completed(*texts: str, snapshot: str | None = None) -> Result:
    """An ended turn, with a gap in the positions where a step was emitted."""
    texts = texts or ("Hello, ", "world")
    chunks = tuple(LLMChunk(2 * number + 1, text) for number, text in enumerate(texts))
    step = Step(1, 2, thought="hm", tool="clock", tool_input='{"zone": "UTC"}', observation="12:00")
    return Result(
        outcome=Outcome.COMPLETED,
        chunks=chunks,
        steps=(step, Step(2, 4, thought="well")),
        end_position=2 * len(texts) + 4,
        usage=Usage(prompt_tokens=3, total_tokens=5, total_price="0.0012", latency=1.5),
        snapshot=snapshot,
    )


def interrupted(*, stop: bool = False) -> Result:
    """The end of a turn that no process could continue."""
    if stop:
        return Result(Outcome.STOPPED, (), (), GATEWAY_END)
    return Result(Outcome.FAILED, (), (), GATEWAY_END, "turn_interrupted")


async def _put_app(database: Database, slug: str) -> App:
    config = AppConfig(name=slug, opening_statement="Welcome", on_busy="reject")
    app = App(AppId(new_id()), AppVersionId(new_id()), config, slug)
    now = datetime.now(UTC)
    async with database.transaction() as session:
        await session.execute(
            insert(apps).values(
                id=app.id, tenant_id="t", slug=slug, version_id=app.version_id, created_at=now
            )
        )
        await session.execute(
            insert(app_versions).values(
                id=app.version_id, app_id=app.id, number=1, config=config.model_dump_json(), created_at=now
            )
        )
    return app


DEFINITION = FormDefinition(
    "T", "Sure?", (FormInput("size", "paragraph", "Size", True),), (FormAction("ok", "OK"),)
)


SUBMISSION = Submission("ok", {"size": "s"})
