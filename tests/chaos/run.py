"""One run of the suite: a seed's world, its clients and faults, the quiet afterwards, and the check."""

import asyncio
import random
import signal
from typing import Final

from tests.chaos.check import check
from tests.chaos.clients import Clients
from tests.chaos.faults import EXIT_SLACK, Injector, schedule
from tests.chaos.postgres import ChaosPostgres
from tests.chaos.report import Report, make_report
from tests.chaos.truth import Row, Truth, read_truth
from tests.chaos.view import View
from tests.chaos.wire import Wire, events_path
from tests.chaos.world import Config, World, now, open_world

REREADS: Final = 60
"""Ended turns that are read once more, from any cursor, on any process."""


def run_seed(config: Config, postgres: ChaosPostgres) -> Report:
    """Run it, with an event loop of its own."""
    # SIGTERM takes the world down, as Ctrl-C does: nothing else would.
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return asyncio.run(_run(config, postgres))
    finally:
        signal.signal(signal.SIGTERM, before)


async def _run(config: Config, postgres: ChaosPostgres) -> Report:
    async with open_world(config, postgres) as world:
        began = now()
        wire = Wire(world)
        try:
            await _break_things(world, wire)
            truth = await read_truth(world)
            await _read_again(world, wire, truth)
            await _take_down(world)
        finally:
            await wire.close()
        truth = await read_truth(world)
        logs = [replica.log.read_text(errors="replace") for replica in world.everybody]
        violations = check(config, world.record, truth, logs)
        return make_report(config, began, world.record, truth, violations, logs)


async def _break_things(world: World, wire: Wire) -> None:
    config = world.config
    faults = schedule(
        config.seed,
        config.seconds,
        config.processes,
        config.faults,
        config.lease_seconds,
        config.agents,
    )
    injector, clients = Injector(world), Clients(world, wire)
    talking = asyncio.create_task(clients.talk())
    playing = asyncio.create_task(injector.play(faults))
    await asyncio.wait(
        {talking, asyncio.create_task(asyncio.sleep(config.seconds))}, return_when="FIRST_COMPLETED"
    )
    clients.finish.set()
    try:
        await playing
        await injector.heal()
        if not await _quiet(world, talking):
            world.record.problems.append(
                f"turns or clients still run {config.quiet_seconds} s after the last fault"
            )
    except TimeoutError as error:
        world.record.problems.append(str(error))
    finally:
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)


async def _quiet(world: World, talking: asyncio.Task[None]) -> bool:
    """Wait until all clients are content and all turns have ended; False when that takes too long."""
    give_up = now() + world.config.quiet_seconds
    await asyncio.wait({talking}, timeout=world.config.quiet_seconds)
    while now() < give_up:
        if talking.done() and not await world.unended():
            talking.result()
            return True
        await asyncio.sleep(0.1)
    return False


async def _read_again(world: World, wire: Wire, truth: Truth) -> None:
    """Every process gives the rest of an ended turn, from any cursor; and the history."""
    dice = random.Random(f"again {world.config.seed}")
    sent_of = {sent.task_id: sent for sent in world.record.sent if sent.task_id in truth.rows}
    for sent in dice.sample(list(sent_of.values()), min(REREADS, len(sent_of))):
        row = truth.rows[sent.task_id or ""]
        seen = sorted({event.position for view in sent.views for event in view.events} - {row.end_position})
        view = View(dice.choice(["chat", "agent-chat", "agent"]), ids=True, after=dice.choice([0, *seen]))
        sent.views.append(view)
        try:
            await wire.get_events(sent, dice, view, events_path(sent))
        except Exception as error:  # noqa: BLE001 - for any error: the world is whole and quiet now
            sent.trouble.append(f"read again at {now():.3f}: {error!r}")
        if not view.ended:
            sent.trouble.append(f"read again after {view.after}: the end does not come")
    for conversation_id in sorted({row.conversation_id for row in truth.rows.values()})[:REREADS]:
        rows = [row for row in truth.rows.values() if row.conversation_id == conversation_id]
        await _compare_history(world, wire, conversation_id, rows, dice)


async def _compare_history(
    world: World, wire: Wire, conversation_id: str, rows: list[Row], dice: random.Random
) -> None:
    replica = dice.choice(world.replicas)
    try:
        told = await wire.history(replica, conversation_id)
    except Exception as error:  # noqa: BLE001 - for any error: the world is whole and quiet now
        world.record.problems.append(f"GET /messages at process {replica.number} at {now():.3f}: {error!r}")
        return
    want = [
        (row.query, row.answer, "error" if row.outcome == "failed" else "normal")
        for row in sorted(rows, key=lambda row: row.seq)
    ]
    if [(item["query"], item["answer"], item["status"]) for item in told] != want:
        world.record.problems.append(f"GET /messages of {conversation_id} is not what is stored")


async def _take_down(world: World) -> None:
    """All processes at once, idle: they have to go at once."""
    for replica in world.everybody:
        replica.terminate()
    for replica in world.everybody:
        if await replica.wait_until_gone(EXIT_SLACK) is None:
            world.record.problems.append(f"process {replica.number} was idle and did not exit after SIGTERM")
