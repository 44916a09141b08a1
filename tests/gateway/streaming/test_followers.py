"""A reader on a process that does not own the turn: live, byte by byte, at the cost of one stream."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest

from agent_gateway.domain.ids import new_id
from agent_gateway.limits import Limits, RegistryLimits, TurnLimits
from agent_gateway.store.db.functions import now_plus
from tests.support.chat import PING, Stream
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
from tests.support.gateway_server import GatewayServer, wait_until

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
    fake.script = script(said("So ", "far"), gate, succeed())
    with ExitStack() as stack:
        two, first = stack.enter_context(orphaned(fleet, user))
        chat = fleet.chat(two, user)
        readers = [first, *(stack.enter_context(chat.follow(first.task_id)) for _ in range(29))]
        for reader in readers[1:]:
            reader.until("far")
        take_over(fleet, two, first.task_id)
        gate.open()
        assert {reader.rest().answer for reader in readers} == {"So far"}
    # That of the owner that died, and the follower's, which goes on as the owner's.
    assert len(fake.streams) == 2


@pytest.mark.parametrize(
    ("event", "how"),
    [("error", "silence"), ("message_end", "stop"), ("message_end", "cut"), ("message_end", "loss")],
)
def test_a_follower_that_adopts_a_turn_ends_it_as_its_owner(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str, event: str, how: str
) -> None:
    """It goes on with the stream it reads, which now has an owner's bounds, stops and further attempts."""
    fake.script = script(said("So ", "far"), gate, Cut(), delta(", so good"), succeed())
    with orphaned(fleet, user) as (two, follower):
        chat, task_id = fleet.chat(two, user), follower.task_id
        take_over(fleet, two, task_id)
        assert len(fake.streams) == 2
        match how:
            case "silence":
                fall_silent(two, task_id)
            case "stop":
                chat.stop(task_id)
            case "cut":
                gate.open()
            case _:
                # A stream that is refused so is given up. Its owner reads anew.
                fake.broken_streams, fake.broken_status = 1, 403
                gate.open()
        heard = follower.rest()
    answer = "So far, so good" if how in {"cut", "loss"} else "So far"
    row = fleet.rows(task_id).turn
    assert (heard.kinds[-1], heard.answer, row.epoch) == (event, answer, 2)
    assert (row.outcome, row.error_code) == {
        "silence": ("failed", "turn_timeout"),
        "stop": ("stopped", None),
        "cut": ("completed", None),
        "loss": ("completed", None),
    }[how]
    if how in {"silence", "stop"}:
        fake.wait_until(lambda: bool(fake.cancels))
    assert {cancel.run_id for cancel in fake.cancels} <= {row.run_id}
    assert fake.posts == 1


def test_a_follower_that_adopts_a_turn_can_lose_it_again(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """In the middle of the same stream: it follows again, and its reader does not notice."""
    fake.script = script(said("So ", "far"), gate, delta(", so good"), succeed())
    with orphaned(fleet, user) as (two, follower):
        task_id = follower.task_id
        take_over(fleet, two, task_id)
        fleet.change(task_id, owner=new_id(), epoch=3, lease_until=now_plus(LONG_LEASE))
        wait_until(lambda: not drives(two, task_id))
        gate.open()
        follower.until("good")
        assert fleet.rows(task_id).turn.outcome is None
        fleet.change(task_id, lease_until=now_plus(-1))
        heard = follower.rest()
    row = fleet.rows(task_id).turn
    assert (heard.kinds[-1], row.outcome, row.epoch) == ("message_end", "completed", 4)


def test_a_stream_that_was_silent_for_long_is_read_anew_by_the_owner(
    fleet: Fleet, fake: ScriptedBackend, gate: Gate, user: str
) -> None:
    """It may be a dead connection, of which nobody would hear before the bound of a silent run."""
    fleet.limits = Limits(turn=TurnLimits(trusted_stream_seconds=0.0))
    fake.script = script(said("So ", "far"), gate, succeed())
    with orphaned(fleet, user) as (two, follower):
        take_over(fleet, two, follower.task_id)
        fake.wait_until(lambda: len(fake.streams) == 3)
        gate.open()
        assert follower.rest().answer == "So far"


@contextmanager
def orphaned(fleet: Fleet, user: str) -> Generator[tuple[GatewayServer, Stream]]:
    """A turn whose owner has died in its middle, followed by one reader at another process.

    Its lease is long: nobody adopts it before `take_over`.
    """
    one, two = fleet.start(lease_seconds=LONG_LEASE), fleet.start()
    with fleet.chat(one, user).open() as stream:
        stream.until("far")
        with fleet.chat(two, user).follow(stream.task_id) as follower:
            follower.until("far")
            die(one)
            yield two, follower


def take_over(fleet: Fleet, server: GatewayServer, task_id: str) -> None:
    """The lease has run out, and this process adopts the turn that it follows."""
    fleet.change(task_id, lease_until=now_plus(-1))
    adopted(server, task_id)


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


def test_readers_of_an_embedded_run_elsewhere_get_it_live(fleet: Fleet, user: str) -> None:
    """The embedded agent runs inside one process, but its log is in the database."""
    one, two = (fleet.start(backend_url="", lease_seconds=LONG_LEASE) for _ in range(2))
    with (
        fleet.chat(one, user).open("Count to 120", params={"ids": 1}) as stream,
        fleet.chat(two, user).follow(stream.task_id) as follower,
    ):
        follower.until("3 ")
        assert drives(one, stream.task_id), "it still goes on"
        assert follower.rest().frames == stream.rest().frames


def test_an_embedded_run_outlives_the_ownership_of_its_turn(fleet: Fleet, user: str) -> None:
    """A process that loses its turns may still run their agents: the new owner reads on."""
    one, two = (fleet.start(backend_url="") for _ in range(2))
    with fleet.chat(one, user).open("Count to 100") as stream:
        stream.next()
        die(one)
    heard = fleet.chat(two, user).resumed(stream.task_id)
    assert heard.last["event"] == "message_end"
    assert heard.answer.endswith("99 100. Done.")
