"""A reader on a process that does not own the turn: live, byte by byte, at the cost of one stream."""

from contextlib import ExitStack

import pytest

from agent_gateway.domain.ids import new_id
from agent_gateway.limits import Limits, RegistryLimits
from agent_gateway.store.db.functions import now_plus
from tests.support.chat import PING
from tests.support.fakes.script import (
    Cut,
    Gate,
    delta,
    refuse,
    script,
    succeed,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fleet import Fleet, adopted, die, drives, fall_silent
from tests.support.gateway_server import wait_until

MODES = ("chat", "agent-chat", "agent")
LONG_LEASE = 60.0
"""Of owners that live: no pause makes them lose their turns to the process that only follows."""


@pytest.mark.parametrize("mode", MODES)
def test_a_follower_gets_the_same_bytes_live(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, mode: str
) -> None:
    """Not only the end: the text of the run is there before the run continues."""
    one, two = fleet.start(), fleet.start()
    steps = [*thinking("hm ", "so"), *tool_call("1", "clock", {}), *tool_result("1", "clock", "9")]
    fake.script = script(*steps, said("It is ", "nine"), gate, delta(" sharp."), succeed())
    with (
        fleet.chat(one, user).open(params={"ids": 1, "mode": mode}) as stream,
        fleet.chat(two, user).follow(stream.task_id, mode=mode) as follower,
    ):
        stream.until("nine")
        follower.until("nine")
        gate.open()
        assert follower.rest().frames == stream.rest().frames
    assert fake.posts == 1


def test_followers_at_one_process_share_one_backend_stream(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """However many readers there are, with whatever cursor; none of them in its process's way."""
    one, two = (fleet.start(lease_seconds=LONG_LEASE) for _ in range(2))
    fake.script = script(said("So ", "far"), gate, succeed())
    chats = [fleet.chat(server, user) for server in (one, two)]
    with ExitStack() as stack:
        task_id = chats[0].background()["task_id"]
        readers = [
            stack.enter_context(chat.follow(task_id, after=number % 3))
            for chat in chats
            for number in range(12)
        ]
        for reader in readers[::3]:
            reader.until("far")
        assert fake.open_streams == len(fake.streams) == 2
        gate.open()
        assert {reader.rest().kinds[-1] for reader in readers} == {"message_end"}
    assert len(fake.streams) == 2


def test_readers_of_a_dead_process_share_one_stream_elsewhere(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """Before it has adopted the turn and after: the same stream of the backend."""
    one, two = fleet.start(), fleet.start()
    fake.script = script(said("So ", "far"), gate, succeed())
    with fleet.chat(one, user).open() as stream:
        stream.until("far")
        die(one)
    chat = fleet.chat(two, user)
    with ExitStack() as stack:
        readers = [stack.enter_context(chat.follow(stream.task_id)) for _ in range(30)]
        for reader in readers:
            reader.until("far")
        wait_until(two.gateway.live.running)
        gate.open()
        assert {reader.rest().answer for reader in readers} == {"So far"}
    # That of the owner that died, and the follower's, which goes on as the owner's.
    assert len(fake.streams) == 2


@pytest.mark.parametrize(
    ("event", "how"), [("error", "silence"), ("message_end", "stop"), ("message_end", "cut")]
)
def test_a_follower_that_adopts_a_turn_ends_it_as_its_owner(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, event: str, how: str
) -> None:
    """It goes on with the stream it reads, which now has an owner's bounds, stops and further attempts."""
    one, two = fleet.start(), fleet.start()
    fake.script = script(said("So ", "far"), gate, Cut(), delta(", so good"), succeed())
    with fleet.chat(one, user).open() as stream:
        stream.until("far")
        die(one)
    chat = fleet.chat(two, user)
    with chat.follow(stream.task_id) as follower:
        follower.until("far")
        adopted(two, stream.task_id)
        assert len(fake.streams) == 2
        match how:
            case "silence":
                fall_silent(two, stream.task_id)
            case "stop":
                chat.stop(stream.task_id)
            case _:
                gate.open()
        heard = follower.rest()
    answer = "So far, so good" if how == "cut" else "So far"
    row = fleet.rows(stream.task_id).turn
    assert (heard.kinds[-1], heard.answer, row.epoch) == (event, answer, 2)
    assert (row.outcome, row.error_code) == {
        "silence": ("failed", "turn_timeout"),
        "stop": ("stopped", None),
        "cut": ("completed", None),
    }[how]
    assert len(fake.cancels) == (how != "cut")
    assert fake.posts == 1


def test_a_follower_that_adopts_a_turn_can_lose_it_again(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """In the middle of the same stream: it follows again, and its reader does not notice."""
    one, two = fleet.start(), fleet.start()
    fake.script = script(said("So ", "far"), gate, delta(", so good"), succeed())
    with fleet.chat(one, user).open() as stream:
        stream.until("far")
        die(one)
    with fleet.chat(two, user).follow(stream.task_id) as follower:
        follower.until("far")
        adopted(two, stream.task_id)
        fleet.change(stream.task_id, owner=new_id(), epoch=3, lease_until=now_plus(LONG_LEASE))
        wait_until(lambda: not drives(two, stream.task_id))
        gate.open()
        follower.until("good")
        assert fleet.rows(stream.task_id).turn.outcome is None
        fleet.change(stream.task_id, lease_until=now_plus(-1))
        heard = follower.rest()
    row = fleet.rows(stream.task_id).turn
    assert (heard.kinds[-1], row.outcome, row.epoch) == ("message_end", "completed", 4)


def test_a_follower_without_readers_is_closed(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """A while after the last reader has gone, the follower is gone, too; a new reader gets a new one."""
    fleet.limits = Limits(registry=RegistryLimits(unread_seconds=0.3))
    one, two = (fleet.start(lease_seconds=LONG_LEASE) for _ in range(2))
    fake.script = script(said("So ", "far"), gate, succeed())
    owner, chat = fleet.chat(one, user), fleet.chat(two, user)
    task_id = owner.background()["task_id"]
    with chat.follow(task_id) as stream:
        stream.until("far")
        fake.wait_until(lambda: fake.open_streams == 2)
    fake.wait_until(lambda: fake.open_streams == 1)
    wait_until(lambda: not two.gateway.live.followed())
    with chat.follow(task_id, after=1) as stream:
        stream.until("far")
        gate.open()
        assert stream.rest().kinds == ["message", "message_end"]


def test_a_reader_can_come_before_the_run_exists(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    one = fleet.start(backend_reconnect_seconds=20, lease_seconds=LONG_LEASE)
    two = fleet.start()
    fake.queue(*[refuse(503)] * 4)
    fake.script = script(said("So ", "far"), gate, succeed())
    task_id = fleet.chat(one, user).background()["task_id"]
    fake.wait_until(lambda: fake.posts == 1)
    with fleet.chat(two, user).follow(task_id) as stream:
        assert (stream.block() or b"").startswith(b"retry: ")
        assert stream.block() == PING
        stream.until("far")
        gate.open()
        assert stream.rest().kinds == ["message", "message", "message_end"]


def test_readers_of_an_embedded_run_elsewhere_wait_for_the_stored_answer(fleet: Fleet, user: str) -> None:
    """The embedded agent runs inside one process: readers of another one wait for the stored answer."""
    one, two = (fleet.start(backend_url="", lease_seconds=LONG_LEASE) for _ in range(2))
    with (
        fleet.chat(one, user).open("Count to 120", params={"ids": 1}) as stream,
        fleet.chat(two, user).follow(stream.task_id) as follower,
    ):
        assert (follower.block() or b"").startswith(b"retry: ")
        assert follower.block() == PING
        assert follower.rest().frames == stream.rest().frames


def test_an_embedded_run_fails_when_its_process_dies(fleet: Fleet, user: str) -> None:
    """No other process can continue it: the turn ends visibly, and the conversation continues."""
    one, two = (fleet.start(backend_url="") for _ in range(2))
    with fleet.chat(one, user).open("Tell me a story") as stream:
        event = stream.next()
        die(one)
    chat = fleet.chat(two, user)
    assert chat.resumed(stream.task_id, after=1).last["code"] == "turn_interrupted"
    assert chat.blocking(conversation_id=event["conversation_id"])["answer"]
