"""The four writes of a turn on Postgres: each a single statement over arrays, one round trip, one commit.

A statement sees everything as it was when it began. So it skips rows that another transaction has locked, and
conversations that changed before they were locked here. That shows in their number or time: every transaction
that changes what these statements read of a conversation sets one of them. What is skipped takes the other
way, which waits. Here nobody waits for conversations and turns, only for a key or an end user that is being
inserted, in their order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    ARRAY,
    CTE,
    Boolean,
    ColumnElement,
    FromClause,
    Integer,
    LargeBinary,
    Select,
    Text,
    bindparam,
    case,
    cast,
    column,
    exists,
    func,
    insert,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.types import TypeEngine

from agent_gateway.domain.turns import Step, TurnState
from agent_gateway.store.db.connections import Pool
from agent_gateway.store.db.database import Database
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.prepared import PreparedForPostgres
from agent_gateway.store.db.scope import is_end_user, owned_by
from agent_gateway.store.db.tables import (
    conversations,
    end_users,
    forms,
    idempotency,
    is_active,
    is_open,
    messages,
    snapshots,
    steps,
    turns,
    uuid_type,
)
from agent_gateway.store.turns.common_path import Begun, NewMessage, OwnedTurn, Running, TurnEnd
from agent_gateway.store.turns.idempotency import IDEMPOTENCY_SECONDS
from agent_gateway.store.turns.rows import OwnerContext


class CommonWritesOnPostgres:
    """Implements `CommonWrites`."""

    def __init__(self, database: Database, context: OwnerContext) -> None:
        self._database = database
        self._values = {
            "our_owner": context.owner,
            "lease_seconds": context.lease_seconds,
            "turn_seconds": context.turn_seconds,
            "our_fold": context.fold_versions[0],
        }

    async def begin(self, messages: Sequence[NewMessage]) -> list[Begun | None]:
        """Begin turns (R3)."""
        begun: list[Begun | None] = [None] * len(messages)
        for n, now, snapshot, inputs in await self._fetch(BEGIN, _columns(NewMessage, messages)):
            begun[n - 1] = Begun(now, snapshot, inputs)
        return begun

    async def arm(self, owned: Sequence[OwnedTurn]) -> list[bool]:
        """`planned → sending` (R4)."""
        armed = {row[0] for row in await self._fetch(ARM, _columns(OwnedTurn, owned))}
        return [turn.task in armed for turn in owned]

    async def mark_running(self, owned: Sequence[OwnedTurn]) -> list[Running | None]:
        """`sending → running` (R4)."""
        found = await self._fetch(MARK_RUNNING, _columns(OwnedTurn, owned))
        running = {task: Running(stop_asked) for task, stop_asked in found}
        return [running.get(turn.task) for turn in owned]

    async def renew(self, owned: Sequence[OwnedTurn]) -> list[Running | None]:
        """Renew leases (R6)."""
        found = await self._fetch(RENEW, _columns(OwnedTurn, owned), "heartbeats")
        renewed = {task: Running(stop_asked) for task, stop_asked in found}
        return [renewed.get(turn.task) for turn in owned]

    async def finish(self, ends: Sequence[TurnEnd]) -> list[bool]:
        """`running → ended` (R7)."""
        values = _columns(TurnEnd, ends)
        values["step_task"] = [end.task for end in ends for _ in end.steps]
        for name in _STEP_NAMES:
            values[f"step_{name}"] = [getattr(step, name) for end in ends for step in end.steps]
        ended = {row[0] for row in await self._fetch(FINISH, values, "duty")}
        return [end.task in ended for end in ends]

    async def _fetch(
        self, statement: PreparedForPostgres, values: Mapping[str, Any], pool: Pool = "requests"
    ) -> list[Any]:
        return await self._database.fetch(statement, {**self._values, **values}, pool)


def _columns(kind: type[NamedTuple], rows: Sequence[NamedTuple]) -> dict[str, list[Any]]:
    return {field: [row[number] for row in rows] for number, field in enumerate(kind._fields)}


def _arrays(cte_name: str, prefix: str = "", /, **types: TypeEngine[Any]) -> CTE:
    """The parameters of a statement as rows, with their number `n`: each parameter is an array."""
    given = [bindparam(prefix + field, type_=ARRAY(kind)) for field, kind in types.items()]
    columns = [column(field, kind) for field, kind in types.items()]
    table = func.unnest(*given).table_valued(*columns, with_ordinality="n").render_derived(name="array")
    return select(*table.c).cte(cte_name)


def _unchanged(locked: CTE) -> ColumnElement[bool]:
    """Whether a locked conversation is still as this statement sees everything else."""
    seen = conversations.alias("seen")
    return exists().where(
        seen.c.id == locked.c.id,
        seen.c.last_seq == locked.c.last_seq,
        seen.c.updated_at == locked.c.updated_at,
    )


def _none(table: FromClause, *which: ColumnElement[bool]) -> ColumnElement[bool]:
    """That there is no such row, looked up by its index.

    As NOT EXISTS it could become a join, which reads the active turns of all conversations.
    """
    return select(table.c.id).where(*which).limit(1).scalar_subquery().is_(None)


def _locked_conversations(ids: Select[Any]) -> CTE:
    return (
        select(conversations)
        .where(conversations.c.id.in_(ids))
        .order_by(conversations.c.id)
        .with_for_update(skip_locked=True)
        .cte("locked_conversations")
    )


_MOMENT: Final = select(now_plus().label("now")).cte("moment")
_UUID: Final = uuid_type()
_EMPTY: Final = literal_column("'{}'::jsonb", JSONB())
_STEP_NAMES: Final = tuple(field.name for field in msgspec.structs.fields(Step))


def _begin() -> PreparedForPostgres:
    """Decide which messages begin a turn at once, claim their keys, and only then write."""
    row = _arrays(
        "given",
        task=_UUID,
        message=_UUID,
        conversation=_UUID,
        starts=Boolean(),
        app=_UUID,
        version=_UUID,
        end_user=_UUID,
        external_id=Text(),
        name=Text(),
        naming=Text(),
        introduction=Text(),
        inputs=Text(),
        query=Text(),
        files=Text(),
        key=Text(),
        body_hash=Text(),
        trace_id=Text(),
        trace_session_id=Text(),
    )
    known_user = (
        select(row.c.n, end_users.c.id)
        .join(end_users, is_end_user(row.c.app, row.c.external_id))
        .cte("known_user")
    )
    locked = _locked_conversations(select(row.c.conversation).where(~row.c.starts))
    continued = (
        select(row.c.n, locked.c.last_seq, locked.c.inputs)
        .join(known_user, known_user.c.n == row.c.n)
        .join(locked, locked.c.id == row.c.conversation)
        .where(
            owned_by(locked, row.c.app, known_user.c.id),
            locked.c.app_version_id == row.c.version,
            _unchanged(locked),
            _none(turns, turns.c.conversation_id == locked.c.id, is_active(turns)),
            _none(forms, forms.c.conversation_id == locked.c.id, is_open(forms)),
        )
        .cte("continued")
    )
    accepted = union_all(select(row.c.n).where(row.c.starts), select(continued.c.n)).cte("accepted")
    claim = upsert(idempotency).from_select(
        ["app_id", "user_id", "key", "turn_id", "body_hash", "created_at"],
        select(row.c.app, row.c.external_id, row.c.key, row.c.task, row.c.body_hash, _MOMENT.c.now)
        .join(accepted, accepted.c.n == row.c.n)
        .join(_MOMENT, true())
        .where(row.c.key.is_not(None))
        .order_by(row.c.app, row.c.external_id, row.c.key),
        include_defaults=False,
    )
    claimed = (
        claim.on_conflict_do_update(
            index_elements=["app_id", "user_id", "key"],
            set_={name: claim.excluded[name] for name in ("turn_id", "body_hash", "created_at")},
            where=idempotency.c.created_at < now_plus(-IDEMPOTENCY_SECONDS),
        )
        .returning(idempotency.c.turn_id)
        .cte("claimed")
    )
    going = (
        select(
            row,
            known_user.c.id.label("known_user"),
            continued.c.inputs.label("kept_inputs"),
            func.coalesce(continued.c.last_seq + 1, 1).label("seq"),
            _MOMENT.c.now,
        )
        .join(accepted, accepted.c.n == row.c.n)
        .join(_MOMENT, true())
        .outerjoin(known_user, known_user.c.n == row.c.n)
        .outerjoin(continued, continued.c.n == row.c.n)
        .outerjoin(claimed, claimed.c.turn_id == row.c.task)
        .where(or_(row.c.key.is_(None), claimed.c.turn_id.is_not(None)))
        .cte("going")
    )
    # Another process may insert the same user at this moment: then its row is taken.
    new_user = (
        upsert(end_users)
        .from_select(
            ["id", "app_id", "external_id", "created_at"],
            select(going.c.end_user, going.c.app, going.c.external_id, going.c.now)
            .ext(distinct_on(going.c.app, going.c.external_id))
            .where(going.c.starts, going.c.known_user.is_(None))
            .order_by(going.c.app, going.c.external_id),
            include_defaults=False,
        )
        .on_conflict_do_update(
            index_elements=["app_id", "external_id"], set_={"created_at": end_users.c.created_at}
        )
        .returning(end_users.c.id, end_users.c.app_id, end_users.c.external_id)
        .cte("new_user")
    )
    new_conversation = _insert(
        conversations,
        select(going)
        .outerjoin(new_user, is_end_user(going.c.app, going.c.external_id, new_user))
        .where(going.c.starts),
        id=going.c.conversation,
        app_id=going.c.app,
        app_version_id=going.c.version,
        end_user_id=func.coalesce(going.c.known_user, new_user.c.id),
        name=going.c.name,
        naming=going.c.naming,
        inputs=cast(going.c.inputs, JSONB),
        introduction=going.c.introduction,
        last_seq=literal(1),
        created_at=going.c.now,
        updated_at=going.c.now,
    )
    numbered = (
        update(conversations)
        .where(conversations.c.id == going.c.conversation, ~going.c.starts)
        .values(last_seq=conversations.c.last_seq + 1, updated_at=going.c.now)
        .returning(conversations.c.id)
        .cte("numbered")
    )
    new_message = _insert(
        messages,
        select(going),
        id=going.c.message,
        conversation_id=going.c.conversation,
        seq=going.c.seq,
        query=going.c.query,
        inputs=case((going.c.starts, _EMPTY), else_=_own_inputs(going)),
        files=cast(going.c.files, JSONB),
        marks=literal(b""),
        created_at=going.c.now,
    )
    new_turn = _insert(
        turns,
        select(going),
        id=going.c.task,
        app_version_id=going.c.version,
        conversation_id=going.c.conversation,
        message_id=going.c.message,
        seq=going.c.seq,
        state=literal(TurnState.PLANNED.value),
        owner=bindparam("our_owner", type_=_UUID),
        epoch=literal(1),
        adoptions=literal(0),
        lease_until=now_plus(bindparam("lease_seconds")),
        deadline_at=now_plus(bindparam("turn_seconds")),
        fold_version=bindparam("our_fold", type_=Integer()),
        trace_id=going.c.trace_id,
        trace_session_id=going.c.trace_session_id,
        created_at=going.c.now,
    )
    return PreparedForPostgres(
        select(
            going.c.n,
            going.c.now,
            snapshots.c.data,
            func.coalesce(cast(going.c.kept_inputs, Text), going.c.inputs),
        )
        .outerjoin(snapshots, snapshots.c.conversation_id == going.c.conversation)
        .add_cte(new_conversation, numbered, new_message, new_turn)
    )


def _insert(table: Any, source: Select[Any], **values: ColumnElement[Any]) -> CTE:
    rows = source.with_only_columns(*values.values())
    return (
        insert(table)
        .from_select(list(values), rows, include_defaults=False)
        .returning(table.c.id)
        .cte(f"new_{table.name}")
    )


def _own_inputs(going: CTE) -> ColumnElement[Any]:
    """Those inputs that differ from the conversation's, also in the type of a number: inputs.py in SQL."""
    sent = func.jsonb_each(cast(going.c.inputs, JSONB)).table_valued(
        column("key", Text), column("value", JSONB), name="sent"
    )
    kept = going.c.kept_inputs.op("->")(sent.c.key)
    differing = (
        select(func.jsonb_object_agg(sent.c.key, sent.c.value))
        .select_from(sent)
        .where(cast(kept, Text).is_distinct_from(cast(sent.c.value, Text)))
        .correlate(going)
        .scalar_subquery()
    )
    return func.coalesce(differing, _EMPTY)


def _ours(*states: TurnState, waits: bool = False) -> CTE:
    """Those of the given turns that are ours, in one of these states, and locked now."""
    row = _arrays("given", task=_UUID, epoch=Integer(), run=Text())
    return (
        select(turns.c.id, row.c.run)
        .join(row, row.c.task == turns.c.id)
        .where(
            turns.c.owner == bindparam("our_owner", type_=_UUID),
            turns.c.epoch == row.c.epoch,
            _by_id_in(*states),
        )
        .order_by(turns.c.id)
        .with_for_update(of=turns, skip_locked=not waits, key_share=True)
        .cte("locked_turns")
    )


def _by_id_in(*states: TurnState) -> ColumnElement[bool]:
    """That a turn, which is looked up by its id, is in one of these states.

    Written as a constant, the partial index of active turns would fit, and all of them could be read.
    """
    return turns.c.state == func.any(literal([state.value for state in states], ARRAY(Text)))


def _arm() -> PreparedForPostgres:
    locked = _ours(TurnState.PLANNED, TurnState.SENDING)
    return PreparedForPostgres(
        update(turns)
        .where(turns.c.id == locked.c.id, turns.c.stop_at.is_(None))
        .values(state=TurnState.SENDING.value)
        .returning(cast(turns.c.id, Text))
    )


def _mark_running() -> PreparedForPostgres:
    locked = _ours(TurnState.SENDING, TurnState.RUNNING)
    return PreparedForPostgres(
        update(turns)
        .where(turns.c.id == locked.c.id)
        .values(state=TurnState.RUNNING.value, run_id=locked.c.run)
        .returning(cast(turns.c.id, Text), turns.c.stop_at.is_not(None))
    )


def _renew() -> PreparedForPostgres:
    locked = _ours(TurnState.PLANNED, TurnState.SENDING, TurnState.RUNNING, waits=True)
    return PreparedForPostgres(
        update(turns)
        .where(turns.c.id == locked.c.id)
        .values(lease_until=now_plus(bindparam("lease_seconds")))
        .returning(cast(turns.c.id, Text), turns.c.stop_at.is_not(None))
    )


def _finish() -> PreparedForPostgres:
    """Decide which turns end in the common way, and only then write."""
    row = _arrays(
        "given",
        task=_UUID,
        epoch=Integer(),
        conversation=_UUID,
        answer=Text(),
        marks=LargeBinary(),
        usage=Text(),
        snapshot=Text(),
        outcome=Text(),
        error_code=Text(),
        end_position=Integer(),
        may_name=Boolean(),
    )
    locked = _locked_conversations(select(row.c.conversation))
    queued = turns.alias("queued")
    # As an array, so that all conversations are locked before any turn is.
    all_locked = select(func.array_agg(locked.c.id)).scalar_subquery()
    locked_turn = (
        select(turns.c.id, turns.c.message_id, turns.c.seq)
        .join(row, row.c.task == turns.c.id)
        .where(
            turns.c.conversation_id == func.any(func.coalesce(all_locked, literal_column("'{}'::uuid[]"))),
            turns.c.owner == bindparam("our_owner", type_=_UUID),
            turns.c.epoch == row.c.epoch,
            _by_id_in(TurnState.PLANNED, TurnState.SENDING, TurnState.RUNNING),
            turns.c.stop_at.is_(None),
            turns.c.form_id.is_(None),
        )
        .order_by(turns.c.id)
        .with_for_update(of=turns, skip_locked=True, key_share=True)
        .cte("locked_turns")
    )
    going = (
        select(row, locked_turn.c.message_id, locked_turn.c.seq, _MOMENT.c.now)
        .join(locked_turn, locked_turn.c.id == row.c.task)
        .join(locked, locked.c.id == row.c.conversation)
        .join(_MOMENT, true())
        .where(
            locked.c.deleted_at.is_(None),
            ~(row.c.may_name & (locked.c.naming == "open")),
            _unchanged(locked),
            _none(
                queued,
                queued.c.conversation_id == row.c.conversation,
                queued.c.state == literal_column(f"'{TurnState.QUEUED.value}'"),
            ),
        )
        .cte("going")
    )
    answered = (
        update(messages)
        .where(messages.c.id == going.c.message_id)
        .values(answer=going.c.answer, marks=going.c.marks, usage=cast(going.c.usage, JSONB))
        .returning(messages.c.id)
        .cte("answered")
    )
    step = _arrays(
        "given_step",
        "step_",
        task=_UUID,
        number=Integer(),
        position=Integer(),
        thought=Text(),
        tool=Text(),
        tool_input=Text(),
        observation=Text(),
    )
    new_step = (
        insert(steps)
        .from_select(
            ["message_id", *_STEP_NAMES],
            select(going.c.message_id, *(step.c[name] for name in _STEP_NAMES)).join(
                going, going.c.task == step.c.task
            ),
            include_defaults=False,
        )
        .returning(steps.c.number)
        .cte("new_step")
    )
    moving = upsert(snapshots).from_select(
        ["conversation_id", "seq", "data", "updated_at"],
        select(going.c.conversation, going.c.seq, going.c.snapshot, going.c.now).where(
            going.c.snapshot.is_not(None)
        ),
        include_defaults=False,
    )
    moved = (
        moving.on_conflict_do_update(
            index_elements=["conversation_id"],
            set_={name: moving.excluded[name] for name in ("seq", "data", "updated_at")},
            where=snapshots.c.seq < moving.excluded.seq,
        )
        .returning(snapshots.c.seq)
        .cte("moved")
    )
    touched = (
        update(conversations)
        .where(conversations.c.id == going.c.conversation)
        .values(updated_at=going.c.now)
        .returning(conversations.c.id)
        .cte("touched")
    )
    return PreparedForPostgres(
        update(turns)
        .where(turns.c.id == going.c.task)
        .values(
            state=TurnState.ENDED.value,
            outcome=going.c.outcome,
            error_code=going.c.error_code,
            end_position=going.c.end_position,
            lease_until=null(),
            checkpoint=null(),
            ended_at=going.c.now,
        )
        .returning(cast(turns.c.id, Text))
        .add_cte(answered, new_step, moved, touched)
    )


BEGIN: Final = _begin()
ARM: Final = _arm()
MARK_RUNNING: Final = _mark_running()
RENEW: Final = _renew()
FINISH: Final = _finish()
