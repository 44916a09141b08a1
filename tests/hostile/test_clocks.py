"""Processes whose clocks are wrong, by a moment or by a day: only the database's time counts."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

import agent_gateway
from agent_gateway.store.db.column_types import UtcDateTime
from agent_gateway.store.db.tables import Row, run_events
from tests.support.fakes.script import Gate, delta, script, succeed
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import wait_until
from tests.support.json_type import Json
from tests.support.rows import look

SOURCE: Final = Path(agent_gateway.__file__).parent


@contextmanager
def clock(seconds: float, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Processes that are started meanwhile have a wall clock that is so much ahead."""
    (library,) = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None][:1]
    assert library, "faketime is missing: dev/setup installs it as root, else `apt-get install faketime`"
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        patch.setenv("FAKETIME", f"{seconds:+}")
        # Only what says what time it is; how time goes by stays as it is.
        patch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        yield


def started(fleet: Fleet, seconds: float, monkeypatch: pytest.MonkeyPatch) -> GatewayProcess:
    with clock(seconds, monkeypatch):
        return ready(fleet.process())


def ready(process: GatewayProcess) -> GatewayProcess:
    with process.client() as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
    return process


def follow(process: GatewayProcess, begun: Json) -> httpx.Response:
    return httpx.get(process.url + begun["events_url"], timeout=20, trust_env=False)


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [3, -25 * 3600, 25 * 3600])
def test_an_events_url_is_valid_at_every_process(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, user: str, ahead: float
) -> None:
    one, two = started(fleet, ahead, monkeypatch), ready(fleet.process())
    for here, there in ((one, two), (two, one)):
        begun = fleet.chat(here, user).background()
        assert [follow(process, begun).status_code for process in (there, here)] == [200, 200]


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [-25 * 3600, 25 * 3600])
def test_an_idempotency_key_makes_one_turn_despite_wrong_clocks(
    fleet: Fleet, fake: ScriptedBackend, monkeypatch: pytest.MonkeyPatch, user: str, ahead: float
) -> None:
    one, two = started(fleet, ahead, monkeypatch), ready(fleet.process())
    tasks = {
        fleet.chat(process, user).blocking("Hi", headers={"Idempotency-Key": "mine"})["task_id"]
        for process in (one, one, two, one)
    }
    assert len(tasks) == 1
    assert fake.posts == 1


@pytest.mark.parametrize("ahead", [-25 * 3600, 25 * 3600])
def test_every_row_gets_the_time_of_the_database(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, monkeypatch: pytest.MonkeyPatch, user: str, ahead: float
) -> None:
    """A conversation, a file, a feedback, a queued turn, written by a process of another day."""
    process = started(fleet, ahead, monkeypatch)
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    chat = fleet.chat(process, user)
    first = chat.background("One")
    again = chat.background("Two", conversation_id=first["conversation_id"])
    gate.open()
    assert chat.resumed(first["task_id"]).last["event"] == "message_end"
    assert chat.resumed(again["task_id"]).last["event"] == "message_end"
    with process.client() as client:
        rated = client.post(
            f"/messages/{first['message_id']}/feedbacks", json={"user": user, "rating": "like"}
        )
        assert rated.status_code == 200
        uploaded = client.post(
            "/files/upload", data={"user": user}, files={"file": ("a.txt", b"text", "text/plain")}
        )
        assert uploaded.status_code == 201
    wrong = {
        f"{table.name}.{column.name}"
        for table in Row.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, UtcDateTime) and far_from_now(fleet.database_url, table.name, column.name)
    }
    assert wrong == set()


@pytest.mark.slow
def test_runs_of_the_embedded_agent_have_the_time_of_the_database(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    """Their rows, their leases and their events; and nobody takes them for lost."""
    with clock(25 * 3600, monkeypatch):
        ahead = ready(fleet.process(BACKEND_URL=""))
    behind = ready(fleet.process(BACKEND_URL=""))
    with fleet.chat(ahead, user).open("count to 100") as stream:
        stream.next()
        followed = fleet.chat(behind, user).resumed(stream.task_id)
        assert stream.rest().answer == followed.answer
    assert followed.kinds[-1] == "message_end"
    columns = ("created_at", "lease_until", "ended_at")
    assert not any(far_from_now(fleet.database_url, "runs", column) for column in columns)

    async def work(session: AsyncSession) -> list[bytes]:
        return list(await session.scalars(select(run_events.c.data)))

    found = b"\n".join(look(fleet.database_url, work))
    times = [datetime.fromisoformat(text.decode()) for text in re.findall(rb'"created_at":"([^"]+)"', found)]
    assert len(times) > 100
    assert all(abs((time - datetime.now(UTC)).total_seconds()) < 600 for time in times)


def far_from_now(url: str, table: str, column: str) -> bool:
    """True when a row is older than ten minutes, or of later than the longest turn may end."""

    async def work(session: AsyncSession) -> bool:
        found = await session.execute(
            select(func.count())
            .select_from(text(table))
            .where(
                text(
                    f"({column} < clock_timestamp() - interval '10 minutes'"
                    f" OR {column} > clock_timestamp() + interval '90 minutes')"
                )
            )
        )
        return bool(found.scalar_one())

    return look(url, work)


def test_only_one_module_asks_the_system_for_the_time() -> None:
    """The time comes from the database or from `Database.clock`.

    But a backup is of SQLite, whose clock is that of its machine; `doctor` compares clocks; the demo agent
    tells the time.
    """
    asks = re.compile(r"datetime\.now|datetime\.utcnow|\btime\.time|from time import .*\btime\b")
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if asks.search(path.read_text())}
    assert found == {
        "store/db/database.py",
        "cli/backup.py",
        "cli/doctor/surface.py",
        "backend/embedded/agent/demo.py",
    }
