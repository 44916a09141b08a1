"""The database goes away and comes back: running turns wait, new ones are refused, nothing is invented."""

import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.apps.config import default_app
from agent_gateway.domain.ids import AppId, TaskId, new_id
from agent_gateway.limits import Limits, RegistryLimits
from agent_gateway.routes.http.tickets import Ticket
from agent_gateway.store.db.tables import TurnRow
from agent_gateway.store.turns.intake import TurnIntake
from agent_gateway.store.turns.stopping import Stopped
from agent_gateway.turns import maintenance
from tests.support.chat import PING, Chat, Stream, refused
from tests.support.databases import sqlite_url
from tests.support.fakes.script import Gate, delta, script, succeed, tool_call, tool_result
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of
from tests.support.fakes.tcp_proxy import TcpProxy, postgres_proxy, through
from tests.support.gateway_server import BOUND, GatewayServer, StartGateway, wait_until
from tests.support.rows import (
    APPLICATION,
    add_app,
    counts,
    end_behind_its_back,
    installed,
    locked_conversation,
    look,
    never,
    newest_turn,
    no_new_turns,
    rows_of,
    terminate_backends,
)


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[TcpProxy]:
    with postgres_proxy(postgres_url) as proxy:
        yield proxy


@pytest.fixture
def fragile(
    proxy: TcpProxy, postgres_url: str, fake: ScriptedBackend, gate: Gate, tmp_path: Path
) -> Iterator[GatewayServer]:
    """A gateway whose way to Postgres can be cut."""
    url = through(proxy, postgres_url)
    with GatewayServer(tmp_path, database_url=url, backend_url=fake.url, ping_seconds=0.1) as server:
        yield installed(server)
        gate.open()
        proxy.open()


@contextmanager
def outage(proxy: TcpProxy) -> Generator[None]:
    proxy.cut()
    yield
    proxy.open()


def pings(stream: Stream, count: int) -> None:
    """Read until that many keepalives came; nothing else may come."""
    for _ in range(count):
        assert stream.block() == PING


def blocked_backends(url: str) -> int:
    """How many connections of the gateway wait for a lock."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = :name AND wait_event_type = 'Lock'"
    )

    async def work(session: AsyncSession) -> int:
        return int((await session.execute(statement, {"name": APPLICATION})).scalar_one())

    return look(url, work)


def test_a_running_turn_survives_a_database_outage(
    fragile: GatewayServer, proxy: TcpProxy, postgres_url: str, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """It continues to stream, waits with its end, pings, and says message_end when it is stored."""
    fake.script = script(said("So ", "far, "), gate, delta("so good"), succeed())
    with fragile.client() as client:
        chat = Chat(client, user)
        with chat.open() as stream:
            stream.until("far, ")
            before = counts(postgres_url)
            with outage(proxy):
                gate.open()
                stream.until("so good")
                pings(stream, 3)
                assert client.get("/healthz").status_code == 200
                refused(client.get("/readyz"), 503, "service_unavailable")
                for response_mode in ("streaming", "blocking", "background"):
                    headers = {"Idempotency-Key": f"during the outage {response_mode}"}
                    response = chat.post(response_mode=response_mode, headers=headers)
                    refused(response, 503, "service_unavailable")
                    assert int(response.headers["Retry-After"]) >= 1
                refused(client.get("/conversations", params={"user": user}), 503, "service_unavailable")
                with fragile.client("app-another-key") as stranger:
                    refused(stranger.get("/info"), 503, "service_unavailable")
                pings(stream, 3)
            heard = stream.rest()
        assert heard.kinds == ["message", "message", "message", "message_end"]
        assert counts(postgres_url) == before
        assert rows_of(postgres_url, heard.task_id).message.answer == "So far, so good"
        assert client.get("/readyz").status_code == 200
        assert chat.blocking(conversation_id=heard.conversation_id)["answer"]
    assert fake.posts == 2


def test_an_event_source_during_an_outage_waits_for_its_end(
    fragile: GatewayServer,
    proxy: TcpProxy,
    postgres_url: str,
    fake: ScriptedBackend,
    user: str,
    tmp_path: Path,
) -> None:
    """EventSource never comes back after a 503: with a ticket the answer is a 200 that pings."""
    (tmp_path / "other").mkdir()
    with (
        GatewayServer(tmp_path / "other", database_url=postgres_url, backend_url=fake.url) as other,
        other.client() as client,
    ):
        chat = Chat(client, user)
        begun = chat.background("Where did we stop?")
        whole = chat.resumed(begun["task_id"])
    with fragile.client("none") as browser:
        proxy.cut()
        with browser.stream("GET", begun["events_url"]) as response:
            assert (response.status_code, response.headers["X-Task-Id"]) == (200, begun["task_id"])
            stream = Stream(response)
            assert (stream.block() or b"").startswith(b"retry: ")
            pings(stream, 3)
            proxy.open()
            assert stream.rest().frames == whole.frames


def test_an_event_source_of_an_unknown_turn_gets_not_found_after_the_outage(
    fragile: GatewayServer, proxy: TcpProxy, user: str
) -> None:
    """Its next request gets the 404 that this one could not."""
    ticket = Ticket(TaskId(new_id()), AppId(new_id()), user)
    with fragile.client("none") as browser:
        url = fragile.gateway.tickets.events_url(ticket)
        proxy.cut()
        with browser.stream("GET", url) as response:
            stream = Stream(response)
            assert (stream.block() or b"").startswith(b"retry: ")
            pings(stream, 2)
            proxy.open()
            assert stream.rest().frames == []
        refused(browser.get(url), 404, "not_found")


def test_a_turn_keeps_its_owner_after_failed_heartbeats(
    proxy: TcpProxy, postgres_url: str, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """The lease runs out during the outage; as nobody took the turn, it continues."""
    fake.script = script(said("So far"), gate, succeed())
    url = through(proxy, postgres_url)
    with (
        GatewayServer(
            tmp_path, database_url=url, backend_url=fake.url, ping_seconds=0.1, lease_seconds=0.9
        ) as server,
        installed(server).client() as client,
        Chat(client, user).open() as stream,
    ):
        stream.until("So far")
        with outage(proxy):
            wait_until(lambda: _lease_is_over(postgres_url))
        wait_until(lambda: not _lease_is_over(postgres_url))
        gate.open()
        assert stream.rest().last["event"] == "message_end"


def _lease_is_over(url: str) -> bool:
    async def work(session: AsyncSession) -> bool:
        over = col(TurnRow.lease_until) < func.clock_timestamp()
        return (await session.execute(select(over).where(col(TurnRow.state) != "ended"))).scalar_one()

    return look(url, work)


def test_begin_during_the_outage_can_be_repeated_after_it(
    fragile: GatewayServer, proxy: TcpProxy, fake: ScriptedBackend, user: str
) -> None:
    """What was refused before begin is not remembered (R15)."""
    with fragile.client() as client:
        chat = Chat(client, user)
        chat.blocking()
        headers = {"Idempotency-Key": "the key"}
        with outage(proxy):
            refused(chat.post("again", headers=headers), 503, "service_unavailable")
        posts = fake.posts
        assert chat.blocking("again", headers=headers)["answer"] == "You said: again."
        assert fake.posts == posts + 1


def test_an_ended_turn_is_replayed_once_the_database_is_back(
    fragile: GatewayServer, proxy: TcpProxy, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """A reader on another replica waits, and gets pings, while the rows cannot be read."""
    fake.script = script(said("So far"), gate, succeed())
    url = fragile.settings.database_url
    with (
        GatewayServer(tmp_path / "2", database_url=url, backend_url=fake.url, ping_seconds=0.1) as other,
        fragile.client() as client,
        installed(other).client() as other_client,
    ):
        task_id = Chat(client, user).background()["task_id"]
        with Chat(other_client, user).follow(task_id) as stream:
            assert (stream.block() or b"").startswith(b"retry: ")
            pings(stream, 1)
            stream.until("So far")
            with outage(proxy):
                gate.open()
                pings(stream, 1)
            heard = stream.rest()
        assert heard.kinds == ["message", "message_end"]


@pytest.mark.parametrize("when", ["in mid-turn", "at finish"])
def test_connections_ended_by_postgres_are_replaced(
    postgres_url: str, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str, when: str
) -> None:
    fake.script = script(said("So far"), gate, succeed())
    with (
        GatewayServer(tmp_path, database_url=postgres_url, backend_url=fake.url) as server,
        installed(server).client() as client,
        Chat(client, user).open() as stream,
    ):
        [event] = stream.until("So far")
        if when == "in mid-turn":
            assert terminate_backends(postgres_url) >= 1
            gate.open()
        else:
            with locked_conversation(postgres_url, event["conversation_id"]):
                gate.open()
                wait_until(lambda: blocked_backends(postgres_url))
                assert terminate_backends(postgres_url) >= 1
                wait_until(lambda: blocked_backends(postgres_url))
        heard = stream.rest()
        assert heard.kinds == ["message", "message_end"]
        rows = rows_of(postgres_url, heard.task_id)
        assert (rows.turn.outcome, rows.message.answer) == ("completed", "So far")
        assert rows.snapshot is not None


@pytest.mark.parametrize(("write", "commits_later"), [("arm", 1), ("running", 2), ("finish", 3)])
def test_a_commit_with_a_lost_answer_is_not_repeated(  # noqa: PLR0917
    proxy: TcpProxy,
    postgres_url: str,
    fake: ScriptedBackend,
    tmp_path: Path,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    write: str,
    commits_later: int,
) -> None:
    """It is committed, but the connection breaks before the owner knows (R14)."""
    url = through(proxy, postgres_url)
    # Nobody else commits while the test lasts: it counts the commits.
    for job in ("sweep", "expire_forms"):
        monkeypatch.setattr(maintenance.Maintenance, job, never)
    with (
        GatewayServer(tmp_path, database_url=url, backend_url=fake.url, lease_seconds=300) as server,
        installed(server).client() as client,
    ):
        chat = Chat(client, user)
        conversation = chat.blocking()["conversation_id"]
        proxy.lose_commit(b"Once more", commits_later)
        heard = chat.streaming("Once more", conversation_id=conversation)
        assert heard.kinds[-1] == "message_end"
        assert heard.kinds.count("message_end") == 1
        assert heard.answer == "You said: Once more."
        rows = rows_of(postgres_url, heard.task_id)
        assert (rows.turn.outcome, rows.turn.epoch, rows.message.answer) == ("completed", 1, heard.answer)
        assert rows.snapshot is not None
        assert rows.snapshot.seq == 2
        assert fake.posts == 2
        assert chat.blocking(conversation_id=conversation)["answer"] == "You said: Hello."


def test_a_begin_with_a_lost_answer_runs_once(
    proxy: TcpProxy,
    postgres_url: str,
    fake: ScriptedBackend,
    tmp_path: Path,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client is told to try again; its turn is adopted as one whose process died before it ran."""
    url = through(proxy, postgres_url)
    shared = {"backend_url": fake.url, "lease_seconds": 0.9}
    # Nobody adopts the turn before the client asks again.
    monkeypatch.setattr(maintenance.Maintenance, "sweep", never)
    with (
        GatewayServer(tmp_path / "1", database_url=url, **shared) as server,
        installed(server).client() as client,
    ):
        chat = Chat(client, user)
        conversation = chat.blocking()["conversation_id"]
        proxy.lose_commit(b"the key")
        again = {"conversation_id": conversation, "headers": {"Idempotency-Key": "the key"}}
        refused(chat.post(**again), 503, "service_unavailable")
        assert fake.posts == 1
        monkeypatch.undo()
        with GatewayServer(tmp_path / "2", database_url=postgres_url, **shared) as other:
            installed(other)
            assert chat.post(**again).json()["answer"] == "You said: Hello."
            assert fake.posts == 2
            assert [item["status"] for item in chat.messages(conversation)] == ["normal", "normal"]
            assert Chat(client, user).blocking(conversation_id=conversation)["answer"] == "You said: Hello."


def test_a_begin_without_a_key_and_with_a_lost_answer_is_ended(
    fragile: GatewayServer,
    proxy: TcpProxy,
    postgres_url: str,
    fake: ScriptedBackend,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody will ask for it again, and the client that was told to try again must not meet it."""
    monkeypatch.setattr(maintenance.Maintenance, "sweep", never)
    with fragile.client() as client:
        chat = Chat(client, user)
        conversation = chat.blocking("One")["conversation_id"]
        proxy.lose_commit(b"Two")
        refused(chat.post("Two", conversation_id=conversation), 503, "service_unavailable")
        task_id = newest_turn(postgres_url, conversation)
        wait_until(lambda: rows_of(postgres_url, task_id).turn.state == "ended")
        lost = rows_of(postgres_url, task_id).turn
        assert (lost.seq, lost.outcome, lost.stop_reason, lost.run_id) == (2, "stopped", "not begun", None)
        assert chat.blocking("Two", conversation_id=conversation)["answer"] == "You said: Two."
    assert [query_of(request.body) for request in fake.requests] == ["One", "Two"]


def test_a_begin_that_commits_after_its_client_was_refused_is_ended(
    proxy: TcpProxy,
    postgres_url: str,
    fake: ScriptedBackend,
    tmp_path: Path,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its statement waits in the database when the connection breaks: a first look does not find the turn."""
    looks: list[Stopped | None] = []
    stop = TurnIntake.stop

    async def look_for(*args: Any) -> Stopped | None:
        looks.append(await stop(*args))
        return looks[-1]

    monkeypatch.setattr(TurnIntake, "stop", look_for)
    url = through(proxy, postgres_url)
    limits = Limits(registry=RegistryLimits(late_commit_seconds=3.0))
    with (
        GatewayServer(
            tmp_path, database_url=url, backend_url=fake.url, lease_seconds=60, limits=limits
        ) as server,
        installed(server).client() as client,
        ThreadPoolExecutor(1) as thread,
    ):
        chat = Chat(client, user)
        conversation = chat.blocking("One")["conversation_id"]
        with no_new_turns(postgres_url):
            answer = thread.submit(chat.post, "Two", conversation_id=conversation)
            wait_until(lambda: blocked_backends(postgres_url) == 1)
            with outage(proxy):
                refused(answer.result(BOUND), 503, "service_unavailable")
            wait_until(lambda: bool(looks))
        wait_until(lambda: len(looks) == 2)
        assert [look is None for look in looks] == [True, False]
        lost = rows_of(postgres_url, newest_turn(postgres_url, conversation)).turn
        assert (lost.seq, lost.outcome, lost.stop_reason, lost.run_id) == (2, "stopped", "not begun", None)
        assert chat.blocking("Two", conversation_id=conversation)["answer"] == "You said: Two."
    assert [query_of(request.body) for request in fake.requests] == ["One", "Two"]


def test_a_process_can_stop_while_the_database_is_away(
    fragile: GatewayServer, proxy: TcpProxy, user: str
) -> None:
    """Not even what it still wanted to take back keeps it."""
    with fragile.client() as client:
        chat = Chat(client, user)
        chat.blocking()
        proxy.cut()
        for _ in range(3):
            refused(chat.post(), 503, "service_unavailable")
    fragile.stop()


def test_a_turn_waits_for_space_on_a_full_disk(
    sqlite_template: Path, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """A running turn waits with its end, new ones are refused; with room again, all continues."""
    (tmp_path / sqlite_template.name).write_bytes(sqlite_template.read_bytes())
    url, pages = sqlite_url(tmp_path), [1]

    def limit(connection: Any, record: object = None, proxy: object = None) -> None:
        # SQLite itself then says that the disk is full; it never shrinks below what is there.
        connection.execute(f"PRAGMA max_page_count={pages[0]}").close()

    fake.script = script(said("So far"), gate, delta("." * 30_000), succeed())
    with (
        GatewayServer(tmp_path, database_url=url, backend_url=fake.url, ping_seconds=0.1) as server,
        installed(server).client() as client,
    ):
        chat = Chat(client, user)
        with chat.open() as stream:
            stream.until("So far")
            engine = server.gateway.database._connections.engines[0].sync_engine
            event.listen(engine, "checkout", limit)
            server.run(server.gateway.database.write(limit))
            gate.open()
            stream.until("...")
            pings(stream, 5)
            refused(chat.post("x" * 30_000), 503, "service_unavailable")
            assert rows_of(url, stream.task_id).turn.state == "running"
            pages[0] = 1_000_000
            server.run(server.gateway.database.write(limit))
            heard = stream.rest()
        assert heard.kinds == ["message", "message", "message_end"]
        assert rows_of(url, heard.task_id).message.answer == heard.answer
        assert chat.blocking("And now?", conversation_id=heard.conversation_id)["answer"]
    assert fake.posts == 2


def test_a_turn_waits_for_a_locked_sqlite_file(
    sqlite_template: Path, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """Another program writes: begin, finish and heartbeats wait, readers do not."""
    (tmp_path / sqlite_template.name).write_bytes(sqlite_template.read_bytes())
    url = sqlite_url(tmp_path)
    fake.script = script(said("So far"), gate, succeed())
    # However long the test holds the lock, its heartbeats are not so late that it is not ready.
    slow = {"ping_seconds": 0.1, "lease_seconds": 60.0}
    with (
        GatewayServer(tmp_path, database_url=url, backend_url=fake.url, **slow) as server,
        installed(server).client() as client,
    ):
        chat = Chat(client, user)
        with chat.open() as stream:
            stream.until("So far")
            with locked_file(tmp_path / sqlite_template.name):
                gate.open()
                pings(stream, 10)
                assert client.get("/readyz").status_code == 200
                assert chat.conversations()["data"]
            heard = stream.rest()
        assert heard.kinds == ["message", "message_end"]
        assert chat.message(heard.conversation_id)["answer"] == "So far"
        with locked_file(tmp_path / sqlite_template.name) as release:
            answers: list[httpx.Response] = []
            posting = threading.Thread(target=lambda: answers.append(chat.post()))
            posting.start()
            wait_until(lambda: server.gateway.live._beginning == 1)
            release()
            posting.join()
        assert answers[0].json()["answer"] == "So far"


@contextmanager
def locked_file(path: Path) -> Generator[Callable[[], None]]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection.rollback
    finally:
        connection.close()


def test_a_refused_begin_leaves_no_rows(
    start_gateway: StartGateway, database_url: str, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Busy, unknown conversation, another body for a key: no row, and the key is not remembered."""
    server = installed(start_gateway())
    add_app(database_url, "app-rejects", default_app().model_copy(update={"on_busy": "reject"}))
    with server.client("app-rejects") as client:
        chat = Chat(client, user)
        chat.blocking("first", headers={"Idempotency-Key": "used"})
        fake.script = script(said("So far"), gate, succeed())
        running = chat.background()
        fake.wait_until(lambda: fake.posts == 2)
        before, posts = counts(database_url), fake.posts
        busy = {"conversation_id": running["conversation_id"], "headers": {"Idempotency-Key": "mine"}}
        refused(chat.post("again", **busy), 409, "conversation_busy")
        refused(chat.post("other", headers={"Idempotency-Key": "used"}), 409, "idempotency_conflict")
        unknown = {"conversation_id": running["task_id"], "headers": {"Idempotency-Key": "mine"}}
        refused(chat.post("again", **unknown), 404, "not_found")
        refused(Chat(client, "nobody yet").post("again", **unknown), 404, "not_found")
        assert (counts(database_url), fake.posts) == (before, posts)
        gate.open()
        chat.resumed(running["task_id"])
        assert chat.blocking("again", **busy)["answer"] == "So far"


@pytest.mark.parametrize("noticed", ["by a heartbeat", "at finish"])
def test_a_process_that_lost_its_lease_writes_nothing_and_sends_the_real_end(
    start_gateway: StartGateway, database_url: str, fake: ScriptedBackend, gate: Gate, user: str, noticed: str
) -> None:
    """A turn was ended behind its owner's back: the rows count, and the text shrinks to what they hold."""
    # A heartbeat each 0.3 s, or none for the length of the test.
    server = installed(start_gateway(lease_seconds=0.9 if noticed == "by a heartbeat" else 300))
    with installed(server).client() as client:
        chat = Chat(client, user)
        first = chat.blocking("first")
        fake.script = script(
            said("So ", "far"),
            *tool_call("1", "clock", {}),
            gate,
            *tool_result("1", "clock", "9"),
            said(" more"),
            succeed(snapshot={"zombie": True}),
        )
        with chat.open(conversation_id=first["conversation_id"]) as stream:
            stream.until("far")
            task_id = newest_turn(database_url, first["conversation_id"])
            end_behind_its_back(database_url, task_id)
            stored = rows_of(database_url, task_id)
            if noticed == "at finish":
                gate.open()
            heard = stream.rest()
        assert heard.kinds[-2:] == ["message_replace", "error"]
        assert heard.kinds.count("error") == 1
        assert heard.last["code"] == "turn_interrupted"
        assert heard.ids[-2:] == [1_000_000_001, 1_000_000_002]
        assert heard.answer == ""

        after = rows_of(database_url, task_id)
        assert after.turn.model_dump() == stored.turn.model_dump()
        assert after.message.model_dump() == stored.message.model_dump()
        assert after.steps == []
        assert after.snapshot is not None
        assert stored.snapshot is not None
        assert after.snapshot.data == stored.snapshot.data
        for cursor in (1, 2, 5):
            assert chat.resumed(task_id, after=cursor).kinds[-2:] == ["message_replace", "error"]
        assert chat.events(task_id, after=1_000_000_002).status_code == 204
        gate.open()
        wait_until(lambda: not server.gateway.live.running())
        fake.script = script(said("fine"), succeed())
        assert chat.blocking(conversation_id=first["conversation_id"])["answer"] == "fine"
        assert fake.requests[-1].body["session_snapshot"] == fake.requests[-2].body["session_snapshot"]
