"""The one seam where the database's errors become ours, and which of them make a connection useless."""

import sqlite3
from typing import Final

from asyncpg.exceptions import InterfaceError as DriverError
from asyncpg.exceptions import InternalClientError, InvalidCachedStatementError, PostgresError
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agent_gateway.conditions import Condition
from agent_gateway.errors import StoreError, StoreHeldUp, StoreRejected, StoreUnavailable

_PASSING_SQLSTATES: Final = ("08", "25", "26", "28", "3D", "40", "42501", "42P05", "53", "55", "57", "58")
"""Classes of connection, transaction, login, resource, lock, operator and system errors. No data causes them,
and an operator can repair the cause."""
_PASSING_SQLITE: Final = ("locked", "busy", "disk", "full", "i/o", "unable to open", "readonly")
_USELESS_SQLSTATES: Final = ("08", "25", "26", "42P05", "57P")
"""After these a connection is closed, cannot be written on (25006), is not in the expected transaction, or is
another session than before (prepared statements are missing)."""
_FOREIGN_STATEMENTS: Final = ("26", "42P05")
_GIVEN_UP: Final = ("40001", "40P01", "55P03", "57014")
"""A conflict, a deadlock, a long wait for a lock, a long statement: the server says that it rolled back."""
_DRIVERS: Final = (PostgresError, DriverError, InternalClientError, sqlite3.Error)
"""What the drivers raise to those that use them directly (prepared.py)."""


class MappedErrors:
    """`with` it, errors of the database and its driver become StoreUnavailable or StoreRejected.

    A plain class, because it is entered for every query. `away` is told what went wrong and what went well.
    """

    def __init__(self, away: Condition | None = None) -> None:
        self._away = away

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            if self._away is not None and self._away.holds:
                self._away.passed()
            return
        mapped, hides = _mapped(error)
        if self._away is not None and type(mapped) is StoreUnavailable:
            # Not its kinds: what another transaction held up, and what a leaving process refuses.
            self._away.met(mapped)
        if mapped is not None and mapped is not error:
            raise mapped from (None if hides else error)


def _mapped(error: BaseException) -> tuple[StoreError | None, bool]:
    """Our error for this one, None for one that passes; and whether its text must be kept out of logs."""
    mapped: StoreError | None = None
    if isinstance(error, StoreError):
        mapped = error
    elif isinstance(error, PoolTimeoutError | OSError | TimeoutError | MemoryError) or _is_threadless(error):
        mapped = StoreUnavailable(_of_system(error))
    elif isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
        # The whole text quotes what users wrote.
        return (StoreUnavailable if _is_passing(error) else StoreRejected)(_reason(error)), True
    elif isinstance(error, _DRIVERS):
        return _mapped_driver_error(error), True
    elif isinstance(error, SQLAlchemyError) and not isinstance(error, IntegrityError):
        mapped = StoreRejected(type(error).__name__)
    return mapped, False


def _of_system(error: BaseException) -> str:
    """The kind of an error of the system, and what the system says of it; that has no text of a user."""
    said = getattr(error, "strerror", None)
    return f"{type(error).__name__} {said}" if said else type(error).__name__


mapped_errors: Final = MappedErrors()
"""For work outside of a `Database`."""


def is_useless(error: BaseException) -> bool:
    """True when the connection with this error must not be used again, although it may answer."""
    if isinstance(error, OSError | TimeoutError):
        # No answer in time: a later answer would be taken for that of the next statement.
        return True
    driver = error if isinstance(error, _DRIVERS) else error.__cause__
    if isinstance(driver, InternalClientError):
        return True
    if isinstance(driver, DriverError):
        # A value that does not fit raises one of these, too.
        return not isinstance(driver, ValueError)
    return _sqlstate(error).startswith(_USELESS_SQLSTATES)


def is_foreign_session(error: BaseException) -> bool:
    """True when statements that this connection prepared are missing: a pooler gave it another session."""
    return _sqlstate(error).startswith(_FOREIGN_STATEMENTS)


def is_held_up(error: DBAPIError) -> bool:
    """True when the transaction was ended because it waited too long for another one, or in a deadlock."""
    return _sqlstate(error.orig) in ("40P01", "55P03")


def _is_threadless(error: BaseException) -> bool:
    """True when the system gives this process no further thread; each connection to SQLite needs one."""
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def _sqlstate(error: BaseException | None) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def _reason(error: DBAPIError) -> str:
    """The text of the error, without the value that caused it: class 22 quotes the value."""
    return _said(getattr(error.orig, "__cause__", None) or error.orig, _sqlstate(error.orig))


def _said(cause: BaseException | None, sqlstate: str = "") -> str:
    sqlstate = sqlstate or _sqlstate(cause)
    # Values are quoted by the classes of bad and conflicting data, and by the driver's errors of arguments.
    quotes = sqlstate.startswith(("22", "23")) or isinstance(cause, ValueError)
    return " ".join(filter(None, [type(cause).__name__, sqlstate, "" if quotes else str(cause)]))


def _mapped_driver_error(error: BaseException) -> StoreError:
    if _sqlstate(error) in _GIVEN_UP:
        return StoreHeldUp(_said(error))
    return (StoreUnavailable if _is_passing_of_driver(error) else StoreRejected)(_said(error))


def _is_passing_of_driver(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return isinstance(error, sqlite3.OperationalError) and _is_passing_text(error)
    if isinstance(error, InvalidCachedStatementError):
        return True
    if sqlstate := _sqlstate(error):
        return sqlstate.startswith(_PASSING_SQLSTATES)
    return is_useless(error)


def _is_passing_text(error: BaseException | None) -> bool:
    return any(word in str(error).lower() for word in _PASSING_SQLITE)


def _is_passing(error: DBAPIError) -> bool:
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    # A plan from before a migration: the driver has dropped it by now.
    if isinstance(getattr(error.orig, "__cause__", None), InvalidCachedStatementError):
        return True
    if sqlstate := _sqlstate(error.orig):
        return sqlstate.startswith(_PASSING_SQLSTATES)
    return _is_passing_text(error.orig)
