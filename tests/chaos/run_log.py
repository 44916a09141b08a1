"""The log of the embedded agent's runs, as it is in the database, and what its agent must have said."""

import json
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from agent_gateway.backend.embedded.agent.demo import answer
from tests.support.fakes.run import STATUS_OF
from tests.support.json_type import Json

UNKNOWN: Final = "unknown"
"""The snapshot with which a run began: the log does not say it."""


@dataclass(frozen=True)
class LoggedRun:
    """A run and all of its events."""

    run_id: str
    key: str
    status: str
    events: list[Json]

    @property
    def text(self) -> str:
        return "".join(str(event.get("agent_message_delta") or "") for event in self.events)

    @property
    def ending(self) -> str:
        """The type of its terminal event; empty when it has none."""
        return next((event["type"] for event in self.events if event["type"] in STATUS_OF), "")


async def read_log(connection: asyncpg.Connection) -> tuple[list[LoggedRun], list[str]]:
    """All runs in the order in which they began, and what is wrong with their logs."""
    events: dict[str, list[Json]] = {}
    numbers: dict[str, list[tuple[int, int]]] = {}
    for row in await connection.fetch("SELECT * FROM run_events ORDER BY run_id, first"):
        run_id = str(row["run_id"])
        batch = [json.loads(line) for line in row["data"].split(b"\n")]
        events.setdefault(run_id, []).extend(batch)
        numbers.setdefault(run_id, []).append((row["first"], len(batch)))
    runs = [
        LoggedRun(str(row["id"]), row["idempotency_key"] or "", row["status"], events.pop(str(row["id"]), []))
        for row in await connection.fetch("SELECT * FROM runs ORDER BY created_at")
    ]
    problems = [f"events of no run: {run_id}" for run_id in events]
    for run in runs:
        problems += [f"{run.run_id}: {problem}" for problem in _problems(run)]
    return runs, problems


def _problems(run: LoggedRun) -> list[str]:
    found: list[str] = []
    if [int(event["id"].partition("-")[2]) for event in run.events] != list(range(1, len(run.events) + 1)):
        found.append("its events are not numbered from 1, each once")
    if not run.events or run.events[0]["type"] != "run_started":
        found.append("it does not begin with run_started")
    ends = [event["type"] for event in run.events if event["type"] in STATUS_OF]
    if len(ends) > 1 or (ends and run.events[-1]["type"] not in STATUS_OF):
        found.append(f"not one end, or something after it: {ends}")
    if (STATUS_OF[ends[0]] if ends else "running") != run.status:
        found.append(f"its row says {run.status}, its events {ends}")
    if any(event["run_id"] != run.run_id for event in run.events):
        found.append("it holds an event of another run")
    return found


def prompts(snapshot: str) -> list[str]:
    """What users have said in the conversation that a snapshot holds."""
    layers = json.loads(snapshot)["layers"] if snapshot else []
    messages: list[Any] = [
        message for layer in layers for message in layer["runtime_state"].get("messages", [])
    ]
    return [
        part["content"]
        for message in messages
        for part in message["parts"]
        if part["part_kind"] == "user-prompt"
    ]


def said(snapshot: str, query: str) -> str:
    """What the demo agent answers to this query, after the conversation in the snapshot."""
    return answer([*prompts(snapshot), query])
