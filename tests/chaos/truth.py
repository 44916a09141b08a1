"""The truth: the rows of the database, their changes with role and time, and the runs of the backend."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tests.chaos.plan import FAILURES, QUESTION
from tests.chaos.run_log import UNKNOWN, read_log
from tests.chaos.world import World
from tests.support.fakes.run import STATUS_OF, Logged, Run
from tests.support.fakes.script import Json

LOST: Final = {"process_lost": "turn_interrupted", "shutdown": "service_unavailable"}
"""Reasons of the embedded agent, and the codes that clients get."""
GATEWAY_MADE: Final = 1_000_000_000
"""Positions above are of ends that the gateway made itself (R1)."""


@dataclass(frozen=True)
class Change:
    """A change of a turn's row, and the process that made it."""

    at: float
    role: str
    owner_role: str
    """The process that the owner is; a stop, for one, is written by any other."""
    state: str
    owner: str | None
    epoch: int
    adoptions: int
    stop: bool
    outcome: str | None


@dataclass(frozen=True)
class Row:
    """A turn and its message as they are stored in the end."""

    task_id: str
    conversation_id: str
    seq: int
    query: str
    state: str
    outcome: str | None
    error_code: str | None
    run_id: str | None
    adoptions: int
    stop: bool
    created: float
    ended: float
    end_position: int
    answer: str
    steps: list[dict[str, Any]]
    history: list[Change]
    answers: str = ""
    """The turn whose question this one answers."""

    @property
    def gateway_made(self) -> bool:
        """True when no run event ended it."""
        return self.end_position > GATEWAY_MADE


@dataclass(frozen=True)
class RunTruth:
    """A run as the backend knows it."""

    run_id: str
    task_id: str
    number: int
    """1, 2, 3 … in the order in which they were made."""
    text: str
    """All that was streamed."""
    ending: str
    """Type of its first terminal event; empty when it has none."""
    answer: str
    """The answer of a completed turn."""
    failure: str
    """Code that a failed run means."""
    snapshot_in: str
    snapshot_out: str
    """As JSON; empty when there is none."""
    asked: bool = False
    """Whether it ended with a question to a human."""
    answers: bool = False
    """Whether it was given the answer to one."""


@dataclass(frozen=True)
class Truth:
    """Everything as it is after a run of the suite."""

    rows: dict[str, Row]
    runs: list[RunTruth]
    snapshots: dict[str, str]
    """Conversation → the stored snapshot."""
    keys: dict[str, str]
    """Idempotency-Key → turn."""
    log_problems: list[str] = field(default_factory=list)
    """What is wrong with the run log itself, where there is one."""


async def read_truth(world: World) -> Truth:
    """Read rows and runs."""
    async with world.postgres.connection(world.database) as connection:
        history: dict[str, list[Change]] = {}
        roles: dict[Any, str] = {}
        for change in await connection.fetch("SELECT * FROM chaos_history ORDER BY number"):
            history.setdefault(str(change["turn_id"]), []).append(
                Change(
                    _seconds(change["at"]),
                    change["role"],
                    roles.setdefault(change["owner"], change["role"]) if change["owner"] else "",
                    change["state"],
                    _text(change["owner"]),
                    change["epoch"],
                    change["adoptions"],
                    change["stop_at"] is not None,
                    change["outcome"],
                )
            )
        steps: dict[str, list[dict[str, Any]]] = {}
        for step in await connection.fetch("SELECT * FROM steps ORDER BY message_id, number"):
            steps.setdefault(str(step["message_id"]), []).append(dict(step))
        rows: dict[str, Row] = {}
        for row in await connection.fetch(_ROWS):
            task_id = str(row["id"])
            rows[task_id] = Row(
                task_id=task_id,
                conversation_id=str(row["conversation_id"]),
                seq=row["seq"],
                query=row["query"],
                state=row["state"],
                outcome=row["outcome"],
                error_code=row["error_code"],
                run_id=row["run_id"],
                adoptions=row["adoptions"],
                stop=row["stop_at"] is not None,
                created=_seconds(row["created_at"]),
                ended=_seconds(row["ended_at"]),
                end_position=row["end_position"] or 0,
                answer=row["answer"],
                steps=steps.get(str(row["message_id"]), []),
                history=history.get(task_id, []),
                answers=_text(row["answers"]) or "",
            )
        snapshots = await connection.fetch("SELECT conversation_id, data FROM snapshots")
        keys = await connection.fetch("SELECT key, turn_id FROM idempotency")
        logged, log_problems = await read_log(connection)
    runs = [_run(number, run) for number, run in enumerate(world.backend.runs.values(), start=1)]
    for number, one in enumerate(logged, start=1):
        end = one.events[-1] if one.ending else {}
        snapshot = end.get("data", {}).get("session_snapshot")
        runs.append(
            RunTruth(
                run_id=one.run_id,
                task_id=one.key,
                number=number,
                text=one.text,
                ending=one.ending,
                answer=one.text,
                failure=LOST.get(end.get("data", {}).get("reason") or "", "internal_server_error"),
                snapshot_in=UNKNOWN,
                snapshot_out=_same(snapshot) if snapshot else "",
            )
        )
    return Truth(
        rows=rows,
        runs=runs,
        log_problems=log_problems,
        snapshots={str(row["conversation_id"]): _same(json.loads(row["data"])) for row in snapshots},
        keys={row["key"]: str(row["turn_id"]) for row in keys},
    )


_ROWS: Final = """
SELECT t.*, m.query, m.answer, f.turn_id AS answers
FROM turns t JOIN messages m ON m.id = t.message_id LEFT JOIN forms f ON f.id = t.form_id
ORDER BY t.created_at
"""


def _run(number: int, run: Run) -> RunTruth:
    body = run._body
    text = ""
    ending: Json = {}
    for entry in run.log:
        if isinstance(entry, Logged):
            text += entry.event.get("agent_message_delta") or ""
            if entry.event["type"] in STATUS_OF:
                ending = entry.event
                break
    text = _whole(text)
    data = ending.get("data", {})
    asked = "deferred_tool_call" in data
    snapshot_out = data.get("session_snapshot")
    return RunTruth(
        run_id=run.id,
        task_id=body["idempotency_key"],
        number=number,
        text=text,
        ending=ending.get("type", ""),
        answer=_answer(text, data, asked=asked),
        failure=FAILURES.get(data.get("reason") or "", "internal_server_error"),
        snapshot_in=_same(body["session_snapshot"]) if body.get("session_snapshot") else "",
        snapshot_out=_same(snapshot_out) if snapshot_out else "",
        asked=asked,
        answers=bool(body.get("deferred_tool_results")),
    )


def _answer(text: str, data: Json, *, asked: bool) -> str:
    if asked:
        return f"{text}\n\n{QUESTION}" if text else QUESTION
    output = data.get("output")
    if text or output is None:
        return text
    return _whole(output) if isinstance(output, str) else json.dumps(output, separators=(",", ":"))


def _whole(text: str) -> str:
    """The text with the halves that belong together as one character, and U+FFFD for those that do not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _same(value: Any) -> str:
    """JSON in one way of writing it."""
    return json.dumps(value, sort_keys=True)


def _seconds(value: datetime | None) -> float:
    return value.timestamp() if value else 0.0


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
