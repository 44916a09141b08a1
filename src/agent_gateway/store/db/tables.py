"""The rows (docs/design/durability.md, Rows). One module so that the schema can be read as a whole."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    ForeignKey,
    FromClause,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Text,
    UniqueConstraint,
    false,
    literal_column,
    text,
)
from sqlmodel import Field, SQLModel

from agent_gateway.json_types import JsonObject
from agent_gateway.store.db.column_types import UtcDateTime, json_or_null_type, json_type, uuid_type

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

ACTIVE_STATES = ("planned", "sending", "running")
ACTIVE = f"state IN {ACTIVE_STATES!r}"
QUEUED = "state = 'queued'"
OPEN = "state = 'open'"
DELETED = "deleted_at IS NOT NULL"
HAS_KEY = "idempotency_key IS NOT NULL"
HAS_CONVERSATION = "conversation_id IS NOT NULL"
ENDED = "ended_at IS NOT NULL"
ASKED = "cancel IS NOT NULL AND ended_at IS NULL"


def _id() -> Any:
    return Field(sa_column=Column(uuid_type(), primary_key=True))


def _ref(target: str, *, index: bool = False, nullable: bool = False) -> Any:
    return Field(sa_column=Column(uuid_type(), ForeignKey(target), index=index, nullable=nullable))


def _text(default: str = "") -> Any:
    return Field(default=default, sa_column=Column(Text, nullable=False, server_default=default))


def _json(default: str) -> Any:
    return Field(sa_column=Column(json_type(), nullable=False, server_default=default))


def _time(*, nullable: bool = False, index: bool = False) -> Any:
    column = Column(UtcDateTime, nullable=nullable, index=index)
    return Field(default=None, sa_column=column) if nullable else Field(sa_column=column)


class Row(SQLModel):
    """Base of all tables: one metadata with a naming convention, so that migrations can name things."""

    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING)


class AppRow(Row, table=True):
    """A published agent."""

    __tablename__ = "apps"
    id: str = _id()
    tenant_id: str = Field(index=True)
    slug: str = Field(unique=True)
    """The name an operator gives it; `default` is the one made at start. A deleted app gave it up."""
    version_id: str | None = Field(default=None, sa_column=Column(uuid_type(), nullable=True))
    """The current version. No foreign key: versions refer to apps."""
    created_at: datetime = _time()
    deleted_at: datetime | None = _time(nullable=True)


class AppVersionRow(Row, table=True):
    """An immutable configuration of an app; turns are pinned to one (R17)."""

    __tablename__ = "app_versions"
    __table_args__ = (UniqueConstraint("app_id", "number"),)
    id: str = _id()
    app_id: str = _ref("apps.id")
    number: int
    config: str = _text()
    """JSON of AppConfig; placeholders only, never an environment value."""
    created_at: datetime = _time()


class ApiKeyRow(Row, table=True):
    """An API key: found by the keyed hash of the whole key, which itself is never stored."""

    __tablename__ = "api_keys"
    id: str = _id()
    app_id: str = _ref("apps.id", index=True)
    label: str
    hash: str = Field(unique=True)
    created_at: datetime = _time()
    revoked_at: datetime | None = _time(nullable=True)
    expires_at: datetime | None = _time(nullable=True)
    last_used_at: datetime | None = _time(nullable=True)
    """Written at most once a minute."""
    secret_mark: str | None = Field(default=None, sa_column=Column(String(16), nullable=True))
    """Which secret key its hash was made with; NULL for keys from before that was kept."""
    replaced: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=false()))
    """Revoked because the settings name another key; named again it works again."""


class RequestCountRow(Row, table=True):
    """How many requests came with a key in one minute; only of keys that have a limit."""

    __tablename__ = "request_counts"
    api_key_id: str = Field(sa_column=Column(uuid_type(), ForeignKey("api_keys.id"), primary_key=True))
    minute: int
    """Minutes since 1970, by the database's clock."""
    requests: int


class EndUserRow(Row, table=True):
    """A caller's own user, as an app knows them."""

    __tablename__ = "end_users"
    __table_args__ = (UniqueConstraint("app_id", "external_id"),)
    id: str = _id()
    app_id: str = _ref("apps.id")
    external_id: str = Field(sa_column=Column(Text, nullable=False))
    created_at: datetime = _time()


class ConversationRow(Row, table=True):
    """A conversation of one end user with one app."""

    __tablename__ = "conversations"
    __table_args__ = (
        # The end user comes first: the database looks for it here before it lets an end user go.
        Index("ix_conversations_end_user", "end_user_id", "app_id", "updated_at", "id"),
    )
    id: str = _id()
    app_id: str = _ref("apps.id")
    app_version_id: str | None = _ref("app_versions.id", nullable=True)
    """The version its turns run on; null when a process of an older release began it."""
    end_user_id: str = _ref("end_users.id")
    name: str = _text()
    inputs: JsonObject = _json("{}")
    introduction: str = _text()
    last_seq: int = Field(default=0)
    """Number of the newest turn; given under this row's lock."""
    naming: str = Field(default="open", sa_column=Column(String(8), nullable=False, server_default="open"))
    """Whether the app may still make the name: `open`, `asked` (once, in the outbox) or `closed`."""
    created_at: datetime = _time()
    updated_at: datetime = _time()
    deleted_at: datetime | None = _time(nullable=True)
    """From then on it and all of its turns exist for no caller (R16)."""


class MessageRow(Row, table=True):
    """A turn's durable record: the query and, once ended, the answer."""

    __tablename__ = "messages"
    __table_args__ = (UniqueConstraint("conversation_id", "seq"),)
    id: str = _id()
    conversation_id: str = _ref("conversations.id")
    seq: int
    query: str = _text()
    inputs: JsonObject = _json("{}")
    """The inputs in which it differs from its conversation (store/turns/inputs.py)."""
    inputs_of: str | None = Field(default=None, sa_column=Column(uuid_type(), nullable=True))
    """The message whose inputs it shares: the one that asked what this one answers."""
    files: list[JsonObject] = _json("[]")
    answer: str = _text()
    marks: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    """Position and length of every chunk of the answer, packed by store/turns/chunk_offsets.py (R13)."""
    usage: JsonObject | None = Field(default=None, sa_column=Column(json_type(), nullable=True))
    finish_reason: str | None = Field(default=None, sa_column=Column(String(16), nullable=True))
    """Why the model stopped answering; NULL when that is not known."""
    suggestions: list[str] | None = Field(default=None, sa_column=Column(json_type(), nullable=True))
    """Questions the user may ask next; NULL until they were made."""
    linked_files: list[JsonObject] | None = Field(default=None, sa_column=Column(json_type(), nullable=True))
    """Files that tools of the agent made and that stay where they are; NULL when there are none."""
    created_at: datetime = _time()


class TurnRow(Row, table=True):
    """One row per turn: who drives it, how far it is, how it ended."""

    __tablename__ = "turns"
    __table_args__ = (
        # The sweep reads it, too. None of lease_until: a heartbeat that changes no index is written in place.
        Index(
            "uq_turns_active",
            "conversation_id",
            unique=True,
            postgresql_where=text(ACTIVE),
            sqlite_where=text(ACTIVE),
        ),
        Index(
            "ix_turns_queued",
            "conversation_id",
            postgresql_where=text(QUEUED),
            sqlite_where=text(QUEUED),
        ),
        CheckConstraint("state IN ('queued', 'planned', 'sending', 'running', 'ended')", name="state"),
        CheckConstraint("(state = 'ended') = (outcome IS NOT NULL)", name="outcome"),
        # Room in each page for the next version of all its rows: they are renewed together.
        {"postgresql_with": {"fillfactor": 50}},
    )
    id: str = _id()
    app_version_id: str = _ref("app_versions.id")
    conversation_id: str = _ref("conversations.id", index=True)
    message_id: str = Field(
        sa_column=Column(uuid_type(), ForeignKey("messages.id"), unique=True, nullable=False)
    )
    seq: int
    state: str = Field(sa_column=Column(String(16), nullable=False))
    owner: str | None = Field(default=None, sa_column=Column(uuid_type(), nullable=True))
    """A fresh UUID per process start."""
    epoch: int = Field(default=1)
    """Grows with every change of owner; writes of an older epoch change nothing (I9)."""
    adoptions: int = Field(default=0)
    lease_until: datetime | None = _time(nullable=True)
    deadline_at: datetime = _time()
    stop_at: datetime | None = _time(nullable=True)
    stop_reason: str | None = None
    run_id: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    fold_version: int
    checkpoint: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    outcome: str | None = Field(default=None, sa_column=Column(String(16), nullable=True))
    error_code: str | None = None
    cause: JsonObject | None = Field(default=None, sa_column=Column(json_or_null_type(), nullable=True))
    """Why it failed, as JSON of causes.py, for the operator alone."""
    end_position: int | None = None
    form_id: str | None = Field(default=None, sa_column=Column(uuid_type(), nullable=True))
    """The form whose answer this turn carries. No foreign key: forms refer to turns."""
    trace_id: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    trace_session_id: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    request_id: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    """Of the HTTP request that began it; NULL when none did, or a process of an older release."""
    traceparent: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    """Its place in a W3C trace: that of its first span, else of the same request; NULL when it has none."""
    created_at: datetime = _time()
    ended_at: datetime | None = _time(nullable=True)


class StepRow(Row, table=True):
    """A reasoning segment or tool call of a message, written once, at the turn's end."""

    __tablename__ = "steps"
    __table_args__ = (PrimaryKeyConstraint("message_id", "number"),)
    message_id: str = _ref("messages.id")
    number: int
    position: int
    thought: str = _text()
    tool: str = _text()
    tool_input: str = _text()
    observation: str = _text()


class FormRow(Row, table=True):
    """A question to a human, written with the end of the turn that asked it."""

    __tablename__ = "forms"
    __table_args__ = (
        Index(
            "uq_forms_open",
            "conversation_id",
            unique=True,
            postgresql_where=text(OPEN),
            sqlite_where=text(OPEN),
        ),
        Index("ix_forms_expiry", "expires_at", postgresql_where=text(OPEN), sqlite_where=text(OPEN)),
        CheckConstraint("state IN ('open', 'submitted', 'timeout', 'cancelled')", name="state"),
    )
    id: str = _id()
    conversation_id: str = _ref("conversations.id", index=True)
    turn_id: str = Field(sa_column=Column(uuid_type(), ForeignKey("turns.id"), unique=True, nullable=False))
    """The turn that asks."""
    message_id: str = Field(
        sa_column=Column(uuid_type(), ForeignKey("messages.id"), unique=True, nullable=False)
    )
    token: str = Field(unique=True)
    state: str = Field(sa_column=Column(String(16), nullable=False))
    expires_at: datetime = _time()
    tool_call_id: str = _text()
    definition: str = _text()
    """JSON of FormDefinition, as text: every reader of the turn gets the same bytes of it."""
    snapshot: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    """In which the question is open; the conversation keeps the one from before (raw JSON text)."""
    result: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    """JSON of FormAnswer, as text."""
    answered_by: str | None = Field(default=None, sa_column=Column(uuid_type(), nullable=True))
    """The turn that carries the answer."""
    created_at: datetime = _time()


class FileRow(Row, table=True):
    """A stored file: what a user uploaded or an agent made. Its bytes are in the file store."""

    __tablename__ = "files"
    __table_args__ = (
        Index("ix_files_created_at", "created_at"),
        Index("ix_files_end_user_id", "end_user_id"),
        Index(
            "ix_files_deleted_at",
            "deleted_at",
            postgresql_where=text(DELETED),
            sqlite_where=text(DELETED),
        ),
    )
    id: str = _id()
    app_id: str = _ref("apps.id")
    end_user_id: str = _ref("end_users.id")
    name: str = _text()
    type: str = Field(sa_column=Column(String(16), nullable=False))
    mime_type: str = _text()
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: datetime = _time()
    """With the id, where the bytes are (store/objects.py)."""
    deleted_at: datetime | None = _time(nullable=True)
    """From then on it exists for no caller; the row goes after the bytes."""


class MessageFileRow(Row, table=True):
    """A stored file that belongs to a message; one that belongs to none is deleted after a while."""

    __tablename__ = "message_files"
    __table_args__ = (
        PrimaryKeyConstraint("message_id", "file_id"),
        Index("ix_message_files_file_id", "file_id"),
    )
    message_id: str = Field(
        sa_column=Column(uuid_type(), ForeignKey("messages.id", ondelete="CASCADE"), nullable=False)
    )
    file_id: str = Field(sa_column=Column(uuid_type(), ForeignKey("files.id"), nullable=False))
    position: int | None = None
    """Of the event that announced it, when the agent made it; None when it came with the query."""


class SnapshotRow(Row, table=True):
    """A conversation's session snapshot: the backend's raw JSON text, untouched."""

    __tablename__ = "snapshots"
    conversation_id: str = Field(
        sa_column=Column(uuid_type(), ForeignKey("conversations.id"), primary_key=True)
    )
    seq: int
    """The turn it came from; it only moves forward (I7)."""
    data: str = _text()
    updated_at: datetime = _time()


class FeedbackRow(Row, table=True):
    """What a message's end user thought of its answer. Taken back, the row is gone."""

    __tablename__ = "feedbacks"
    __table_args__ = (
        UniqueConstraint("message_id"),
        Index("ix_feedbacks_app", "app_id", "created_at", "id"),
        # The database looks here before it lets a conversation or an end user go.
        Index("ix_feedbacks_conversation_id", "conversation_id"),
        Index("ix_feedbacks_end_user_id", "end_user_id"),
    )
    id: str = _id()
    app_id: str = _ref("apps.id")
    conversation_id: str = _ref("conversations.id")
    message_id: str = _ref("messages.id")
    end_user_id: str = _ref("end_users.id")
    rating: str = Field(sa_column=Column(String(16), nullable=False))
    """like | dislike"""
    content: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    created_at: datetime = _time()
    updated_at: datetime = _time()


class IdempotencyRow(Row, table=True):
    """An Idempotency-Key and the turn it made (R15)."""

    __tablename__ = "idempotency"
    __table_args__ = (PrimaryKeyConstraint("app_id", "user_id", "key"),)
    app_id: str = _ref("apps.id")
    user_id: str = Field(sa_column=Column("user_id", Text, nullable=False))
    """The client's own identifier: the end user's row may not exist yet."""
    key: str = Field(sa_column=Column("key", Text, nullable=False))
    turn_id: str = Field(sa_column=Column(uuid_type(), nullable=False))
    body_hash: str = Field(sa_column=Column(String(64), nullable=False))
    created_at: datetime = _time(index=True)


class ProcessRow(Row, table=True):
    """A process that works on this database, and when it said so last."""

    __tablename__ = "processes"
    owner: str = Field(sa_column=Column(uuid_type(), primary_key=True))
    secret_mark: str = Field(sa_column=Column(String(16), nullable=False))
    """Tells which secret key it has, and nothing about it."""
    noted_at: datetime = _time()


class OutboxRow(Row, table=True):
    """Work that is still to be done at the backend about a turn, by any process (store/turns/outbox.py)."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("turn_id", "kind"),
        CheckConstraint(
            "kind IN ('cancel_run', 'close_session', 'name_conversation', 'suggest_questions')", name="kind"
        ),
    )
    id: str = _id()
    kind: str = Field(sa_column=Column(String(32), nullable=False))
    turn_id: str = _ref("turns.id")
    """It leads to the conversation, the message, and the version of the app."""
    run_id: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    """The run to cancel."""
    tries: int = Field(default=0)
    next_try_at: datetime = _time(index=True)
    """Moved forward when a process claims the row, so that no other process does the same work."""
    created_at: datetime = _time()


class RunRow(Row, table=True):
    """A run of the embedded agent: who drives it, and how it ended (docs/design/durability.md, R19).

    It refers to no other table: the agent may have a database of its own.
    """

    __tablename__ = "runs"
    __table_args__ = (
        Index(
            "uq_runs_idempotency_key",
            "idempotency_key",
            unique=True,
            postgresql_where=text(HAS_KEY),
            sqlite_where=text(HAS_KEY),
        ),
        Index(
            "ix_runs_conversation_id",
            "conversation_id",
            postgresql_where=text(HAS_CONVERSATION),
            sqlite_where=text(HAS_CONVERSATION),
        ),
        Index("ix_runs_ended_at", "ended_at", postgresql_where=text(ENDED), sqlite_where=text(ENDED)),
        Index("ix_runs_asked", "owner", postgresql_where=text(ASKED), sqlite_where=text(ASKED)),
        CheckConstraint("status IN ('running', 'succeeded', 'failed', 'cancelled')", name="status"),
        CheckConstraint("(status = 'running') = (ended_at IS NULL)", name="ended"),
        # As for turns: leases are renewed in place.
        {"postgresql_with": {"fillfactor": 70}},
    )
    id: str = _id()
    status: str = Field(sa_column=Column(String(16), nullable=False))
    owner: str = Field(sa_column=Column(uuid_type(), nullable=False))
    epoch: int
    """Grows with every change of owner; writes of an older epoch change nothing."""
    lease_until: datetime = _time()
    idempotency_key: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    conversation_id: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    """What its gateway calls the conversation; with that, the run is removed, too."""
    request: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """JSON, with the keys of model providers that the app names; only while it can be started again."""
    cancel: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    """JSON of why somebody wants it to be cancelled."""
    error: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    created_at: datetime = _time()
    ended_at: datetime | None = _time(nullable=True)


class RunEventsRow(Row, table=True):
    """Events of a run that were committed together. Written under the lock of the run's row."""

    __tablename__ = "run_events"
    __table_args__ = (PrimaryKeyConstraint("run_id", "first"),)
    run_id: str = Field(sa_column=Column(uuid_type(), nullable=False))
    first: int
    """Number of the first of them; those of a run count from 1."""
    count: int
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    """Their envelopes, one in a line."""


def is_active(table: FromClause) -> ColumnElement[bool]:
    """The turn occupies its conversation (I7). Literal, as in the partial indexes, so that they are used."""
    return in_states(table, *ACTIVE_STATES)


def in_states(table: FromClause, *states: str) -> ColumnElement[bool]:
    """The turn is in one of these states."""
    return table.c.state.in_([literal_column(f"'{state}'") for state in states])


def is_open(table: FromClause) -> ColumnElement[bool]:
    """The form waits for its answer. Literal, as in the partial indexes, so that they are used."""
    return table.c.state == literal_column("'open'")


# The same rows as core tables: turn writes are prepared statements over these, since building and
# flushing them through the ORM doubles what a turn costs.
_tables = Row.metadata.tables
apps = _tables["apps"]
app_versions = _tables["app_versions"]
api_keys = _tables["api_keys"]
request_counts = _tables["request_counts"]
end_users = _tables["end_users"]
conversations = _tables["conversations"]
messages = _tables["messages"]
turns = _tables["turns"]
steps = _tables["steps"]
files = _tables["files"]
message_files = _tables["message_files"]
snapshots = _tables["snapshots"]
feedbacks = _tables["feedbacks"]
idempotency = _tables["idempotency"]
outbox = _tables["outbox"]
forms = _tables["forms"]
processes = _tables["processes"]
runs = _tables["runs"]
run_events = _tables["run_events"]
