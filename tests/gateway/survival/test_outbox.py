"""The outbox: runs of turns that the gateway ended are cancelled for certain, and what never works ends."""

import logging
from dataclasses import replace

import pytest

from agent_gateway.limits import DEFAULTS, Limits, TurnLimits
from agent_gateway.store.db.functions import now_plus
from tests.support.chat import Chat, Heard, refused
from tests.support.fakes.script import Gate, Script, echo, fail, script, succeed, text
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet, die, fall_silent
from tests.support.gateway_server import GatewayServer, StartGateway, wait_until
from tests.support.json_type import Json
from tests.support.outbox import (
    all_done,
    change,
    conversation_row,
    due_now,
    outbox_entries,
    snapshot_row,
)
from tests.support.rows import end_behind_its_back, newest_turn, rows_of


@pytest.fixture
def url(server: GatewayServer) -> str:
    return server.settings.resolved_database_url()


def timed_out(server: GatewayServer, chat: Chat) -> Heard:
    """A turn whose run says "So far", and then nothing for as long as it may."""
    with chat.open() as stream:
        stream.until("So far")
        fall_silent(server, stream.task_id)
        return stream.rest()


def test_a_completed_turn_leaves_no_outbox_entry(
    chat: Chat, fake: ScriptedBackend, gate: Gate, url: str
) -> None:
    answered = chat.blocking()
    assert outbox_entries(url) == []
    fake.queue(script(text("Half "), gate, succeed()), script(fail()))
    with chat.open(conversation_id=answered["conversation_id"]) as stream:
        stream.until("Half ")
        chat.stop(stream.task_id)
        stream.rest()
    assert outbox_entries(url) == []
    chat.post("Fails")
    assert outbox_entries(url) == []


def test_a_failed_cancel_is_retried_until_it_works(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    """The turn timed out, and the backend answers 500 to the cancel of its run."""
    server = start_gateway()
    fake.queue(script(text("So far"), gate, succeed(), cancel=500))
    with server.client() as client:
        heard = timed_out(server, Chat(client, user))
    assert heard.last["code"] == "turn_timeout"
    fake.wait_until(lambda: len(fake.cancels) >= 3, seconds=15)
    [owed] = outbox_entries(database_url)
    run = fake.runs[str(rows_of(database_url, heard.task_id).turn.run_id)]
    assert (owed.kind, owed.turn_id, owed.run_id) == ("cancel_run", heard.task_id, run.id)
    run.script = replace(run.script, cancel=200)
    all_done(database_url)
    assert run.status == "cancelled"
    assert {cancel.run_id for cancel in fake.cancels} == {run.id}


@pytest.mark.parametrize("status", [404, 409])
def test_a_run_that_is_over_or_unknown_needs_no_cancel(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str, status: int
) -> None:
    server = start_gateway()
    fake.queue(script(text("So far"), gate, succeed(), cancel=status))
    with server.client() as client:
        timed_out(server, Chat(client, user))
    all_done(database_url)
    assert len(fake.cancels) == 1


def test_another_process_cancels_the_run_of_a_process_that_died(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    # The first try is still under way when its process dies.
    fleet.limits = Limits(turn=TurnLimits(cancel_seconds=60.0))
    one, two = fleet.start(), fleet.start()
    fake.queue(script(text("So far"), gate, succeed(), cancel="hang"))
    heard = timed_out(one, fleet.chat(one, user))
    fake.wait_until(lambda: len(fake.cancels) == 1)
    # Nobody else tries before the first process has died, however long that takes.
    change(fleet.database_url, next_try_at=now_plus(3600))
    die(one)
    [owed] = outbox_entries(fleet.database_url)
    assert (owed.kind, owed.tries) == ("cancel_run", 0)
    run = fake.runs[str(fleet.rows(heard.task_id).turn.run_id)]
    run.script = replace(run.script, cancel=200)
    due_now(fleet.database_url)
    all_done(fleet.database_url)
    assert run.status == "cancelled"
    assert two.gateway.installed.is_set()


def test_a_run_without_an_owner_is_cancelled(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    """The turn was lost while its run was being made, and the first cancel of that run fails."""

    def lost(body: Json) -> Script:
        end_behind_its_back(database_url, newest_turn(database_url, body["metadata"]["conversation_id"]))
        return script(text("Nobody's"), gate, succeed(), cancel=500)

    server = start_gateway()
    fake.queue(lost)
    with server.client() as client:
        refused(Chat(client, user).post(), 500, "turn_interrupted")
    fake.wait_until(lambda: len(fake.cancels) >= 2)
    [owed] = outbox_entries(database_url)
    assert rows_of(database_url, owed.turn_id).turn.run_id is None
    run = fake.runs[str(owed.run_id)]
    run.script = replace(run.script, cancel=200)
    all_done(database_url)
    assert run.status == "cancelled"


def test_an_entry_that_never_succeeds_is_dropped_with_one_log_line(
    start_gateway: StartGateway,
    fake: ScriptedBackend,
    database_url: str,
    user: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = start_gateway()
    with server.client() as client:
        chat = Chat(client, user)
        conversation_id = chat.blocking("A secret word")["conversation_id"]
        fake.script = script(fail(error="sk-secret"))
        chat.client.request("DELETE", f"/conversations/{conversation_id}", json={"user": user})
        wait_until(lambda: outbox_entries(database_url)[0].tries >= 2)
        change(database_url, tries=4, next_try_at=now_plus(-1))
        all_done(database_url)
    [line] = [record for record in caplog.records if "given up" in record.getMessage()]
    assert line.levelno == logging.ERROR
    assert "close_session" in line.getMessage()
    assert "RunNotSucceeded" in line.getMessage()
    assert "secret" not in caplog.text
    assert snapshot_row(database_url, conversation_id) is None
    assert conversation_row(database_url, conversation_id).deleted_at is not None


def test_an_old_entry_is_dropped_although_the_backend_is_away(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    server = start_gateway()
    fake.queue(script(text("So far"), gate, succeed(), cancel=503))
    with server.client() as client:
        timed_out(server, Chat(client, user))
    fake.wait_until(lambda: len(fake.cancels) >= 2)
    change(database_url, created_at=now_plus(-7 * 3600), next_try_at=now_plus(-1))
    all_done(database_url)


def test_entries_beyond_the_concurrency_limit_run_when_there_is_room(
    start_gateway: StartGateway, fake: ScriptedBackend, gate: Gate, database_url: str, user: str
) -> None:
    """More than are done at once: the rest follow as soon as there is room, and turns continue meanwhile."""
    server = start_gateway()
    with server.client() as client:
        chat = Chat(client, user)
        most = DEFAULTS.outbox.max_entries
        ids = [chat.blocking(f"Turn {number}")["conversation_id"] for number in range(most + 3)]
        fake.script = script(gate, succeed(output=None))
        for conversation_id in ids:
            chat.client.request("DELETE", f"/conversations/{conversation_id}", json={"user": user})
        fake.wait_until(lambda: fake.posts == len(ids) + most)
        fake.queue(echo)
        assert chat.blocking("Meanwhile")["answer"] == "You said: Meanwhile."
        assert fake.posts == len(ids) + most + 1
    gate.open()
    all_done(database_url)
    assert [snapshot_row(database_url, conversation_id) for conversation_id in ids] == [None] * len(ids)
