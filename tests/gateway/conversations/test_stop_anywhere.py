"""A stop reaches the turn from any process, at any time, and hits no other."""

import threading
from functools import partial

import pytest

from agent_gateway.domain.events import GATEWAY_END
from agent_gateway.limits import Limits, TurnLimits
from tests.support.concurrency import at_once
from tests.support.fakes.script import (
    Gate,
    Script,
    cancelled,
    refuse,
    script,
    succeed,
    tool_call,
    tool_result,
)
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.session import remembered
from tests.support.fleet import Fleet, adopted, die
from tests.support.gateway_server import BOUND, wait_until
from tests.support.json_type import Json

LONG_LEASE = 60.0
BEFORE_THE_STOP = {
    "in mid-text": said("Half an ans"),
    "inside a tool": [*said("Half an ans"), *tool_call("1", "clock", {})],
    "between two tools": [
        *said("Half an ans"),
        *tool_call("1", "clock", {}),
        *tool_result("1", "clock", "9"),
        *tool_call("2", "clock", {}),
    ],
}


@pytest.mark.parametrize("where", BEFORE_THE_STOP)
def test_a_stop_at_another_process_ends_the_turn(
    fleet: Fleet, fake: ScriptedBackend, user: str, where: str
) -> None:
    """The run is cancelled at once, what it said and did is kept, and the next turn works."""
    # With leases so long that the owner would hear of the stop only after the test.
    one, two = fleet.start(lease_seconds=LONG_LEASE), fleet.start(lease_seconds=LONG_LEASE)
    chat, other = fleet.chat(one, user), fleet.chat(two, user)
    conversation = chat.blocking("One")["conversation_id"]
    fake.queue(script(*BEFORE_THE_STOP[where], Gate(), succeed()))
    with chat.open("Two", conversation_id=conversation, params={"ids": 1}) as stream:
        stream.until("ans")
        other.stop(stream.task_id)
        fake.wait_until(lambda: bool(fake.cancels))
        heard = stream.rest()
    assert (heard.answer, heard.last["event"]) == ("Half an ans", "message_end")
    rows = fleet.rows(stream.task_id)
    assert (rows.turn.outcome, rows.turn.stop_reason, rows.turn.epoch) == ("stopped", "user", 1)
    assert rows.message.answer == "Half an ans"
    assert [step.tool for step in rows.steps] == ["clock"] * where.count("tool") * (1 + ("two" in where))
    assert other.resumed(stream.task_id).frames == heard.frames
    assert {cancel.run_id for cancel in fake.cancels} == {rows.turn.run_id}
    assert other.blocking("Three", conversation_id=conversation)["answer"] == "You said: Three."
    assert remembered(fake.requests[2].body) == ["One"]


def test_the_usage_of_a_stopped_run_is_stored(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """When the backend says what was used until then."""
    one, two = fleet.start(), fleet.start()
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    # It does not stop at once: what it says then is what counts.
    fake.queue(script(said("Half"), gate, cancelled(usage=usage), cancel="ignore"))
    with fleet.chat(one, user).open() as stream:
        stream.until("Half")
        fleet.chat(two, user).stop(stream.task_id)
        gate.open()
        heard = stream.rest()
    assert heard.last["metadata"]["usage"]["total_tokens"] == 5
    assert fleet.rows(stream.task_id).turn.outcome == "stopped"


@pytest.mark.parametrize("cancel", [409, 404, 500, 422, "ignore", "hang"])
def test_a_stop_ends_the_turn_whatever_the_backend_says(
    fleet: Fleet, fake: ScriptedBackend, user: str, cancel: int | str
) -> None:
    """The partial answer is kept and the turn ends in bounded time (R9)."""
    fleet.limits = Limits(turn=TurnLimits(stop_seconds=1.0, final_read_seconds=0.5, cancel_seconds=0.5))
    one, two = fleet.start(), fleet.start()
    fake.queue(script(said("So ", "far"), Gate(), succeed(), cancel=cancel))  # type: ignore[arg-type]
    with fleet.chat(one, user).open(params={"ids": 1}) as stream:
        stream.until("far")
        fleet.chat(two, user).stop(stream.task_id)
        heard = stream.rest()
    assert (heard.kinds, heard.ids[-1]) == (["message", "message", "message_end"], GATEWAY_END)
    rows = fleet.rows(stream.task_id)
    assert (rows.turn.outcome, rows.message.answer) == ("stopped", "So far")
    assert fleet.chat(two, user).blocking(conversation_id=heard.conversation_id)["answer"]


def test_a_stop_before_the_run_is_known_ends_the_turn(fleet: Fleet, fake: ScriptedBackend, user: str) -> None:
    """Asked for at another process while POST /runs is on its way: the run is cancelled when it arrives."""
    one, two = fleet.start(), fleet.start()
    reached, proceed = threading.Event(), threading.Event()

    def slow(_: Json) -> Script:
        reached.set()
        proceed.wait(BOUND)
        return script(said("So far"), Gate(), succeed())

    fake.queue(slow)
    with fleet.chat(one, user).open(params={"ids": 1}) as stream:
        assert reached.wait(BOUND)
        fleet.chat(two, user).stop(stream.task_id)
        proceed.set()
        heard = stream.rest()
    rows = fleet.rows(stream.task_id)
    assert (rows.turn.outcome, heard.last["event"]) == ("stopped", "message_end")
    assert {cancel.run_id for cancel in fake.cancels} == {rows.turn.run_id}
    assert rows.message.answer == heard.answer
    assert fake.posts == 1


def test_a_stop_at_another_process_while_the_backend_refuses_runs(
    fleet: Fleet, fake: ScriptedBackend, user: str
) -> None:
    """Nobody waits for a run that nobody wants any more, and it is not asked for again."""
    fleet.limits = Limits(turn=TurnLimits(stop_seconds=1.0))
    one, two = fleet.start(backend_reconnect_seconds=60.0), fleet.start()
    fake.script = refuse(503)
    turn = fleet.chat(one, user).background()
    fake.wait_until(lambda: fake.posts >= 1)
    other = fleet.chat(two, user)
    other.stop(turn["task_id"])
    assert other.resumed(turn["task_id"]).kinds == ["message_end"]
    assert fleet.rows(turn["task_id"]).turn.outcome == "stopped"
    posts = fake.posts
    one.stop()
    # At most the one that was on its way.
    assert fake.posts <= posts + 1


def test_a_stop_at_another_process_that_races_the_end_gives_one_end(
    fleet: Fleet, fake: ScriptedBackend, user: str
) -> None:
    """From both processes at the moment the run ends: the first terminal event counts, for everybody."""
    one, two = fleet.start(), fleet.start()
    chat, other = fleet.chat(one, user), fleet.chat(two, user)
    for _ in range(8):
        gate = Gate()
        fake.queue(script(said("So far"), gate, succeed()))
        with chat.open(params={"ids": 1}) as stream, other.follow(stream.task_id) as follower:
            stream.until("So far")
            at_once(partial(other.stop, stream.task_id), gate.open, partial(chat.stop, stream.task_id))
            heard = stream.rest()
            assert follower.rest().frames == heard.frames
        rows = fleet.rows(stream.task_id)
        assert (heard.kinds.count("message_end"), heard.answer) == (1, "So far")
        assert rows.turn.end_position == heard.last["event_id"]
        assert (rows.snapshot is not None) == (rows.turn.outcome == "completed")


def test_a_stop_does_not_end_another_turn(fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str) -> None:
    """Of an ended turn, of another user, of a task id that never was: the running one continues."""
    one, two = fleet.start(), fleet.start()
    chat, other = fleet.chat(one, user), fleet.chat(two, user)
    ended = chat.blocking()
    fake.script = script(said("So far"), gate, succeed())
    with chat.open(conversation_id=ended["conversation_id"]) as stream:
        stream.until("So far")
        other.stop(ended["task_id"])
        other.stop(ended["message_id"])
        fleet.chat(two, f"{user}-other").stop(stream.task_id)
        gate.open()
        assert stream.rest().answer == "So far"
    assert fleet.rows(stream.task_id).turn.outcome == "completed"
    assert fake.cancels == []


def test_a_stop_ends_a_turn_whose_process_is_dead(fleet: Fleet, fake: ScriptedBackend, user: str) -> None:
    """It is cancelled at once, and ended by whoever adopts it."""
    one, two = fleet.start(), fleet.start()
    fake.queue(script(said("So far"), Gate(), succeed()))
    with fleet.chat(one, user).open() as stream:
        [event] = stream.until("So far")
        die(one)
    other = fleet.chat(two, user)
    other.stop(event["task_id"])
    fake.wait_until(lambda: bool(fake.cancels))
    heard = other.resumed(event["task_id"])
    assert (heard.answer, heard.last["event"]) == ("So far", "message_end")
    assert fleet.rows(event["task_id"]).turn.outcome == "stopped"
    assert other.blocking(conversation_id=event["conversation_id"])["answer"] == "You said: Hello."


def test_a_stop_ends_an_adopted_turn(fleet: Fleet, fake: ScriptedBackend, user: str) -> None:
    one, two, three = (fleet.start() for _ in range(3))
    fake.queue(script(said("So far"), Gate(), succeed(), cancel=200))
    with fleet.chat(one, user).open() as stream:
        [event] = stream.until("So far")
        die(one)
    wait_until(lambda: two.gateway.live.running() or three.gateway.live.running())
    owner = two if two.gateway.live.running() else three
    other = three if owner is two else two
    adopted(owner, event["task_id"])
    chat = fleet.chat(other, user)
    with chat.follow(event["task_id"], after=event["event_id"]) as reader:
        chat.stop(event["task_id"])
        assert reader.rest().kinds == ["message_end"]
    assert fleet.rows(event["task_id"]).turn.outcome == "stopped"
