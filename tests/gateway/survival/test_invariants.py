"""The invariants of the design, each by its number: over HTTP, with a look into the rows where that is
the point.
"""

import json
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_gateway.apps.config import default_app
from agent_gateway.domain.events import GATEWAY_END, GATEWAY_REPLACE, LLMChunk, Result
from agent_gateway.domain.ids import ConversationId, MessageId, TaskId
from agent_gateway.domain.turns import Outcome
from agent_gateway.limits import Limits, ServerLimits
from agent_gateway.routes.streams.frames import Frames, FrameVariant
from agent_gateway.routes.streams.stored import stored_frames
from agent_gateway.store.db.tables import SnapshotRow, TurnRow
from agent_gateway.store.turns.reader import TurnView
from tests.support.chat import (
    PING,
    Chat,
    Heard,
    forged,
    refused,
)
from tests.support.concurrency import at_once
from tests.support.databases import sqlite_url
from tests.support.fakes.script import (
    ABSENT,
    Cut,
    Forget,
    Gate,
    Script,
    Step,
    ask_human,
    cancelled,
    delta,
    fail,
    refuse,
    script,
    succeed,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import postgres_proxy, through
from tests.support.gateway_server import API_KEY, BOUND, GatewayServer, StartGateway, wait_until
from tests.support.json_type import Json
from tests.support.rows import (
    Rows,
    add_app,
    end_behind_its_back,
    installed,
    locked_conversation,
    look,
    rows_of,
)

OTHER_KEY = "app-other-key"
TERMINAL = ("message_end", "error")


def database_of(server: GatewayServer) -> str:
    return server.settings.resolved_database_url()


def terminals(heard: Heard) -> list[str]:
    return [kind for kind in heard.kinds if kind in TERMINAL]


# -- I1, I2: what is committed before what ---------------------------------------------------------


def test_I1_the_message_is_committed_before_the_run_is_created(
    chat: Chat, server: GatewayServer, fake: ScriptedBackend
) -> None:
    """When POST /runs arrives at the backend, anybody can read the message and its turn."""
    seen: list[Rows] = []

    def observe(body: Json) -> Script:
        seen.append(rows_of(database_of(server), body["idempotency_key"]))
        return script(said("Hi"), succeed())

    fake.script = observe
    first = chat.blocking("One", inputs={"a": 1})
    chat.blocking("Two", conversation_id=first["conversation_id"], inputs={"b": 2})
    assert [rows.message.query for rows in seen] == ["One", "Two"]
    assert [rows.turn.state for rows in seen] == ["sending", "sending"]
    assert [rows.message.answer for rows in seen] == ["", ""]
    assert seen[0].message.id == first["message_id"]
    assert seen[1].message.inputs == {"b": 2}, "the others are the conversation's"
    assert [message["inputs"] for message in chat.messages(first["conversation_id"])] == [
        {"a": 1},
        {"a": 1, "b": 2},
    ]
    assert seen[0].turn.lease_until is not None


def test_I2_message_end_comes_after_the_commit_of_everything(
    chat: Chat, server: GatewayServer, fake: ScriptedBackend
) -> None:
    """A client that has read message_end finds answer, usage, steps and snapshot in the database."""
    steps = [*thinking("hm"), *tool_call("1", "clock", {}), *tool_result("1", "clock", "9")]
    fake.script = script(*steps, said("It is ", "nine."), succeed())
    for _ in range(5):
        with chat.open() as stream:
            while (event := stream.next())["event"] != "message_end":
                pass
            rows = rows_of(database_of(server), event["task_id"])
        assert (rows.turn.state, rows.turn.outcome) == ("ended", "completed")
        assert rows.message.answer == "It is nine."
        assert rows.message.usage == event["metadata"]["usage"]
        assert [(step.thought, step.tool, step.observation) for step in rows.steps] == [
            ("hm", "", ""),
            ("", "clock", "9"),
        ]
        assert rows.snapshot is not None
        assert rows.turn.end_position == event["event_id"]


def test_I2_no_terminal_event_before_the_commit_succeeds(
    postgres_url: str, fake: ScriptedBackend, tmp_path: Path, user: str
) -> None:
    """The finish waits for a lock: readers get pings, also those who ask for the events now."""
    gate = Gate()
    fake.script = script(said("So far"), gate, succeed())
    with (
        GatewayServer(tmp_path, database_url=postgres_url, backend_url=fake.url, ping_seconds=0.1) as server,
        installed(server).client() as client,
        Chat(client, user).open() as stream,
        Chat(client, user).follow(stream.task_id, after=1) as second,
    ):
        [event] = stream.until("So far")
        assert (second.block() or b"").startswith(b"retry: ")
        with locked_conversation(postgres_url, event["conversation_id"]):
            gate.open()
            fake.wait_until(lambda: fake.open_streams == 0)
            for waiting in (stream, second):
                assert [waiting.block() for _ in range(4)] == [PING] * 4
        assert stream.rest().kinds == ["message", "message_end"]
        assert second.rest().kinds == ["message_end"]


# -- I3: one terminal event ------------------------------------------------------------------------

ENDS: dict[str, list[Step]] = {
    "succeeds": [succeed()],
    "fails": [fail("InvokeRateLimitError")],
    "is cancelled": [cancelled()],
    "asks": [ask_human("Sure?")],
    "is lost": [Forget(), Cut()],
    "ends twice": [cancelled(), succeed(), fail()],
    "talks on": [succeed(), *said("ghost"), fail()],
}


@pytest.mark.parametrize("end", ENDS)
def test_I3_exactly_one_terminal_event_and_nothing_after_it(
    chat: Chat, server: GatewayServer, fake: ScriptedBackend, end: str
) -> None:
    """However a run ends and whoever listens: one message_end or error, the last event of all."""
    gate = Gate()
    fake.script = script(said("So far"), gate, *ENDS[end])
    with chat.open() as stream:
        stream.until("So far")
        with chat.follow(stream.task_id, after=0) as second:
            second.until("So far")
            gate.open()
            heard = [stream.rest(), second.rest()]
    heard.append(chat.resumed(stream.task_id))
    for one in heard:
        assert terminals(one) == [one.kinds[-1]]
        assert one.last == heard[0].last
        assert "ghost" not in one.answer
    outcome = rows_of(database_of(server), stream.task_id).turn.outcome
    assert (outcome == "failed") == (heard[0].last["event"] == "error")


def test_I3_a_stop_that_races_the_end_gives_one_terminal_event(
    chat: Chat, server: GatewayServer, fake: ScriptedBackend
) -> None:
    """A stop, a second stop and the run's own end at the same moment: one terminal event, as stored."""
    ends = [
        (succeed(), "completed"),
        (fail("InvokeRateLimitError"), "failed"),
        (ask_human("Sure?"), "completed"),
    ]
    for number in range(24):
        gate = Gate()
        end, own_outcome = ends[number % 3]
        fake.script = script(said("So far"), gate, end)
        with chat.open() as stream:
            stream.until("So far")
            stop = partial(chat.stop, stream.task_id)
            at_once(stop, gate.open, stop)
            heard = stream.rest()
        assert terminals(heard) == [heard.kinds[-1]]
        turn = rows_of(database_of(server), stream.task_id).turn
        assert (turn.state, turn.end_position) == ("ended", heard.last["event_id"])
        assert (turn.outcome == "failed") == (heard.last["event"] == "error")
        assert turn.outcome in (own_outcome, "stopped")


def test_I3_a_sigterm_that_races_the_end_gives_one_terminal_event(
    start_gateway: StartGateway, database_url: str, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """SIGTERM and the runs' ends at the same moment: every open stream has its one terminal event."""
    server = installed(start_gateway())
    if database_url.startswith("postgresql"):
        # What is handed over needs somebody to take it.
        installed(start_gateway())
    fake.script = script(said("So far"), gate, succeed())
    with server.client() as client, ExitStack() as stack:
        streams = [stack.enter_context(Chat(client, user).open()) for _ in range(8)]
        for stream in streams:
            stream.until("So far")
        stop = partial(server.stop, BOUND)
        *heard, _, _ = at_once(*[stream.rest for stream in streams], gate.open, stop)
    for stream, one in zip(streams, heard, strict=True):
        assert one.kinds == ["message", "message_end"]
        turn = rows_of(database_url, stream.task_id).turn
        assert (turn.state, turn.outcome) == ("ended", "completed")
    assert fake.posts == 8


# -- I4: nothing stays running ---------------------------------------------------------------------


def test_I4_a_crashed_sqlite_process_leaves_no_running_turn(
    sqlite_template: Path, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """The files as a crash leaves them: the next process takes the turn up at its start, and ends it."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    shutil.copy(sqlite_template, before)
    fake.script = script(said("So far"), gate, succeed())
    with (
        GatewayServer(before, database_url=sqlite_url(before), backend_url=fake.url) as server,
        installed(server).client() as client,
        Chat(client, user).open() as stream,
    ):
        [event] = stream.until("So far")
        _copy_of_the_moment(before / sqlite_template.name, after / sqlite_template.name)
        gate.open()
    assert rows_of(sqlite_url(after), event["task_id"]).turn.state == "running"
    with (
        GatewayServer(after, database_url=sqlite_url(after), backend_url=fake.url) as server,
        installed(server).client() as client,
    ):
        chat = Chat(client, user)
        posts = fake.posts
        assert chat.resumed(event["task_id"], after=1).kinds == ["message_end"]
        turn = rows_of(sqlite_url(after), event["task_id"]).turn
        assert (turn.state, turn.outcome, turn.epoch) == ("ended", "completed", 2)
        assert chat.message(event["conversation_id"])["answer"] == "So far"
        assert fake.posts == posts
        assert chat.blocking(conversation_id=event["conversation_id"])["answer"] == "So far"


def test_I4_a_crash_before_the_run_is_known_fails_the_turn(
    sqlite_template: Path, fake: ScriptedBackend, tmp_path: Path, user: str
) -> None:
    """A run may exist that nobody knows: the turn ends as interrupted, and no second run is made (R4)."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    shutil.copy(sqlite_template, before)
    fake.queue(Script(create="hang"))
    with (
        GatewayServer(before, database_url=sqlite_url(before), backend_url=fake.url) as server,
        installed(server).client() as client,
    ):
        turn = Chat(client, user).background()
        fake.wait_until(lambda: fake.posts == 1)
        _copy_of_the_moment(before / sqlite_template.name, after / sqlite_template.name)
        server.stop()
    assert rows_of(sqlite_url(after), turn["task_id"]).turn.state == "sending"
    with (
        GatewayServer(after, database_url=sqlite_url(after), backend_url=fake.url) as server,
        installed(server).client() as client,
    ):
        chat = Chat(client, user)
        heard = chat.resumed(turn["task_id"], after=1)
        assert (heard.kinds, heard.ids) == (["message_replace", "error"], [GATEWAY_REPLACE, GATEWAY_END])
        assert heard.last["code"] == "turn_interrupted"
        assert chat.message(turn["conversation_id"])["status"] == "error"
        assert fake.posts == 1
        assert chat.blocking(conversation_id=turn["conversation_id"])["answer"] == "You said: Hello."


def _copy_of_the_moment(source: Path, target: Path) -> None:
    with sqlite3.connect(source) as there, sqlite3.connect(target) as here:
        there.backup(here)
    there.close()
    here.close()


def test_I4_a_turn_whose_process_lost_the_database_continues_elsewhere(
    postgres_url: str, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """Once the lease has run out, another process adopts it; the first one comes back as a reader."""
    fake.script = script(said("So far"), gate, succeed())
    shared = {"backend_url": fake.url, "lease_seconds": 1.0, "ping_seconds": 0.1}
    with (
        postgres_proxy(postgres_url) as proxy,
        GatewayServer(tmp_path / "1", database_url=through(proxy, postgres_url), **shared) as gone,
        GatewayServer(tmp_path / "2", database_url=postgres_url, **shared) as other,
        installed(gone).client() as client,
        installed(other).client() as other_client,
        Chat(client, user).open("One") as one,
        Chat(client, user).open("Two") as two,
    ):
        [first], [second] = one.until("So far"), two.until("So far")
        chat = Chat(other_client, user)
        proxy.cut()
        with chat.follow(second["task_id"], after=1) as stream:
            wait_until(lambda: len(other.gateway.live.running()) == 2)
            gate.open()
            assert stream.rest().kinds == ["message_end"]
        assert chat.blocking(conversation_id=first["conversation_id"])["answer"] == "So far"
        for event in (first, second):
            turn = rows_of(postgres_url, event["task_id"]).turn
            assert (turn.state, turn.outcome, turn.epoch, turn.adoptions) == ("ended", "completed", 2, 1)
        assert fake.posts == 3
        proxy.open()
        # The process that was away comes back to turns that are no longer its own (I9).
        for stream in (one, two):
            assert stream.rest().kinds == ["message", "message_end"]
        wait_until(lambda: not gone.gateway.live.running())


# -- I5: connections -------------------------------------------------------------------------------


def test_I5_streams_hold_no_database_connection(
    start_gateway: StartGateway, database_url: str, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """60 open streams on a pool of 2: no connection is out, and requests and new turns are answered."""
    server = installed(start_gateway(database_pool_size=2))
    fake.script = script(said("So far"), gate, succeed())
    limits = httpx.Limits(max_connections=None)
    with server.client(limits=limits) as client, ExitStack() as stack:
        chats = [Chat(client, f"{user}-{number}") for number in range(60)]
        streams = [stack.enter_context(chat.open()) for chat in chats]
        for stream in streams:
            stream.until("So far")
        assert len(server.gateway.live.running()) == 60
        pools = _pools(server)
        wait_until(lambda: not any(pool.checkedout() for pool in pools))
        if database_url.startswith("postgresql"):
            # A duty is in one now and then, for a moment; a stream would be until its end.
            wait_until(lambda: _in_transaction(database_url) == 0)
        assert client.get("/readyz").status_code == 200
        assert len(chats[0].conversations()["data"]) == 1
        fake.queue(script(said("quick"), succeed()))
        assert Chat(client, user).blocking()["answer"] == "quick"
        wait_until(lambda: not any(pool.checkedout() for pool in pools))
        gate.open()
        assert {stream.rest().kinds[-1] for stream in streams} == {"message_end"}


def _pools(server: GatewayServer) -> list[Any]:
    database = server.gateway.database
    return [engine.pool for engine in database._connections.engines]


def _in_transaction(url: str) -> int:
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'agent-gateway' AND state <> 'idle'"
    )

    async def work(session: AsyncSession) -> int:
        return int((await session.execute(statement)).scalar_one())

    return look(url, work)


# -- I6: disconnect, stop, drain -------------------------------------------------------------------


def test_I6_disconnect_stop_and_drain_end_differently_and_are_stored(
    start_gateway: StartGateway, database_url: str, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """A disconnect changes nothing; a stop stores the partial answer; a drain leaves the turn to others."""
    server = installed(start_gateway())
    fake.script = script(said("So far"), gate, delta(", so good"), succeed())
    with server.client() as client:
        chat = Chat(client, user)
        with chat.open() as stream:
            stream.until("So far")
            gone = stream.task_id
        gate.open()
        assert chat.resumed(gone).answer == "So far, so good"

        last = Gate()
        fake.queue(
            script(said("So far"), Gate(), succeed()), script(said("So far"), last, delta("!"), succeed())
        )
        with chat.open() as stream:
            stream.until("So far")
            stopped = stream.task_id
            chat.stop(stopped)
            assert terminals(stream.rest()) == ["message_end"]
        with chat.open() as stream:
            stream.until("So far")
            drained = stream.task_id
            server.stop()
            assert terminals(stream.rest()) == []

    found = [rows_of(database_url, task_id) for task_id in (gone, stopped, drained)]
    assert [(rows.turn.state, rows.turn.outcome, rows.turn.stop_reason) for rows in found] == [
        ("ended", "completed", None),
        ("ended", "stopped", "user"),
        ("running", None, None),
    ]
    assert [rows.message.answer for rows in found] == ["So far, so good", "So far", ""]
    assert found[2].turn.owner is None
    # A turn that is left to others is not cancelled; the process that starts next continues it.
    assert {cancel.run_id for cancel in fake.cancels} == {found[1].turn.run_id}
    with installed(start_gateway()).client() as client:
        last.open()
        assert Chat(client, user).resumed(drained, after=1).answer == "!"
    assert rows_of(database_url, drained).turn.outcome == "completed"


# -- I7: one active turn, snapshots forward only ---------------------------------------------------


def test_I7_one_active_turn_per_conversation(
    server: GatewayServer, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Of many posts at once one gets the turn, the others are told whose it is; the database agrees."""
    add_app(database_of(server), user, default_app().model_copy(update={"on_busy": "reject"}))
    with server.client(user) as client:
        _one_active_turn(Chat(client, user), server, fake, gate)


def _one_active_turn(chat: Chat, server: GatewayServer, fake: ScriptedBackend, gate: Gate) -> None:
    conversation = chat.blocking()["conversation_id"]
    fake.script = script(said("So far"), gate, succeed())
    posts = fake.posts

    def post() -> httpx.Response:
        return chat.post(conversation_id=conversation, response_mode="background")

    responses = at_once(*[post] * 6)
    [won] = [response.json() for response in responses if response.status_code == 202]
    lost = [response for response in responses if response.status_code != 202]
    for response in lost:
        body = refused(response, 409, "conversation_busy")
        assert body["task_id"] == won["task_id"]
        assert body["events_url"].startswith(f"/chat-messages/{won['task_id']}/events?ticket=")
    assert len(lost) == 5

    async def second(session: AsyncSession) -> None:
        row = (await session.scalars(select(TurnRow).where(col(TurnRow.id) == won["task_id"]))).one()
        await session.execute(insert(TurnRow).values({**row.model_dump(), "id": won["message_id"]}))

    with pytest.raises(IntegrityError):
        look(database_of(server), second)
    gate.open()
    assert chat.resumed(won["task_id"]).last["event"] == "message_end"
    assert fake.posts == posts + 1


def test_I7_the_snapshot_only_moves_forward(
    chat: Chat, server: GatewayServer, fake: ScriptedBackend, gate: Gate
) -> None:
    """A turn that fails leaves the old one; one that finishes after a later turn does not bring its own."""
    url = database_of(server)

    def snapshot(task_id: str) -> SnapshotRow:
        found = rows_of(url, task_id).snapshot
        assert found is not None
        return found

    first = chat.blocking()
    conversation = first["conversation_id"]
    assert snapshot(first["task_id"]).seq == 1
    fake.queue(script(said("So far"), fail()))
    refused(chat.post(conversation_id=conversation), 500, "internal_server_error")
    assert snapshot(first["task_id"]).seq == 1

    fake.queue(script(said("late"), gate, succeed(snapshot={"late": True})))
    with chat.open(conversation_id=conversation) as stream:
        stream.until("late")
        end_behind_its_back(url, stream.task_id)
        chat.blocking("later", conversation_id=conversation)
        newest = snapshot(first["task_id"])
        assert newest.seq == 4
        gate.open()
        assert stream.rest().last["event"] == "error"
    after = snapshot(first["task_id"])
    assert (after.seq, after.data) == (4, newest.data)
    chat.blocking(conversation_id=conversation)
    assert fake.requests[-1].body["session_snapshot"] == json.loads(newest.data)


# -- I8: positions ---------------------------------------------------------------------------------

STORY: list[Step] = [
    *thinking("Let me ", "think about this, for quite a while, ", "and then some more, ", "at length."),
    *said("First ", "I ", "look:"),
    *tool_call("1", "clock", {"zone": "UTC"}),
    *tool_call("2", "weather", {}),
    *tool_result("2", "weather", "rain \u2028 ☔"),
    *tool_result("1", "clock", {"hour": 9}),
    *said("It is nine ", "and it rains ☔\n\n", "data: no", "!"),
]
MODES = ("chat", "agent-chat", "agent")


@pytest.mark.parametrize("mode", MODES)
def test_I8_any_cursor_gets_exactly_the_rest(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, user: str, mode: str
) -> None:
    """During the turn, after it, and from a process that only knows the rows: the same bytes."""
    server = installed(start_gateway())
    fake.script = script(*STORY, gate, delta(" The end."), succeed())
    with installed(server).client() as client, ExitStack() as stack:
        chat = Chat(client, user)
        stream = stack.enter_context(chat.open(params={"mode": mode, "ids": 1}))
        stream.until("!")
        task_id = stream.task_id
        during = {
            cursor: stack.enter_context(chat.follow(task_id, after=cursor, mode=mode)) for cursor in range(16)
        }
        gate.open()
        whole = stream.rest()
        assert whole.ids == sorted(set(whole.ids))
        assert whole.ids[-1] >= 16
        for cursor, reader in during.items():
            assert reader.rest().frames == whole.after(cursor)
        for cursor in range(whole.ids[-1]):
            assert chat.resumed(task_id, after=cursor, mode=mode).frames == whole.after(cursor)
            assert chat.resumed(task_id, last_event_id=cursor, mode=mode).frames == whole.after(cursor)
        assert chat.events(task_id, after=whole.ids[-1]).status_code == 204
    server.stop()
    with installed(start_gateway()).client() as client:
        chat = Chat(client, user)
        for cursor in range(whole.ids[-1]):
            stored = chat.resumed(task_id, after=cursor, mode=mode)
            assert stored.frames == _without_older_versions(whole, cursor)
        assert chat.events(task_id, after=whole.ids[-1]).status_code == 204


def _without_older_versions(whole: Heard, cursor: int) -> list[bytes]:
    """The rest of a stream as the rows have it: of a thought that was told again only the last version."""
    events = dict(zip(whole.ids, whole.events, strict=True))
    newest = {
        event["id"]: position for position, event in events.items() if event["event"] == "agent_thought"
    }
    return [
        frame
        for frame, (position, event) in zip(whole.frames, events.items(), strict=True)
        if position > cursor and (event["event"] != "agent_thought" or newest[event["id"]] == position)
    ]


def test_I8_another_process_serves_the_turn_with_the_same_bytes(
    postgres_url: str, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """Two processes on one database: a reader at either gets the same frames, live or after the turn."""
    shared = {"backend_url": fake.url, "database_url": postgres_url, "ping_seconds": 0.1}
    fake.script = script(*STORY, gate, succeed())
    with (
        GatewayServer(tmp_path / "1", **shared) as one,
        GatewayServer(tmp_path / "2", **shared) as two,
        installed(one).client() as client,
        installed(two).client() as other_client,
        Chat(client, user).open(params={"ids": 1}) as stream,
    ):
        stream.until("!")
        chat = Chat(other_client, user)
        with chat.follow(stream.task_id, after=2) as follower:
            assert (follower.block() or b"").startswith(b"retry: ")
            assert follower.block() == PING
            gate.open()
            whole = stream.rest()
            assert follower.rest().frames == whole.after(2)
        for cursor in range(whole.ids[-1]):
            assert chat.resumed(stream.task_id, after=cursor).frames == whole.after(cursor)
        # A key of the first process's makes no second turn at the other one.
        assert chat.events(stream.task_id, after=whole.ids[-1]).status_code == 204


def test_I8_an_end_made_by_the_gateway_has_its_own_position(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    """Readers that saw more than was stored are told so by message_replace; the others just get the end."""
    server = installed(start_gateway())
    fake.script = script(said("So ", "far"), Forget(), Cut())
    with installed(server).client() as client:
        whole = Chat(client, user).streaming(params={"ids": 1})
        assert whole.ids == [1, 2, GATEWAY_END]
    server.stop()
    with installed(start_gateway()).client() as client:
        chat = Chat(client, user)
        for cursor in (0, 1, 2, GATEWAY_REPLACE):
            assert chat.resumed(whole.task_id, after=cursor).frames == whole.after(cursor)
        for cursor in (3, 1000):
            beyond = chat.resumed(whole.task_id, after=cursor)
            assert beyond.ids == [GATEWAY_REPLACE, GATEWAY_END]
            assert beyond.answer == "So far"
        assert chat.events(whole.task_id, after=GATEWAY_END).status_code == 204


def test_I8_positions_depend_on_the_run_alone(chat: Chat, fake: ScriptedBackend) -> None:
    """The same run events, cut here and there, make the same turn events with the same numbers."""
    told: list[list[Any]] = []
    for cuts in ((), (3,), (4, 5, 11)):
        steps: list[Step] = []
        for number, step in enumerate(STORY):
            steps += [step, Cut(clean=number % 2 == 0)] if number in cuts else [step]
        fake.queue(script(*steps, succeed()))
        heard = chat.streaming(params={"mode": "agent-chat"})
        told.append(
            [
                [event[key] for key in ("event_id", "event", "answer", "thought", "tool") if key in event]
                for event in heard.events
            ]
        )
    assert told[0] == told[1] == told[2]


# -- I9: fencing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["succeeds", "fails", "is lost"])
def test_I9_a_write_under_an_older_epoch_changes_nothing(
    chat: Chat, server: GatewayServer, fake: ScriptedBackend, gate: Gate, end: str
) -> None:
    """The turn's owner lost it and does not know: whatever its run says then, the rows stay."""
    fake.script = script(said("So far"), gate, *ENDS[end])
    with chat.open() as stream:
        stream.until("So far")
        end_behind_its_back(database_of(server), stream.task_id)
        before = rows_of(database_of(server), stream.task_id)
        gate.open()
        heard = stream.rest()
    after = rows_of(database_of(server), stream.task_id)
    assert after.turn.model_dump() == before.turn.model_dump()
    assert after.message.model_dump() == before.message.model_dump()
    assert (after.steps, after.snapshot) == ([], None)
    assert heard.kinds == ["message", "message_replace", "error"]
    assert heard.last["code"] == "turn_interrupted"


# -- I10: one run ----------------------------------------------------------------------------------


def test_I10_a_run_is_requested_again_only_when_nothing_can_have_happened(
    start_gateway: StartGateway, fake: ScriptedBackend, user: str
) -> None:
    """After a 503 or a refused connection there is another POST; after a lost answer there is none."""
    server = installed(start_gateway(backend_reconnect_seconds=BOUND))
    with server.client() as client:
        chat = Chat(client, user)
        fake.queue(refuse(503), refuse(503))
        runs = len(fake.runs)
        assert chat.blocking()["answer"] == "You said: Hello."
        assert (fake.posts, len(fake.runs)) == (3, runs + 1)

        fake.stop()
        with ThreadPoolExecutor(1) as executor:
            posting = executor.submit(chat.blocking)
            wait_until(server.gateway.live.running)
            fake.start()
            assert posting.result()["answer"] == "You said: Hello."
        assert (fake.posts, len(fake.runs)) == (4, runs + 2)

        fake.queue(Script(create="cut"))
        refused(chat.post(), 503, "service_unavailable")
        assert (fake.posts, len(fake.runs)) == (5, runs + 3)


def test_I10_concurrent_posts_with_one_key_make_one_turn(chat: Chat, fake: ScriptedBackend) -> None:
    """Posts with one Idempotency-Key, all at once, in every mode: one run, one turn, the same answer."""

    def post(response_mode: str) -> Callable[[], httpx.Response]:
        return lambda: chat.post("Once", response_mode=response_mode, headers={"Idempotency-Key": "the same"})

    responses = at_once(*[post(mode) for mode in ("streaming", "blocking", "background") * 3])
    assert {response.status_code for response in responses} == {200, 202}
    tasks = {
        response.headers.get("X-Task-Id") or response.json()["task_id"]
        for response in [*responses, post("streaming")(), post("blocking")()]
    }
    assert len(tasks) == 1
    assert fake.posts == 1
    streams = [
        Heard(response.content, response.headers)
        for response in responses
        if response.headers["content-type"].startswith("text/event-stream")
    ]
    assert len(streams) == 3
    assert {stream.answer for stream in streams} == {"You said: Once."}
    refused(chat.post("Twice", headers={"Idempotency-Key": "the same"}), 409, "idempotency_conflict")
    assert fake.posts == 1


def test_I10_two_processes_make_one_turn_for_one_key(
    postgres_url: str, fake: ScriptedBackend, gate: Gate, tmp_path: Path, user: str
) -> None:
    """A client that repeats its post at another replica gets the turn of the first, and its answer."""
    shared = {"backend_url": fake.url, "database_url": postgres_url, "ping_seconds": 0.1}
    fake.script = script(said("Once"), gate, succeed())
    headers = {"Idempotency-Key": "the same"}
    with (
        GatewayServer(tmp_path / "1", **shared) as one,
        GatewayServer(tmp_path / "2", **shared) as two,
        installed(one).client() as client,
        installed(two).client() as other_client,
    ):
        chats = [Chat(client, user), Chat(other_client, user)]
        begun = at_once(*[lambda chat=chat: chat.background(headers=headers) for chat in chats * 3])
        assert len({reply["task_id"] for reply in begun}) == 1
        gate.open()
        answers = at_once(*[lambda chat=chat: chat.blocking(headers=headers) for chat in chats])
        assert {answer["answer"] for answer in answers} == {"Once"}
    assert fake.posts == 1


# -- I11: nothing crosses tenants ------------------------------------------------------------------


@contextmanager
def strangers(server: GatewayServer, user: str) -> Generator[list[Chat]]:
    """Another user of the same app, and the same user of another app."""
    add_app(database_of(server), key := f"{OTHER_KEY}-{user}")
    with server.client() as same, server.client(key) as other:
        yield [Chat(same, f"{user}-other"), Chat(other, user)]


def answer_to(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All a client can see of a response, but the time."""
    headers = {
        name: value for name, value in response.headers.items() if name not in {"date", "x-request-id"}
    }
    return response.status_code, response.content, headers


def test_I11_resources_of_others_answer_not_found(
    chat: Chat, server: GatewayServer, fake: ScriptedBackend, gate: Gate
) -> None:
    """Every route that takes an id: byte-equal 404s for another app's key and for another user."""
    ended = chat.blocking()
    fake.script = script(said("So far"), gate, succeed())
    running = chat.background()
    unknown = "0197f000-0000-7000-8000-000000000000"
    with strangers(server, chat.user) as others:
        fake.wait_until(lambda: fake.posts == 2)
        for other in others:
            fake.queue(script(said("own"), succeed()))
            own = other.blocking()["conversation_id"]

            def by_route(
                task: str, conversation: str, message: str, other: Chat = other, own: str = own
            ) -> Any:
                client, user = other.client, other.user
                return [
                    client.get(f"/chat-messages/{task}/events", params={"user": user}),
                    client.get(f"/v1/chat-messages/{task}/events", params={"user": user, "after": 1}),
                    client.get("/messages", params={"user": user, "conversation_id": conversation}),
                    client.get(
                        "/messages", params={"user": user, "conversation_id": own, "first_id": message}
                    ),
                    client.get("/conversations", params={"user": user, "last_id": conversation}),
                    *(
                        other.post(conversation_id=conversation, response_mode=mode)
                        for mode in ("streaming", "blocking", "background")
                    ),
                ]

            expected = [answer_to(response) for response in by_route(unknown, unknown, unknown)]
            assert {status for status, _, _ in expected} == {404}
            for turn in (ended, running):
                found = by_route(turn["task_id"], turn["conversation_id"], turn["message_id"])
                assert [answer_to(response) for response in found] == expected
            assert other.stop(running["task_id"]) == other.stop(unknown) == {"result": "success"}
            assert [item["id"] for item in other.conversations()["data"]] == [own]
    assert fake.cancels == []
    assert rows_of(database_of(server), running["task_id"]).turn.stop_at is None
    gate.open()
    assert chat.resumed(running["task_id"]).last["event"] == "message_end"


def test_I11_a_ticket_opens_only_its_turn(chat: Chat, server: GatewayServer, fake: ScriptedBackend) -> None:
    """A ticket of one turn on the path of another is a 404, a forged one a 401."""
    mine, yours = chat.background(), chat.background()
    chat.resumed(mine["task_id"])
    ticket = httpx.URL(mine["events_url"]).params["ticket"]
    with httpx.Client(base_url=server.url, trust_env=False) as nobody:
        assert nobody.get(mine["events_url"]).status_code == 200
        path = f"/chat-messages/{yours['task_id']}/events"
        elsewhere = nobody.get(path, params={"ticket": ticket})
        refused(elsewhere, 404, "not_found")
        unknown = nobody.get(f"/chat-messages/{mine['message_id']}/events", params={"ticket": ticket})
        assert answer_to(elsewhere) == answer_to(unknown)
        refused(nobody.get(path, params={"ticket": forged(ticket)}), 401, "unauthorized")
        refused(nobody.get(path), 401, "unauthorized")
        refused(
            nobody.get(f"/messages?conversation_id={mine['conversation_id']}&ticket={ticket}"),
            401,
            "unauthorized",
        )


def test_I11_idempotency_keys_of_others_have_no_effect(
    chat: Chat, server: GatewayServer, fake: ScriptedBackend
) -> None:
    """The same key of another user or app makes a turn of its own, whatever its body."""
    headers = {"Idempotency-Key": "mine"}
    tasks = {chat.blocking("One", headers=headers)["task_id"]}
    with strangers(server, chat.user) as others:
        for other in others:
            tasks.add(other.blocking("Two", headers=headers)["task_id"])
            refused(other.post("One", headers=headers), 409, "idempotency_conflict")
    assert len(tasks) == 3


# -- I12: slow readers -----------------------------------------------------------------------------

BIG = 8 * 1024 * 1024
PIECE = "x" * 32_768


def impatient(fake: ScriptedBackend, folder: Path, seconds: float) -> GatewayServer:
    """Its readers are cut when they took nothing for so long."""
    limits = Limits(server=ServerLimits(stall_seconds=seconds, look_seconds=0.2))
    return GatewayServer(folder, limits=limits, backend_url=fake.url, ping_seconds=0.2)


def follow_request(task_id: str, user: str, **params: str) -> httpx.Request:
    params = {"user": user, **params}
    return httpx.Request("GET", f"http://gateway/chat-messages/{task_id}/events", params=params)


def stream_request(user: str) -> httpx.Request:
    body: Json = {"query": "Hello", "user": user, "inputs": {}, "response_mode": "streaming"}
    return httpx.Request("POST", "http://gateway/chat-messages", json=body)


@contextmanager
def dead_reader(server: GatewayServer, request: httpx.Request) -> Generator[socket.socket]:
    """Asks for the events of a turn, and never reads them."""
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", httpx.URL(server.url).port))
        headers = {**request.headers, "Authorization": f"Bearer {API_KEY}"}
        lines = [f"{request.method} {request.url.raw_path.decode()} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        link.sendall("\r\n".join([*lines, "", ""]).encode() + request.content)
        yield link


def unsent(server: GatewayServer) -> int:
    """The most bytes that wait in the server for one of its connections."""
    links: list[Any] = list(server.server.server_state.connections)
    return max((link.transport.get_write_buffer_size() for link in links), default=0)


@contextmanager
def watched(measure: Callable[[], int]) -> Generator[list[int]]:
    """What was measured while the block lasted."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            seen.append(measure())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def test_I12_a_dead_reader_costs_little_and_slows_nobody(
    fake: ScriptedBackend, tmp_path: Path, user: str
) -> None:
    """8 MB flow past readers that read nothing: they are owed less than a megabyte, then they are cut."""
    gate = Gate()
    pieces = [delta(PIECE) for _ in range(BIG // len(PIECE))]
    fake.queue(script(said("Begin"), gate, *pieces, succeed(output="", snapshot=ABSENT)))
    with impatient(fake, tmp_path, 4.0) as gateway, gateway.client() as client, ExitStack() as stack:
        connections = gateway.server.server_state.connections
        task_id = Chat(client, user).background()["task_id"]
        healthy = stack.enter_context(Chat(client, user).follow(task_id))
        healthy.until("Begin")
        for _ in range(3):
            stack.enter_context(dead_reader(gateway, follow_request(task_id, user)))
        wait_until(lambda: len(connections) == 4)
        with watched(lambda: unsent(gateway)) as owed:
            gate.open()
            heard = healthy.rest()
            assert Chat(client, f"{user}-other").blocking()["answer"] == "You said: Hello."
            wait_until(lambda: len(connections) == 1)
        assert 65536 < max(owed) < 1024 * 1024
        assert len(heard.raw) > BIG
        assert heard.kinds[-1] == "message_end"
        assert heard.answer == "Begin" + "".join([PIECE] * len(pieces))


@pytest.mark.parametrize("mode", ["chat", "agent"])
def test_I12_a_dead_reader_of_an_ended_turn_costs_little(
    fake: ScriptedBackend, tmp_path: Path, user: str, mode: str
) -> None:
    """The next process has 8 MB for it, in mode `agent` twice, and hands over less than a megabyte."""
    pieces = [delta(PIECE) for _ in range(BIG // len(PIECE))]
    fake.queue(script(*pieces, succeed(output="", snapshot=ABSENT)))
    with GatewayServer(tmp_path, backend_url=fake.url) as server, server.client() as client:
        task_id = Chat(client, user).streaming().task_id
    with GatewayServer(tmp_path, backend_url=fake.url) as server, server.client() as client:
        with dead_reader(server, follow_request(task_id, user, mode=mode)):
            wait_until(lambda: unsent(server) > 65536)
            with watched(lambda: unsent(server)) as owed:
                heard = Chat(client, user).resumed(task_id, mode=mode)
        assert max(owed) < 1024 * 1024
        assert heard.answer == "".join([PIECE] * len(pieces)) * (2 if mode == "agent" else 1)
        # At the very end of the answer comes what is one long event.
        last = follow_request(task_id, user, mode=mode, after=str(heard.ids[-1] - 2))
        with dead_reader(server, last), watched(lambda: unsent(server)) as owed:
            assert Chat(client, user).resumed(task_id, mode=mode).frames == heard.frames
        assert max(owed) < 1024 * 1024


def test_I12_a_stored_turn_is_sent_in_pieces() -> None:
    """Whole frames, and never all of them in memory."""
    chunks = tuple(LLMChunk(number + 1, PIECE) for number in range(BIG // len(PIECE)))
    result = Result(Outcome.COMPLETED, chunks, (), len(chunks) + 2)
    view = TurnView(TaskId("t"), ConversationId("c"), MessageId("m"), 0, "chat", ended=True)
    pieces = list(stored_frames(Frames(str).encoder(view), result, FrameVariant("chat", ids=True), 0))
    assert len(pieces) > BIG / 2**19
    assert all(len(piece) < 2**19 and piece.endswith(b"\n\n") for piece in pieces)
    assert b"".join(pieces).count(b"\nid: ") == len(chunks) + 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_I12_a_dead_reader_does_not_delay_shutdown(
    fake: ScriptedBackend, tmp_path: Path, user: str, method: str
) -> None:
    """SIGTERM while somebody does not read: the server is gone in a moment all the same."""
    pieces = [delta(PIECE) for _ in range(BIG // len(PIECE))]
    fake.queue(script(*pieces, succeed(output="", snapshot=ABSENT)))
    with impatient(fake, tmp_path, 2.0) as gateway, gateway.client() as client:
        if method == "GET":
            request = follow_request(Chat(client, user).background()["task_id"], user)
        else:
            request = stream_request(user)
        with dead_reader(gateway, request):
            wait_until(lambda: unsent(gateway) > 65536)
            wait_until(lambda: not gateway.gateway.live.running())
            gateway.stop()
