"""What `agent-gateway turns` does: list, show, stop."""

from datetime import datetime
from typing import Final

import typer

from agent_gateway.cli.environment import app_named, with_database
from agent_gateway.cli.values import duration, print_json, print_table, print_values, second, span
from agent_gateway.domain.ids import TaskId, canonical_uuid
from agent_gateway.errors import ConfigError
from agent_gateway.settings import Settings
from agent_gateway.store.db.database import Database
from agent_gateway.store.turns.listing import ListedTurn, TurnDetails, TurnFilter, TurnListing, Which
from agent_gateway.store.turns.operator import OperatorStop, stop_by_operator

SINCE: Final = "1d"
"""How far back a list goes that could otherwise have every turn."""
STOPPED_BY: Final = {
    "user": "its user",
    "operator": "an operator",
    "interrupted": "the next message of its conversation",
    "deleted": "the deletion of its conversation",
    "app deleted": "the deletion of its app",
    "not begun": "the gateway: the client had got the answer that no turn was begun",
}


def list_turns(
    which: Which,
    app: str | None,
    user: str | None,
    since: str | None,
    request_id: str | None,
    *,
    limit: int,
    as_json: bool,
) -> None:
    """Print the newest turns of this kind. What has not ended is listed however old it is."""
    if since is None and which in ("failed", "all"):
        since = SINCE
    wanted = TurnFilter(
        which=which,
        app=app,
        user=user,
        request_id=request_id,
        since=None if since is None else duration(since, "--since"),
        limit=limit,
    )

    async def work(database: Database, settings: Settings) -> list[ListedTurn]:
        if app is not None:
            await app_named(database, app)
        return await TurnListing(database, settings.lease_seconds).turns(wanted)

    found = with_database(work)
    if as_json:
        print_json(found)
        return
    head = ("TASK", "STATE", "APP", "AGE", "OWNER", "RUN", "CODE", "CAUSE")
    print_table(head, [_line(turn) for turn in found])
    if not found and since is not None:
        typer.echo(f"note: only turns that began in the last {since} were looked for, see --since", err=True)


def show(task: str, *, as_json: bool) -> None:
    """Print all that a turn's rows tell about what happened to it."""
    task_id = _task_id(task)

    async def work(database: Database, settings: Settings) -> TurnDetails | None:
        return await TurnListing(database, settings.lease_seconds).details(task_id)

    turn = with_database(work)
    if turn is None:
        raise _unknown(task)
    if as_json:
        print_json([turn])
        return
    print_values(_values(turn))
    typer.echo("history:")
    for time, event in _history(turn):
        typer.echo(f"  {second(time) if time else '-':<20} {event}")


def stop(task: str) -> None:
    """Stop a turn, and say what that does."""
    task_id = _task_id(task)

    async def work(database: Database, settings: Settings) -> tuple[OperatorStop | None, float]:
        stopped = await stop_by_operator(database, task_id, settings.turn_timeout_seconds)
        return stopped, settings.lease_seconds

    stopped, lease_seconds = with_database(work)
    if stopped is None:
        raise _unknown(task)
    if stopped.ended_before:
        said = f"had ended before ({stopped.ended_before.value}): nothing was changed"
    elif stopped.ended:
        said = "stopped; it had no run yet"
    elif stopped.asked_before:
        said = f"was asked to stop before, by {_who(stopped.asked_before)}; its owner ends it"
    else:
        said = f"is asked to stop; its owner ends it within {lease_seconds:g} seconds"
    typer.echo(f"{task_id}: {said}")


def _task_id(text: str) -> TaskId:
    known = canonical_uuid(text)
    if known is None:
        raise _unknown(text)
    return TaskId(known)


def _unknown(task: str) -> ConfigError:
    return ConfigError(f"there is no turn {task!r}: see `agent-gateway turns list`")


def _line(turn: ListedTurn) -> tuple[str, ...]:
    age = (turn.now - turn.created_at).total_seconds()
    return (
        turn.task_id,
        _state(turn),
        turn.app,
        span(age),
        turn.owner[-8:] if turn.owner and not turn.outcome else "-",
        turn.run_id or "-",
        turn.code or "-",
        _why(turn) or "-",
    )


def _state(turn: ListedTurn) -> str:
    return turn.outcome or turn.state


def _why(turn: ListedTurn) -> str:
    return turn.stuck or (str(turn.cause) if turn.cause else "")


def _who(reason: str) -> str:
    return STOPPED_BY.get(reason, reason)


def _values(turn: TurnDetails) -> list[tuple[str, object]]:
    """What is shown, by name; None where it is unknown or does not apply."""
    tokens = (turn.prompt_tokens, turn.completion_tokens, turn.total_tokens)
    deleted = " (deleted)" if turn.conversation_deleted else ""
    is_over = turn.outcome is not None
    return [
        ("turn", turn.task_id),
        ("state", _state(turn)),
        ("stuck", turn.stuck),
        ("code", turn.code),
        ("cause", turn.cause),
        ("app", f"{turn.app}, version {turn.app_version}"),
        ("user", turn.user),
        ("conversation", f"{turn.conversation_id}{deleted}, turn {turn.seq} of it"),
        ("message", turn.message_id),
        ("request", turn.request_id),
        ("trace", turn.traceparent),
        ("run", turn.run_id),
        ("owner", turn.owner),
        ("epoch", turn.epoch),
        ("adoptions", turn.adoptions),
        ("lease until", None if is_over else second(turn.lease_until) if turn.lease_until else "-"),
        ("deadline", None if is_over else second(turn.deadline_at)),
        ("took", span((turn.ended_at - turn.created_at).total_seconds()) if turn.ended_at else None),
        ("tokens", "{} prompt, {} completion, {} in all".format(*tokens) if any(tokens) else None),
        ("finish reason", turn.finish_reason),
        ("sizes", f"query {turn.query_bytes} bytes, answer {turn.answer_bytes} bytes, {turn.steps} steps"),
    ]


def _history(turn: TurnDetails) -> list[tuple[datetime | None, str]]:
    """What happened to it, in order; the rows have no times of some events."""
    carried = ", with the answer of a form" if turn.answers_form else ""
    events: list[tuple[datetime | None, str]] = [(turn.created_at, f"created{carried}")]
    if turn.epoch > 1:
        events.append((None, f"its owner changed {turn.epoch - 1} times"))
    if turn.adoptions:
        events.append((None, f"adopted {turn.adoptions} times from an owner that died"))
    if turn.stop_at:
        events.append((turn.stop_at, f"asked to stop by {_who(turn.stop_reason or '')}"))
    if turn.ended_at:
        why = f": {turn.code}" if turn.code else ""
        events.append((turn.ended_at, f"ended, {_state(turn)}{why}"))
    elif turn.stuck:
        events.append((turn.now, f"stuck: {turn.stuck}"))
    else:
        events.append((turn.now, f"still {turn.state}"))
    return events
