"""The statement that begins turns: in the common case a message becomes a turn that is planned, and ours."""

from typing import Any, Final

from sqlalchemy import (
    CTE,
    Boolean,
    ColumnElement,
    Integer,
    Text,
    bindparam,
    case,
    cast,
    column,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from agent_gateway.domain.turns import TurnState
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
    turns,
)
from agent_gateway.store.turns.idempotency import IDEMPOTENCY_SECONDS
from agent_gateway.store.turns.postgres_statements.clauses import (
    MOMENT,
    OUR_OWNER,
    UUID,
    arrays,
    has_no,
    inserted,
    is_unchanged,
    locked_conversations,
)

_GIVEN: Final = arrays(
    "given",
    task=UUID,
    message=UUID,
    conversation=UUID,
    starts=Boolean(),
    app=UUID,
    version=UUID,
    end_user=UUID,
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
    request_id=Text(),
    traceparent=Text(),
)
_EMPTY: Final = literal_column("'{}'::jsonb", JSONB())


def _begin() -> PreparedForPostgres:
    """Decide which messages begin a turn at once, claim their keys, and only then write."""
    known_user = (
        select(_GIVEN.c.n, end_users.c.id)
        .join(end_users, is_end_user(_GIVEN.c.app, _GIVEN.c.external_id))
        .cte("known_user")
    )
    continued = _continued(known_user)
    accepted = union_all(select(_GIVEN.c.n).where(_GIVEN.c.starts), select(continued.c.n)).cte("accepted")
    going = _going(known_user, continued, accepted, _claimed(accepted))
    return PreparedForPostgres(
        select(
            going.c.n,
            going.c.now,
            snapshots.c.data,
            func.coalesce(cast(going.c.kept_inputs, Text), going.c.inputs),
        )
        .outerjoin(snapshots, snapshots.c.conversation_id == going.c.conversation)
        .add_cte(_new_conversation(going), _numbered(going), _new_message(going), _new_turn(going))
    )


def _continued(known_user: CTE) -> CTE:
    """Messages of conversations that are their caller's, free, and on the version of the message."""
    locked = locked_conversations(
        select(_GIVEN.c.conversation).where(~_GIVEN.c.starts),
        conversations.c.app_id,
        conversations.c.app_version_id,
        conversations.c.end_user_id,
        conversations.c.inputs,
        conversations.c.deleted_at,
    )
    return (
        select(_GIVEN.c.n, locked.c.last_seq, locked.c.inputs)
        .join(known_user, known_user.c.n == _GIVEN.c.n)
        .join(locked, locked.c.id == _GIVEN.c.conversation)
        .where(
            owned_by(locked, _GIVEN.c.app, known_user.c.id),
            locked.c.app_version_id == _GIVEN.c.version,
            is_unchanged(locked),
            has_no(turns, turns.c.conversation_id == locked.c.id, is_active(turns)),
            has_no(forms, forms.c.conversation_id == locked.c.id, is_open(forms)),
        )
        .cte("continued")
    )


def _claimed(accepted: CTE) -> CTE:
    """The turns of those Idempotency-Keys that were free (R15)."""
    claim = upsert(idempotency).from_select(
        ["app_id", "user_id", "key", "turn_id", "body_hash", "created_at"],
        select(
            _GIVEN.c.app,
            _GIVEN.c.external_id,
            _GIVEN.c.key,
            _GIVEN.c.task,
            _GIVEN.c.body_hash,
            MOMENT.c.now,
        )
        .join(accepted, accepted.c.n == _GIVEN.c.n)
        .join(MOMENT, true())
        .where(_GIVEN.c.key.is_not(None))
        .order_by(_GIVEN.c.app, _GIVEN.c.external_id, _GIVEN.c.key),
        include_defaults=False,
    )
    return (
        claim.on_conflict_do_update(
            index_elements=["app_id", "user_id", "key"],
            set_={name: claim.excluded[name] for name in ("turn_id", "body_hash", "created_at")},
            where=idempotency.c.created_at < now_plus(-IDEMPOTENCY_SECONDS),
        )
        .returning(idempotency.c.turn_id)
        .cte("claimed")
    )


def _going(known_user: CTE, continued: CTE, accepted: CTE, claimed: CTE) -> CTE:
    """What is written: accepted messages without a key, or with one that was claimed."""
    return (
        select(
            _GIVEN,
            known_user.c.id.label("known_user"),
            continued.c.inputs.label("kept_inputs"),
            func.coalesce(continued.c.last_seq + 1, 1).label("seq"),
            MOMENT.c.now,
        )
        .join(accepted, accepted.c.n == _GIVEN.c.n)
        .join(MOMENT, true())
        .outerjoin(known_user, known_user.c.n == _GIVEN.c.n)
        .outerjoin(continued, continued.c.n == _GIVEN.c.n)
        .outerjoin(claimed, claimed.c.turn_id == _GIVEN.c.task)
        .where(or_(_GIVEN.c.key.is_(None), claimed.c.turn_id.is_not(None)))
        .cte("going")
    )


def _new_user(going: CTE) -> CTE:
    """Another process may insert the same user at this moment: then its row is taken."""
    return (
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


def _new_conversation(going: CTE) -> CTE:
    new_user = _new_user(going)
    return inserted(
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


def _numbered(going: CTE) -> CTE:
    return (
        update(conversations)
        .where(conversations.c.id == going.c.conversation, ~going.c.starts)
        .values(last_seq=conversations.c.last_seq + 1, updated_at=going.c.now)
        .returning(conversations.c.id)
        .cte("numbered")
    )


def _new_message(going: CTE) -> CTE:
    return inserted(
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


def _new_turn(going: CTE) -> CTE:
    return inserted(
        turns,
        select(going),
        id=going.c.task,
        app_version_id=going.c.version,
        conversation_id=going.c.conversation,
        message_id=going.c.message,
        seq=going.c.seq,
        state=literal(TurnState.PLANNED.value),
        owner=OUR_OWNER,
        epoch=literal(1),
        adoptions=literal(0),
        lease_until=now_plus(bindparam("lease_seconds")),
        deadline_at=now_plus(bindparam("turn_seconds")),
        fold_version=bindparam("our_fold", type_=Integer()),
        trace_id=going.c.trace_id,
        trace_session_id=going.c.trace_session_id,
        request_id=going.c.request_id,
        traceparent=going.c.traceparent,
        created_at=going.c.now,
    )


BEGIN: Final = _begin()
