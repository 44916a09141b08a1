"""What the statements share: the given turns as rows, the locks on what is there, conditions and inserts."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    FromClause,
    Select,
    Text,
    bindparam,
    column,
    exists,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.types import TypeEngine

from agent_gateway.domain.turns import TurnState
from agent_gateway.store.db.column_types import uuid_type
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import conversations, turns

UUID: Final = uuid_type()
MOMENT: Final = select(now_plus().label("now")).cte("moment")
"""The database's time, read once for all rows of a statement."""
OUR_OWNER: Final = bindparam("our_owner", type_=UUID)


def arrays(cte_name: str, prefix: str = "", /, **types: TypeEngine[Any]) -> CTE:
    """The parameters of a statement as rows, with their number `n`: each parameter is an array."""
    given = [bindparam(prefix + field, type_=ARRAY(kind)) for field, kind in types.items()]
    columns = [column(field, kind) for field, kind in types.items()]
    table = func.unnest(*given).table_valued(*columns, with_ordinality="n").render_derived(name="array")
    return select(*table.c).cte(cte_name)


def locked_conversations(ids: Select[Any], *columns: ColumnElement[Any]) -> CTE:
    """Lock those conversations that nobody else has locked, and read these columns of them, too."""
    return (
        select(conversations.c.id, conversations.c.last_seq, conversations.c.updated_at, *columns)
        .where(conversations.c.id.in_(ids))
        .order_by(conversations.c.id)
        .with_for_update(skip_locked=True)
        .cte("locked_conversations")
    )


def is_unchanged(locked: CTE) -> ColumnElement[bool]:
    """Whether a locked conversation is still as this statement sees everything else."""
    seen = conversations.alias("seen")
    return exists().where(
        seen.c.id == locked.c.id,
        seen.c.last_seq == locked.c.last_seq,
        seen.c.updated_at == locked.c.updated_at,
    )


def locked_turns(
    given: CTE,
    states: Sequence[TurnState],
    *columns: ColumnElement[Any],
    where: Sequence[ColumnElement[bool]] = (),
    waits: bool = False,
) -> CTE:
    """Lock those of the given turns that are ours and in one of these states; read these columns, too."""
    return (
        select(turns.c.id, *columns)
        .join(given, given.c.task == turns.c.id)
        .where(*where, turns.c.owner == OUR_OWNER, turns.c.epoch == given.c.epoch, _by_id_in(states))
        .order_by(turns.c.id)
        .with_for_update(of=turns, skip_locked=not waits, key_share=True)
        .cte("locked_turns")
    )


def _by_id_in(states: Sequence[TurnState]) -> ColumnElement[bool]:
    """That a turn, which is looked up by its id, is in one of these states.

    Written as a constant, the partial index of active turns would fit, and all of them could be read.
    """
    return turns.c.state == func.any(literal([state.value for state in states], ARRAY(Text)))


def has_no(table: FromClause, *which: ColumnElement[bool]) -> ColumnElement[bool]:
    """That there is no such row, looked up by its index.

    As NOT EXISTS it could become a join, which reads the active turns of all conversations.
    """
    return select(table.c.id).where(*which).limit(1).scalar_subquery().is_(None)


def inserted(table: Any, source: Select[Any], **values: ColumnElement[Any]) -> CTE:
    """A new row for each of the source's, with these values."""
    rows = source.with_only_columns(*values.values())
    return (
        insert(table)
        .from_select(list(values), rows, include_defaults=False)
        .returning(table.c.id)
        .cte(f"new_{table.name}")
    )
