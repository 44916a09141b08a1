"""Whether a message may become a turn, and on which version of its app; within the transaction of `begin`.

These checks come after the claim of the Idempotency-Key: a repeated post begins no turn, so none of
them refuses it.
"""

from typing import Final, TypeAlias

from sqlalchemy import Row, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway.apps.config import read_config
from agent_gateway.apps.policy import moves_to_new_version
from agent_gateway.domain.ids import AppVersionId
from agent_gateway.domain.turns import App, TurnRequest
from agent_gateway.errors import InvalidParam, TooManyRequests
from agent_gateway.store.db.tables import app_versions, apps, conversations, is_active, turns

_VersionRow: TypeAlias = Row[str, str]
"""Id and configuration of a version."""


def check_query(app: App, request: TurnRequest) -> None:
    """Raise InvalidParam when the query is longer than the app allows."""
    most = app.config.limits.query_characters
    if most is not None and len(request.query) > most:
        raise InvalidParam(f"query: must be at most {most} characters long")


_VERSION: Final = select(app_versions.c.id, app_versions.c.config).where(
    app_versions.c.id == bindparam("version")
)
_CURRENT_VERSION: Final = (
    select(app_versions.c.id, app_versions.c.config)
    .join(apps, apps.c.version_id == app_versions.c.id)
    .where(apps.c.id == bindparam("app"))
)


async def version_of(connection: AsyncConnection, app: App, pinned: str | None) -> App:
    """The version that a conversation's next turn runs on (R17), by what the current version says.

    `app` is the current version as this process remembers it, for up to half a minute. When the
    conversation is on another one, the rows say which of the two is newer.
    """
    if pinned == app.version_id:
        return app
    current = _app(app, (await connection.execute(_CURRENT_VERSION, {"app": app.id})).one())
    if pinned is None or moves_to_new_version(current.config):
        return current
    return _app(app, (await connection.execute(_VERSION, {"version": pinned})).one())


def _app(app: App, row: _VersionRow) -> App:
    version_id, config = row
    return App(app.id, AppVersionId(version_id), read_config(config), app.slug)


# Not the stronger FOR UPDATE: that would wait for every new row that refers to the app.
_LOCK_APP: Final = select(apps.c.id).where(apps.c.id == bindparam("app")).with_for_update(key_share=True)
_ACTIVE_TURNS: Final = (
    select(func.count())
    .select_from(turns)
    .join(conversations, conversations.c.id == turns.c.conversation_id)
    .where(conversations.c.app_id == bindparam("app"), is_active(turns))
)


async def check_concurrency(connection: AsyncConnection, app: App) -> None:
    """Raise TooManyRequests when as many turns of the app are active as its limit allows.

    The app's row is locked until the commit, so that no two transactions count at the same time. A
    queued turn is not counted: it replaces the active turn before it. Lock order: conversation, app.
    """
    most = app.config.limits.concurrent_turns
    if most is None:
        return
    await connection.execute(_LOCK_APP, {"app": app.id})
    if (await connection.scalar(_ACTIVE_TURNS, {"app": app.id}) or 0) >= most:
        raise TooManyRequests("Too many turns of this app are running. Please try again later.")
