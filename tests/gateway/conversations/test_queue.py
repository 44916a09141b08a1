"""Two messages at once in one conversation, by the app's policy: wait, be refused, or interrupt."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from agent_gateway.apps.policy import MAX_QUEUED
from agent_gateway.domain.events import GATEWAY_END
from agent_gateway.limits import Limits, TurnLimits
from agent_gateway.store.turns.intake import TurnIntake
from agent_gateway.turns import maintenance
from tests.support.chat import PING, Heard, refused
from tests.support.concurrency import at_once
from tests.support.fakes.script import Gate, Script, delta, fail, script, succeed, tool_call
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import query_of, remembered
from tests.support.fleet import Fleet, die, within
from tests.support.gateway_server import BOUND, wait_until
from tests.support.json_type import Json
from tests.support.rows import never


def test_concurrent_messages_are_answered_in_their_order(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Posted at three processes: each run knows all before it, and there is one at a time."""
    chats = [fleet.chat(fleet.start(), user) for _ in range(3)]
    fake.queue(script(said("First"), gate, succeed()))
    first = chats[0].background("0")
    conversation = first["conversation_id"]

    def post(number: int) -> Json:
        return chats[number % 3].background(str(number), conversation_id=conversation)

    turns = at_once(*[lambda number=number: post(number) for number in range(1, 9)])
    rows = [fleet.rows(turn["task_id"]).turn for turn in turns]
    assert {row.state for row in rows} == {"queued"}
    assert sorted(row.seq for row in rows) == list(range(2, 10))
    fake.wait_until(lambda: fake.posts == 1)
    gate.open()
    for number, turn in enumerate([first, *turns]):
        assert chats[(number + 1) % 3].resumed(turn["task_id"]).last["event"] == "message_end"
    in_order = [first["task_id"], *(row.id for row in sorted(rows, key=lambda row: row.seq))]
    assert [request.body["idempotency_key"] for request in fake.requests] == in_order
    queries = [query_of(request.body) for request in fake.requests]
    for number, request in enumerate(fake.requests):
        assert remembered(request.body) == queries[:number]
    assert [message["query"] for message in chats[2].messages(conversation)] == queries


def test_the_stream_of_a_queued_message_pings(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    one, two = fleet.start(), fleet.start()
    fake.queue(script(said("First"), gate, succeed()))
    with fleet.chat(one, user).open("One") as first:
        conversation = first.next()["conversation_id"]
        chat = fleet.chat(two, user)
        with (
            chat.open("Two", conversation_id=conversation, params={"ids": 1}) as second,
            fleet.chat(one, user).follow(second.task_id) as reader,
        ):
            assert (second.block() or b"").startswith(b"retry: ")
            assert [second.block() for _ in range(3)] == [PING] * 3
            assert (reader.block() or b"").startswith(b"retry: ")
            assert reader.block() == PING
            # A repeated post of a waiting message would attach to it; another one waits behind it.
            gate.open()
            assert first.rest().kinds == ["message", "message_end"]
            heard = second.rest()
            assert heard.answer == "You said: Two."
            assert reader.rest().frames == heard.frames
    assert remembered(fake.requests[1].body) == ["One"]


def test_a_blocking_caller_waits_until_its_queued_turn_has_run(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    chat = fleet.chat(fleet.start(), user)
    fake.queue(script(said("First"), gate, succeed()))
    first = chat.background("One")
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(chat.blocking, "Two", conversation_id=first["conversation_id"])
        wait_until(lambda: len(chat.messages(first["conversation_id"])) == 2)
        gate.open()
        assert waiting.result()["answer"] == "You said: Two."


@pytest.mark.parametrize("end", ["fails", "is stopped"])
def test_a_queued_turn_starts_however_the_active_one_ends(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, end: str
) -> None:
    """With the snapshot of the last turn that has one."""
    chat, other = fleet.chat(fleet.start(), user), fleet.chat(fleet.start(), user)
    conversation = chat.blocking("One")["conversation_id"]
    fake.queue(script(said("Second"), gate, fail()))
    second = chat.background("Two", conversation_id=conversation)
    third = other.background("Three", conversation_id=conversation)
    fake.wait_until(lambda: fake.posts == 2)
    other.stop(second["task_id"]) if end == "is stopped" else gate.open()
    assert chat.resumed(third["task_id"]).answer == "You said: Three."
    assert fleet.rows(second["task_id"]).turn.outcome == ("stopped" if end == "is stopped" else "failed")
    assert remembered(fake.requests[2].body) == ["One"]


def test_a_message_beyond_the_queue_limit_is_refused(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    chats = [fleet.chat(fleet.start(), user) for _ in range(2)]
    fake.queue(script(said("First"), gate, succeed()))
    first = chats[0].background("0")
    conversation = first["conversation_id"]

    def post(number: int) -> httpx.Response:
        return chats[number % 2].post(
            str(number),
            conversation_id=conversation,
            response_mode="background",
            headers={"X-N": str(number)},
        )

    posted = at_once(*[lambda number=number: post(number) for number in range(MAX_QUEUED + 3)])
    lost = [response for response in posted if response.status_code != 202]
    assert len(lost) == 3
    for response in lost:
        assert refused(response, 409, "conversation_busy")["task_id"] == first["task_id"]
    assert len(chats[0].messages(conversation)) == MAX_QUEUED + 1
    gate.open()
    for response in posted:
        if response.status_code == 202:
            assert chats[0].resumed(response.json()["task_id"]).last["event"] == "message_end"
    assert fake.posts == MAX_QUEUED + 1


@pytest.mark.parametrize("mode", ["streaming", "blocking", "background"])
def test_an_app_can_refuse_messages_while_a_turn_runs(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, mode: str
) -> None:
    """It is told whose turn it is, and how to follow that; nothing of it is stored."""
    one, two = fleet.start(), fleet.start()
    fleet.app("app-rejects", on_busy="reject")
    fake.queue(script(said("First"), gate, succeed()))
    with fleet.chat(one, user, "app-rejects").open("One") as stream:
        conversation = stream.next()["conversation_id"]
        chat = fleet.chat(two, user, "app-rejects")
        response = chat.post("Two", conversation_id=conversation, response_mode=mode)
        busy = refused(response, 409, "conversation_busy")
        assert busy.keys() == {"code", "message", "status", "task_id", "events_url"}
        assert busy["task_id"] == stream.task_id
        gate.open()
        with httpx.Client(base_url=two.url, trust_env=False) as keyless:
            followed = keyless.get(busy["events_url"])
        assert Heard(followed.content, followed.headers).events == stream.rest().events
    assert len(chat.messages(conversation)) == 1
    assert chat.blocking("Two", conversation_id=conversation)["answer"] == "You said: Two."


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_an_app_can_interrupt_the_running_turn(
    fleet: Fleet, fake: ScriptedBackend, user: str, where: str
) -> None:
    """The active turn ends with what it has said, then the new one runs, with the memory from before."""
    one, two = fleet.start(), fleet.start()
    fleet.app("app-interrupts", on_busy="interrupt")
    chat = fleet.chat(one, user, "app-interrupts")
    conversation = chat.blocking("One")["conversation_id"]
    fake.queue(script(said("Half an ans"), *tool_call("1", "clock", {}), Gate(), succeed()))
    with chat.open("Two", conversation_id=conversation) as stream:
        stream.until("ans")
        third = fleet.chat(one if where == "here" else two, user, "app-interrupts")
        assert third.blocking("Three", conversation_id=conversation)["answer"] == "You said: Three."
        heard = stream.rest()
    assert (heard.answer, heard.last["event"]) == ("Half an ans", "message_end")
    rows = fleet.rows(stream.task_id)
    assert (rows.turn.outcome, rows.turn.stop_reason) == ("stopped", "interrupted")
    assert rows.message.answer == "Half an ans"
    assert remembered(fake.requests[2].body) == ["One"]
    assert [cancel.run_id for cancel in fake.cancels][:1] == [rows.turn.run_id]


def test_the_last_of_many_interrupting_messages_wins(fleet: Fleet, fake: ScriptedBackend, user: str) -> None:
    """All earlier messages are stopped, each visibly; none runs beside another."""
    one, two = fleet.start(), fleet.start()
    fleet.app("app-interrupts", on_busy="interrupt")
    chats = [fleet.chat(server, user, "app-interrupts") for server in (one, two)]
    fake.queue(script(said("First"), Gate(), succeed()))
    first = chats[0].background("0")
    conversation = first["conversation_id"]
    # Interrupted before that, it would leave its script to another.
    fake.wait_until(lambda: fake.posts == 1)
    turns = at_once(
        *[
            lambda number=number: chats[number % 2].background(str(number), conversation_id=conversation)
            for number in range(1, 5)
        ]
    )
    for turn in turns:
        assert chats[0].resumed(turn["task_id"]).last["event"] == "message_end"
    rows = sorted((fleet.rows(turn["task_id"]).turn for turn in [first, *turns]), key=lambda row: row.seq)
    assert rows[0].outcome == "stopped"
    assert rows[-1].outcome == "completed"
    assert all(row.ended_at is not None for row in rows)
    # Those of which a run was made went one after the other.
    ended = [row.ended_at for row in rows if row.run_id is not None and row.ended_at is not None]
    assert ended == sorted(ended)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_an_interrupting_message_ends_queued_turns_too(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, where: str
) -> None:
    """Only the newest message is answered next, however many wait; their readers hear that at once."""
    # The active turn is there until its run ends.
    fleet.limits = Limits(turn=TurnLimits(stop_seconds=300.0))
    one, two = fleet.start(lease_seconds=300), fleet.start(lease_seconds=300)
    fleet.app("app-interrupts", on_busy="interrupt")
    chat = fleet.chat(one, user, "app-interrupts")
    # It does not obey: what comes meanwhile has to wait.
    fake.queue(script(said("First"), gate, succeed(), cancel="ignore"))
    with chat.open("One") as first:
        conversation = first.until("First")[0]["conversation_id"]
        with chat.open("Two", conversation_id=conversation) as second:
            assert second.block() == PING
            assert fleet.rows(second.task_id).turn.state == "queued"
            other = fleet.chat(one if where == "here" else two, user, "app-interrupts")
            more = [
                other.background(f"More {number}", conversation_id=conversation)
                for number in range(MAX_QUEUED + 1)
            ]
            heard = second.rest()
            assert (heard.kinds, heard.ids) == (["message_end"], [GATEWAY_END])
        gate.open()
        assert first.rest().last["event"] == "message_end"
    assert chat.resumed(more[-1]["task_id"]).answer == f"You said: More {MAX_QUEUED}."
    row = fleet.rows(second.task_id).turn
    assert (row.outcome, row.stop_reason, row.run_id) == ("stopped", "interrupted", None)
    assert fake.posts == 2


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_stopping_a_queued_turn_ends_only_that_turn(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, where: str
) -> None:
    one, two = fleet.start(), fleet.start()
    chat, other = fleet.chat(one, user), fleet.chat(two, user)
    fake.queue(script(said("First"), gate, delta("!"), succeed()))
    first = chat.background("One")
    conversation = first["conversation_id"]
    wait_until(lambda: fleet.rows(first["task_id"]).turn.state == "running")
    with chat.open("Two", conversation_id=conversation) as second:
        assert second.block() == PING
        third = other.background("Three", conversation_id=conversation)
        (chat if where == "here" else other).stop(second.task_id)
        heard = second.rest()
    assert (heard.kinds, heard.ids) == (["message_end"], [GATEWAY_END])
    assert fleet.rows(first["task_id"]).turn.state == "running"
    gate.open()
    assert chat.resumed(first["task_id"]).answer == "First!"
    assert chat.resumed(third["task_id"]).answer == "You said: Three."
    assert (fake.posts, fake.cancels) == (2, [])
    assert remembered(fake.requests[1].body) == ["One"]


def test_a_promoted_turn_runs_although_its_process_died(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is promoted by the commit that ended the one before: whoever sweeps next runs it (R10)."""
    with monkeypatch.context() as patched:
        # This one ends its turns and never looks for others.
        patched.setattr(maintenance.Maintenance, "sweep", never)
        one = fleet.start()
    two = fleet.start()
    chat = fleet.chat(one, user)
    fake.queue(script(said("First"), gate, succeed()))
    first = chat.background("One")
    second = chat.background("Two", conversation_id=first["conversation_id"])
    third = chat.background("Three", conversation_id=first["conversation_id"])
    gate.open()
    wait_until(lambda: fleet.rows(first["task_id"]).turn.state == "ended")
    die(one)
    other = fleet.chat(two, user)
    assert other.resumed(second["task_id"]).answer == "You said: Two."
    assert other.resumed(third["task_id"]).answer == "You said: Three."
    assert [query_of(request.body) for request in fake.requests] == ["One", "Two", "Three"]
    assert fleet.rows(second["task_id"]).turn.adoptions == 0


def test_a_turn_adopted_before_its_begin_returned_runs_once(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit is seen by this process's own sweep: there is one live turn all the same."""
    begin, go_on = TurnIntake.begin, threading.Event()

    async def slow_begin(self: TurnIntake, *arguments: Any) -> Any:
        begun = await begin(self, *arguments)
        await asyncio.to_thread(go_on.wait, 10)
        return begun

    async def tasks() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("turn-")]

    one = fleet.start()
    chat, last = fleet.chat(one, user), Gate()
    fake.queue(script(said("First"), gate, succeed()), script(said("Second"), last, succeed()))
    first = chat.background("One")
    monkeypatch.setattr(TurnIntake, "begin", slow_begin)
    with ThreadPoolExecutor(1) as executor:
        posted = executor.submit(chat.background, "Two", conversation_id=first["conversation_id"])
        gate.open()
        fake.wait_until(lambda: fake.posts == 2)
        go_on.set()
        second = posted.result(BOUND)
    assert within(one, tasks()) == [f"turn-{second['task_id']}"]
    last.open()
    assert chat.resumed(second["task_id"]).answer == "Second"


def test_a_queued_turn_of_a_dead_process_runs(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """It waits for nobody in particular."""
    one, two = fleet.start(), fleet.start()
    fake.queue(script(said("First"), gate, succeed()))
    first = fleet.chat(two, user).background("One")
    conversation = first["conversation_id"]
    second = fleet.chat(one, user).background("Two", conversation_id=conversation)
    die(one)
    gate.open()
    assert fleet.chat(two, user).resumed(second["task_id"]).answer == "You said: Two."
    assert fleet.rows(first["task_id"]).turn.epoch == 1


def test_the_active_and_the_queued_turn_survive_the_death_of_their_process(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    one, two = fleet.start(), fleet.start()
    fake.queue(script(said("First"), gate, succeed()))
    chat = fleet.chat(one, user)
    first = chat.background("One")
    second = chat.background("Two", conversation_id=first["conversation_id"])
    fake.wait_until(lambda: fake.open_streams == 1)
    die(one)
    other = fleet.chat(two, user)
    third = other.background("Three", conversation_id=first["conversation_id"])
    gate.open()
    for turn, answer in ((first, "First"), (second, "You said: Two."), (third, "You said: Three.")):
        assert other.resumed(turn["task_id"]).answer == answer
    assert remembered(fake.requests[2].body) == ["One", "Two"]


# -- the same message more than once ---------------------------------------------------------------


def test_one_idempotency_key_on_three_processes_makes_one_run(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    chats = [fleet.chat(fleet.start(), user) for _ in range(3)]
    fake.script = script(said("On", "ce"), gate, delta(" only"), succeed())
    key = {"headers": {"Idempotency-Key": "the same"}, "params": {"ids": 1}}
    threading.Timer(0.5, gate.open).start()
    heard = at_once(*[lambda chat=chat: chat.streaming("Once", **key) for chat in chats * 4])
    assert {one.answer for one in heard} == {"Once only"}
    assert all(one.frames == heard[0].frames for one in heard)
    assert len({one.headers["X-Task-Id"] for one in heard}) == 1
    assert fake.posts == 1
    for chat in chats:
        refused(chat.post("Twice", headers=key["headers"]), 409, "idempotency_conflict")
        assert chat.blocking("Once", **key)["answer"] == "Once only"
        assert chat.streaming("Once", **key).frames == heard[0].frames
    assert fake.posts == 1


def test_a_repeated_post_joins_a_turn_that_has_no_run_yet(
    fleet: Fleet, fake: ScriptedBackend, user: str
) -> None:
    """Posted while the backend is still thinking about POST /runs: it waits and hears everything."""
    chats = [fleet.chat(fleet.start(), user) for _ in range(2)]
    reached, proceed = threading.Event(), threading.Event()

    def slow(_: Json) -> Script:
        reached.set()
        proceed.wait(BOUND)
        return script(said("On", "ce"), succeed())

    fake.script = slow
    key = {"headers": {"Idempotency-Key": "the same"}}
    first = chats[0].background("Once", **key)
    assert reached.wait(BOUND)
    with chats[1].open("Once", **key) as second:
        assert second.task_id == first["task_id"]
        assert second.block() == PING
        proceed.set()
        assert second.rest().answer == "Once"
    assert fake.posts == 1


def test_an_idempotency_key_works_after_a_restart_and_for_a_queued_turn(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    one, two = fleet.start(), fleet.start()
    chat = fleet.chat(one, user)
    fake.queue(script(said("First"), gate, succeed()))
    first = chat.background("One", headers={"Idempotency-Key": "1"})
    conversation = first["conversation_id"]
    again = {"conversation_id": conversation, "headers": {"Idempotency-Key": "2"}}
    second = chat.background("Two", **again)
    assert fleet.chat(two, user).background("Two", **again)["task_id"] == second["task_id"]
    assert len(chat.messages(conversation)) == 2
    gate.open()
    chat.resumed(second["task_id"])
    one.stop()
    two.stop()
    restarted = fleet.chat(fleet.start(), user)
    assert restarted.blocking("Two", **again)["answer"] == "You said: Two."
    resumed = restarted.post(
        "Two",
        response_mode="streaming",
        conversation_id=conversation,
        headers={"Idempotency-Key": "2", "Last-Event-ID": "1"},
    )
    assert Heard(resumed.content, resumed.headers).events[0]["event_id"] > 1
    assert fake.posts == 2


@pytest.mark.parametrize(("hours", "known"), [(23.9, True), (24.1, False)])
def test_an_idempotency_key_is_kept_for_a_day(
    fleet: Fleet, fake: ScriptedBackend, user: str, hours: float, *, known: bool
) -> None:
    chat = fleet.chat(fleet.start(), user)
    key = {"headers": {"Idempotency-Key": "the same"}}
    first = chat.blocking("Once", **key)
    fleet.age_keys(hours * 3600)
    if not known:
        # Nothing of it is left, not even its body.
        assert chat.blocking("Another", **key)["task_id"] != first["task_id"]
    assert (chat.post("Once", **key).json().get("task_id") == first["task_id"]) is known
    assert fake.posts == (1 if known else 2)
