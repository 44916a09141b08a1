"""What the run log sends: on Postgres over arrays of runs, on SQLite for one run after the other.

Whoever writes about a run holds the lock of its row, and names owner and epoch. So of an append and a change
of owner one comes first, and an append that comes second changes nothing.
"""

from typing import Any, Final

from sqlalchemy import (
    CTE,
    Boolean,
    ColumnElement,
    Insert,
    Integer,
    LargeBinary,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.prepared import PreparedForPostgres, PreparedForSqlite, with_parameters
from agent_gateway.store.db.tables import run_events, runs
from agent_gateway.store.turns.postgres_statements.clauses import OUR_OWNER, UUID, arrays

PIECES: Final = 100
"""Batches of one run that one read returns."""

_LEASE: Final = now_plus(bindparam("lease_seconds"))
_RUNNING: Final = runs.c.status == "running"


# -- On Postgres, of many runs -----------------------------------------------------------------------------


def _begin() -> PreparedForPostgres:
    given = arrays(
        "given", id=UUID, key=Text(), conversation=Text(), request=LargeBinary(), data=LargeBinary()
    )
    values = _new_run(given.c.id, given.c.key, given.c.conversation, given.c.request)
    new = (
        postgresql.insert(runs)
        .from_select(list(values), select(*values.values()), include_defaults=False)
        # The same request came before: by another post, or by this one if its answer was lost.
        .on_conflict_do_nothing()
        .returning(runs.c.id)
        .cte("new")
    )
    events = insert(run_events).from_select(
        ["run_id", "first", "count", "data"],
        select(given.c.id, cast(1, Integer), cast(1, Integer), given.c.data).join(
            new, new.c.id == given.c.id
        ),
        include_defaults=False,
    )
    return PreparedForPostgres(select(cast(new.c.id, Text)).add_cte(events.cte("events")))


def _append() -> PreparedForPostgres:
    given = arrays(
        "given",
        run=UUID,
        epoch=Integer(),
        first=Integer(),
        count=Integer(),
        data=LargeBinary(),
        status=Text(),
        error=Text(),
        drop_request=Boolean(),
    )
    locked = _locked(given)
    is_open = and_(_is_ours(locked), locked.c.found == "running")
    written = (
        postgresql.insert(run_events)
        .from_select(
            ["run_id", "first", "count", "data"],
            select(locked.c.run, locked.c.first, locked.c.count, locked.c.data).where(is_open),
            include_defaults=False,
        )
        # The same batch, if the answer of the first try was lost.
        .on_conflict_do_nothing()
    )
    ends = locked.c.status != "running"
    changed = (
        update(runs)
        .where(runs.c.id == locked.c.run, is_open, or_(ends, locked.c.drop_request))
        .values(
            status=locked.c.status,
            error=locked.c.error,
            ended_at=case((ends, now_plus()), else_=null()),
            request=null(),
        )
    )
    return PreparedForPostgres(
        select(cast(locked.c.run, Text))
        .where(_is_ours(locked))
        .add_cte(written.cte("written"), changed.cte("changed"))
    )


def _locked(given: CTE) -> CTE:
    """Lock the given runs, and read of each what its owner must know, with all that is given.

    Only by their ids: with more conditions, or joined once more, the server would take them for so few that
    it compares each with each.
    """
    return (
        select(runs.c.owner, runs.c.epoch.label("now_epoch"), runs.c.status.label("found"), *given.c)
        .join(given, given.c.run == runs.c.id)
        .order_by(runs.c.id)
        .with_for_update(of=runs, key_share=True)
        .cte("locked")
    )


def _is_ours(locked: CTE) -> ColumnElement[bool]:
    return and_(locked.c.owner == OUR_OWNER, locked.c.now_epoch == locked.c.epoch)


def _renew() -> PreparedForPostgres:
    locked = _locked(arrays("given", run=UUID, epoch=Integer()))
    return PreparedForPostgres(
        update(runs)
        .where(runs.c.id == locked.c.run, _is_ours(locked), locked.c.found == "running")
        .values(lease_until=_LEASE)
        .returning(cast(runs.c.id, Text))
    )


def _poll() -> PreparedForPostgres:
    given = arrays("given", id=UUID, after=Integer())
    pieces = (
        select(run_events.c.first, run_events.c.data)
        .where(*_after(runs.c.id, given.c.after))
        .order_by(run_events.c.first)
        .limit(PIECES)
        .lateral("pieces")
    )
    return PreparedForPostgres(
        select(
            cast(runs.c.id, Text),
            runs.c.status,
            runs.c.error,
            runs.c.epoch,
            runs.c.created_at,
            is_lost(shared=True),
            pieces.c.data,
        )
        .select_from(given.join(runs, runs.c.id == given.c.id).join(pieces, true(), isouter=True))
        .order_by(runs.c.id, pieces.c.first)
    )


def _after(run: ColumnElement[str], number: ColumnElement[int]) -> list[ColumnElement[bool]]:
    """The batches of a run with events after a number; by the index: the one that holds it, and the rest."""
    held = run_events.alias("held")
    begin = select(func.max(held.c.first)).where(held.c.run_id == run, held.c.first <= number + 1)
    return [
        run_events.c.run_id == run,
        run_events.c.first >= func.coalesce(begin.correlate_except(held).scalar_subquery(), 0),
        run_events.c.first + run_events.c.count > number + 1,
    ]


def _new_run(
    run: ColumnElement[str],
    key: ColumnElement[str],
    conversation: ColumnElement[str],
    request: ColumnElement[bytes],
) -> dict[str, ColumnElement[Any]]:
    return {
        "id": run,
        "status": cast("running", Text),
        "owner": OUR_OWNER,
        "epoch": cast(1, Integer),
        "lease_until": _LEASE,
        "idempotency_key": key,
        "conversation_id": conversation,
        "request": request,
        "created_at": now_plus(),
    }


# -- On both, of one run -----------------------------------------------------------------------------------


def is_lost(*, shared: bool) -> ColumnElement[bool]:
    """The run has not ended, and its owner is gone.

    A database that is not shared belongs to one process, so every other owner is one of before.
    """
    gone = runs.c.lease_until < now_plus() if shared else runs.c.owner != OUR_OWNER
    return and_(_RUNNING, gone)


_ID: Final = runs.c.id == bindparam("run", type_=UUID)
LOOK_SHARED: Final = select(
    runs.c.status, runs.c.error, runs.c.epoch, runs.c.created_at, is_lost(shared=True).label("lost")
).where(_ID)
LOOK_ALONE: Final = LOOK_SHARED.with_only_columns(
    runs.c.status, runs.c.error, runs.c.epoch, runs.c.created_at, is_lost(shared=False).label("lost")
)
READ: Final = (
    select(run_events.c.data)
    .where(*_after(bindparam("run", type_=UUID), bindparam("number", type_=Integer)))
    .order_by(run_events.c.first)
    .limit(PIECES)
)
FIND: Final = select(runs.c.id).where(or_(_ID, runs.c.idempotency_key == bindparam("key", type_=Text)))
_TAKE: Final = (
    update(runs)
    .where(_ID, runs.c.epoch == bindparam("their_epoch"))
    .values(owner=OUR_OWNER, epoch=runs.c.epoch + 1, lease_until=_LEASE)
    .returning(runs.c.epoch, runs.c.request, runs.c.cancel)
)
TAKE_SHARED: Final = _TAKE.where(is_lost(shared=True))
TAKE_ALONE: Final = _TAKE.where(is_lost(shared=False))
ASK_TO_CANCEL: Final = (
    update(runs)
    .where(_ID, _RUNNING, runs.c.cancel.is_(None))
    .values(cancel=bindparam("why", type_=LargeBinary))
)


# -- On SQLite, of one run ---------------------------------------------------------------------------------


def _insert_run() -> Insert:
    values = _new_run(
        bindparam("id", type_=UUID),
        bindparam("key", type_=Text),
        bindparam("conversation", type_=Text),
        bindparam("request", type_=LargeBinary),
    )
    return sqlite.insert(runs).values(values).on_conflict_do_nothing()


_OWNED: Final = (_ID, runs.c.owner == OUR_OWNER, runs.c.epoch == bindparam("our_epoch"))
INSERT_RUN: Final = PreparedForSqlite(_insert_run())
INSERT_EVENTS: Final = PreparedForSqlite(
    with_parameters(sqlite.insert(run_events).on_conflict_do_nothing(), "run_id", "first", "count", "data")
)
STATUS: Final = PreparedForSqlite(select(runs.c.status).where(*_OWNED))
CHANGE: Final = PreparedForSqlite(
    update(runs)
    .where(*_OWNED)
    .values(
        status=bindparam("new_status", type_=Text),
        error=bindparam("new_error", type_=Text),
        ended_at=case((bindparam("new_status", type_=Text) != "running", now_plus()), else_=null()),
        request=null(),
    )
)

# -- Removal -----------------------------------------------------------------------------------------------

RUNS: Final = 100
"""Runs that one transaction deletes."""
OLD: Final = (
    select(runs.c.id)
    .where(runs.c.ended_at < now_plus(bindparam("since")))
    .order_by(runs.c.ended_at)
    .limit(RUNS)
    .with_for_update(skip_locked=True)
)
FORGOTTEN: Final = (
    select(runs.c.id)
    .where(_RUNNING, runs.c.lease_until < now_plus(bindparam("since")))
    .limit(RUNS)
    .with_for_update(skip_locked=True)
)
"""Runs of processes that died, which nobody has read since."""
OF_CONVERSATION: Final = select(runs.c.id).where(runs.c.conversation_id == bindparam("conversation"))
DELETE_EVENTS: Final = delete(run_events).where(run_events.c.run_id.in_(bindparam("ids", expanding=True)))
DELETE_RUNS: Final = delete(runs).where(runs.c.id.in_(bindparam("ids", expanding=True)))

ASKED: Final = PreparedForPostgres(
    select(cast(runs.c.id, Text), runs.c.cancel).where(
        runs.c.owner == OUR_OWNER, runs.c.cancel.is_not(None), runs.c.ended_at.is_(None)
    )
)
BEGIN: Final = _begin()
APPEND: Final = _append()
RENEW: Final = _renew()
POLL: Final = _poll()
