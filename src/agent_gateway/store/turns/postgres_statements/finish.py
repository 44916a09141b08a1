"""The statement that ends turns: in the common case with an answer, its steps and perhaps a snapshot."""

from typing import Final

import msgspec
from sqlalchemy import (
    CTE,
    Boolean,
    Integer,
    LargeBinary,
    Text,
    cast,
    func,
    insert,
    literal_column,
    null,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert

from agent_gateway.domain.turns import Step, TurnState
from agent_gateway.store.db.prepared import PreparedForPostgres
from agent_gateway.store.db.tables import conversations, messages, snapshots, steps, turns
from agent_gateway.store.turns.postgres_statements.clauses import (
    MOMENT,
    UUID,
    arrays,
    has_no,
    is_unchanged,
    locked_conversations,
    locked_turns,
)

_GIVEN: Final = arrays(
    "given",
    task=UUID,
    epoch=Integer(),
    conversation=UUID,
    answer=Text(),
    marks=LargeBinary(),
    usage=Text(),
    snapshot=Text(),
    finish_reason=Text(),
    outcome=Text(),
    error_code=Text(),
    cause=Text(),
    end_position=Integer(),
    may_name=Boolean(),
)
_GIVEN_STEP: Final = arrays(
    "given_step",
    "step_",
    task=UUID,
    number=Integer(),
    position=Integer(),
    thought=Text(),
    tool=Text(),
    tool_input=Text(),
    observation=Text(),
)
STEP_NAMES: Final = tuple(field.name for field in msgspec.structs.fields(Step))


def _finish() -> PreparedForPostgres:
    """Decide which turns end in the common way, and only then write."""
    going = _going()
    return PreparedForPostgres(
        update(turns)
        .where(turns.c.id == going.c.task)
        .values(
            state=TurnState.ENDED.value,
            outcome=going.c.outcome,
            error_code=going.c.error_code,
            cause=cast(going.c.cause, JSONB),
            end_position=going.c.end_position,
            lease_until=null(),
            checkpoint=null(),
            ended_at=going.c.now,
        )
        .returning(cast(turns.c.id, Text))
        .add_cte(_answered(going), _new_step(going), _moved(going), _touched(going))
    )


def _going() -> CTE:
    """What is written: ends of turns that are ours, without a stop, a question, a name or a turn to come."""
    locked = locked_conversations(
        select(_GIVEN.c.conversation), conversations.c.naming, conversations.c.deleted_at
    )
    locked_turn = _locked_turn(locked)
    queued = turns.alias("queued")
    return (
        select(_GIVEN, locked_turn.c.message_id, locked_turn.c.seq, MOMENT.c.now)
        .join(locked_turn, locked_turn.c.id == _GIVEN.c.task)
        .join(locked, locked.c.id == _GIVEN.c.conversation)
        .join(MOMENT, true())
        .where(
            locked.c.deleted_at.is_(None),
            ~(_GIVEN.c.may_name & (locked.c.naming == "open")),
            is_unchanged(locked),
            has_no(
                queued,
                queued.c.conversation_id == _GIVEN.c.conversation,
                queued.c.state == literal_column(f"'{TurnState.QUEUED.value}'"),
            ),
        )
        .cte("going")
    )


def _locked_turn(locked: CTE) -> CTE:
    # As an array, so that all conversations are locked before any turn is.
    all_locked = select(func.array_agg(locked.c.id)).scalar_subquery()
    return locked_turns(
        _GIVEN,
        (TurnState.PLANNED, TurnState.SENDING, TurnState.RUNNING),
        turns.c.message_id,
        turns.c.seq,
        where=(
            turns.c.conversation_id == func.any(func.coalesce(all_locked, literal_column("'{}'::uuid[]"))),
            turns.c.stop_at.is_(None),
            turns.c.form_id.is_(None),
        ),
    )


def _answered(going: CTE) -> CTE:
    return (
        update(messages)
        .where(messages.c.id == going.c.message_id)
        .values(
            answer=going.c.answer,
            marks=going.c.marks,
            usage=cast(going.c.usage, JSONB),
            finish_reason=going.c.finish_reason,
        )
        .returning(messages.c.id)
        .cte("answered")
    )


def _new_step(going: CTE) -> CTE:
    return (
        insert(steps)
        .from_select(
            ["message_id", *STEP_NAMES],
            select(going.c.message_id, *(_GIVEN_STEP.c[name] for name in STEP_NAMES)).join(
                going, going.c.task == _GIVEN_STEP.c.task
            ),
            include_defaults=False,
        )
        .returning(steps.c.number)
        .cte("new_step")
    )


def _moved(going: CTE) -> CTE:
    """The snapshots, which only move forward (I7)."""
    moving = upsert(snapshots).from_select(
        ["conversation_id", "seq", "data", "updated_at"],
        select(going.c.conversation, going.c.seq, going.c.snapshot, going.c.now).where(
            going.c.snapshot.is_not(None)
        ),
        include_defaults=False,
    )
    return (
        moving.on_conflict_do_update(
            index_elements=["conversation_id"],
            set_={name: moving.excluded[name] for name in ("seq", "data", "updated_at")},
            where=snapshots.c.seq < moving.excluded.seq,
        )
        .returning(snapshots.c.seq)
        .cte("moved")
    )


def _touched(going: CTE) -> CTE:
    return (
        update(conversations)
        .where(conversations.c.id == going.c.conversation)
        .values(updated_at=going.c.now)
        .returning(conversations.c.id)
        .cte("touched")
    )


FINISH: Final = _finish()
