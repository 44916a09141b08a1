"""Group commit: which writes go together, and what each of them hears."""

import asyncio
from collections.abc import Sequence

import pytest

from agent_gateway.errors import StoreRejected, StoreUnavailable
from agent_gateway.store.db.group_commit import MAX_CHARACTERS, MAX_WRITES, GroupCommit
from agent_gateway.store.db.shielded import ShieldedTasks

pytestmark = pytest.mark.anyio

UNAVAILABLE = [StoreUnavailable, *StoreUnavailable.__subclasses__()]
"""Each waiter gets one of its own: an error that cannot be made again would leave them waiting."""


class Journal:
    """A database that notes what is committed together; it commits one group after the other."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.sent: asyncio.Queue[None] = asyncio.Queue()
        """One item for each group."""
        self.failures: dict[str, Exception] = {}
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.shielded = ShieldedTasks()
        self.commit = GroupCommit(self._commit, self.shielded, of=lambda write: (write[0],), size=len)

    async def _commit(self, writes: Sequence[str]) -> list[str]:
        self.groups.append(list(writes))
        self.sent.put_nowait(None)
        await self.may_commit.wait()
        for write in writes:
            if failure := self.failures.get(write):
                raise failure
        return [write.upper() for write in writes]


async def test_a_write_that_finds_no_other_goes_at_once() -> None:
    journal = Journal()
    assert await journal.commit("a") == "A"
    assert await journal.commit("b") == "B"
    assert journal.groups == [["a"], ["b"]]


async def test_writes_that_come_meanwhile_go_together_in_their_order() -> None:
    journal = Journal()
    journal.may_commit.clear()
    first = asyncio.ensure_future(journal.commit("a"))
    await journal.sent.get()
    others = [asyncio.ensure_future(journal.commit(name)) for name in "dcb"]
    await asyncio.sleep(0)
    journal.may_commit.set()
    assert await asyncio.gather(first, *others) == ["A", "D", "C", "B"]
    assert journal.groups == [["a"], ["d", "c", "b"]]


async def test_two_writes_of_one_thing_keep_their_order_and_are_apart() -> None:
    journal = Journal()
    writes = ["a1", "b1", "a2", "a3", "b2"]
    assert await asyncio.gather(*map(journal.commit, writes)) == ["A1", "B1", "A2", "A3", "B2"]
    assert journal.groups == [["a1", "b1"], ["a2", "b2"], ["a3"]]


async def test_a_group_is_bounded_in_number_and_in_size() -> None:
    journal = Journal()
    many = [chr(0x4E00 + number) for number in range(MAX_WRITES + 1)]
    await asyncio.gather(*map(journal.commit, many))
    assert list(map(len, journal.groups)) == [MAX_WRITES, 1]
    journal.groups.clear()
    big = [name + "." * (MAX_CHARACTERS // 2) for name in "abc"]
    await asyncio.gather(*map(journal.commit, [*big, "d" + "." * MAX_CHARACTERS]))
    assert [[write[0] for write in group] for group in journal.groups] == [["a"], ["b"], ["c"], ["d"]]


async def test_a_write_with_bad_data_fails_alone() -> None:
    journal = Journal()
    journal.failures["b"] = StoreRejected("bad")
    good, bad, too = await asyncio.gather(*map(journal.commit, "abc"), return_exceptions=True)
    assert (good, too) == ("A", "C")
    assert isinstance(bad, StoreRejected)
    assert journal.groups == [["a", "b", "c"], ["a"], ["b"], ["c"]]


@pytest.mark.parametrize("error", [*(kind("away") for kind in UNAVAILABLE), ValueError("a mistake")])
async def test_after_any_other_failure_nobody_is_committed_again(error: Exception) -> None:
    """Nobody knows whether the commit went through: each caller decides what to do."""
    journal = Journal()
    journal.failures["b"] = error
    outcomes = await asyncio.gather(*map(journal.commit, "abc"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(error)] * 3
    assert journal.groups == [["a", "b", "c"]]
    assert await journal.commit("d") == "D"


async def test_a_caller_that_leaves_takes_back_what_was_not_sent() -> None:
    journal = Journal()
    journal.may_commit.clear()
    first = asyncio.ensure_future(journal.commit("a"))
    await journal.sent.get()
    left, stays = (asyncio.ensure_future(journal.commit(name)) for name in "bc")
    await asyncio.sleep(0)
    left.cancel()
    first.cancel()
    journal.may_commit.set()
    assert await stays == "C"
    assert journal.groups == [["a"], ["c"]]


@pytest.mark.parametrize("rejected", [False, True])
async def test_nobody_waits_for_ever_when_the_process_ends(rejected: bool) -> None:
    journal = Journal()
    if rejected:
        journal.failures["a"] = StoreRejected("bad")
    waiting = [asyncio.ensure_future(journal.commit(name)) for name in "ab"]
    await journal.sent.get()
    journal.may_commit.clear()
    if rejected:
        await journal.sent.get()
    late = asyncio.ensure_future(journal.commit("c"))
    await asyncio.sleep(0)
    for task in asyncio.all_tasks():
        if task.get_name() == "shielded":
            task.cancel()
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*waiting, late, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {asyncio.CancelledError, StoreRejected, str}
