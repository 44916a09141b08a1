"""Who may reach a row (I11): the tenancy predicate, for every statement on behalf of a caller.

A conversation or file belongs to one end user of one app; once deleted, it exists for no caller.
The statements take the values as the parameters `app` and `user`: bind them with `scope_of`.
"""

from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, and_, bindparam, select

from agent_gateway.domain.ids import AppId
from agent_gateway.store.db.tables import end_users


def is_end_user(
    app: ColumnElement[Any], user: ColumnElement[Any], table: FromClause = end_users
) -> ColumnElement[bool]:
    """The end user of that app with that name of the caller's."""
    return and_(table.c.app_id == app, table.c.external_id == user)


END_USER: Final = select(end_users.c.id).where(is_end_user(bindparam("app"), bindparam("user")))
"""The id of the caller's end user; no row before their first message or upload."""


def scope_of(app_id: AppId, user: str) -> dict[str, str]:
    """The parameters of the predicates below: an app, and the caller's own name for its end user."""
    return {"app": app_id, "user": user}


def of_app(table: FromClause) -> ColumnElement[bool]:
    """Rows of the app, whoever its end user is, that are not deleted. Needs only the parameter `app`."""
    return _of(table, bindparam("app"))


def owned_by(
    table: FromClause, app: ColumnElement[Any], end_user_id: ColumnElement[Any]
) -> ColumnElement[bool]:
    """`owned` for statements about several callers, who are in columns."""
    return and_(_of(table, app), table.c.end_user_id == end_user_id)


def _of(table: FromClause, app: ColumnElement[Any]) -> ColumnElement[bool]:
    return and_(table.c.app_id == app, table.c.deleted_at.is_(None))


def owned(table: FromClause) -> ColumnElement[bool]:
    """Rows of the app's end user that are not deleted; `table` is `conversations` or `files`."""
    # Never correlated: an `end_users` of the statement around it must not change who the user is.
    end_user_id = END_USER.correlate(None).scalar_subquery()
    return and_(of_app(table), table.c.end_user_id == end_user_id)
