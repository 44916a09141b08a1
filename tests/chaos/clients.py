"""Clients: they send, read, lose their connection and come back, as EventSource and SDKs do."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, get_args

from tests.chaos.view import How, Mode, Sent, View
from tests.chaos.wire import Cut, Refused, Unexpected, Wire, events_path, has_ended
from tests.chaos.world import World, now

DOUBLE: Final = 0.15
"""Chance that a message is posted several times at once, with one key."""
STOP: Final = 0.18
LATE: Final = 0.3
"""Chance that a second reader joins in the middle."""
IMPATIENT: Final = 0.2
"""Chance that a message is sent while the one before is being answered."""
KNOCK: Final = 0.3
"""Chance that a reader comes back although it has seen the end: it must get a 204."""
MOST_TURNS: Final = 4
_HOWS: Final[dict[How, int]] = {"plain": 3, "resuming": 3, "background": 3, "blocking": 1}
_MODES: Final[tuple[Mode, ...]] = get_args(Mode)

Flow = Coroutine[Any, Any, None]


class Clients:
    """All conversations of a world."""

    def __init__(self, world: World, wire: Wire) -> None:
        self._world = world
        self._wire = wire
        self.finish = asyncio.Event()
        """Set it, and no new message is sent."""

    async def talk(self) -> None:
        """Hold conversations until `finish`, and end those that still run then."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._world.config.talks):
                tasks.create_task(self._talk(number))

    async def _talk(self, number: int) -> None:
        conversation = 0
        while not self.finish.is_set():
            await self._conversation(f"s{self._world.config.seed} c{number}.{conversation}", number)
            conversation += 1

    async def _conversation(self, name: str, number: int) -> None:
        dice = random.Random(name)
        conversation_id: str | None = None
        turns = dice.randint(1, MOST_TURNS)
        for turn in range(1, turns + 1):
            sent = self._message(f"{name} t{turn}", number, conversation_id)
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send(sent))
                if turn < turns and self._world.config.queue and dice.random() < IMPATIENT:
                    known = tasks.create_task(sent.known.wait())
                    await asyncio.wait({sending, known}, return_when=asyncio.FIRST_COMPLETED)
                    known.cancel()
                    if sent.known.is_set():
                        (conversation_id,) = sent.conversation_ids
                        hasty = self._message(f"{name} t{turn} at once", number, conversation_id)
                        tasks.create_task(self._send(hasty))
            if self.finish.is_set() or len(sent.conversation_ids) != 1:
                return
            (conversation_id,) = sent.conversation_ids
            await asyncio.sleep(dice.uniform(0, 0.3))

    def _message(self, query: str, number: int, conversation_id: str | None) -> Sent:
        sent = Sent(query, f"key of {query}", number, now(), conversation_id)
        self._world.record.sent.append(sent)
        return sent

    async def _send(self, sent: Sent) -> None:
        """One message: as many posts of it, readers and stops as the dice say."""
        dice = random.Random(f"send {sent.query}")
        posts = dice.randint(2, 3) if dice.random() < DOUBLE else 1
        hows = dice.choices(list(_HOWS), list(_HOWS.values()), k=posts)
        extras: list[asyncio.Task[None]] = []
        if dice.random() < STOP:
            extras.append(asyncio.create_task(self._stop(sent, dice.uniform(0, 2.5))))
        if dice.random() < LATE:
            extras.append(asyncio.create_task(self._late(sent, dice.uniform(0, 2.5))))
        try:
            await asyncio.gather(*(self._post(sent, how, number) for number, how in enumerate(hows)))
            if sent.known.is_set():
                await asyncio.gather(*extras)
        finally:
            for extra in extras:
                extra.cancel()
            await asyncio.gather(*extras, return_exceptions=True)

    async def _post(self, sent: Sent, how: How, number: int) -> None:
        dice = random.Random(f"{how} {number} {sent.query}")
        mode = dice.choice(_MODES)
        match how:
            case "plain":
                await self._persist(sent, dice, how, lambda: self._plain(sent, dice, mode))
            case "blocking":
                await self._persist(sent, dice, how, lambda: self._blocking(sent, dice))
            case "resuming" | "background":
                view = View(mode, ids=True)
                sent.views.append(view)
                await self._begin_and_follow(sent, dice, how, view)

    async def _plain(self, sent: Sent, dice: random.Random, mode: Mode) -> bool:
        """Cut, it starts over: the same post with the same key, and a view from the start."""
        view = View(mode, ids=False)
        sent.views.append(view)
        return await self._wire.post_stream(sent, dice, view) == "" or has_ended(view)

    async def _blocking(self, sent: Sent, dice: random.Random) -> bool:
        told = await self._wire.post(sent, dice, "blocking")
        if told is not None:
            sent.answers.append(told["answer"])
        return True

    async def _begin_and_follow(self, sent: Sent, dice: random.Random, how: How, view: View) -> None:
        urls: list[str] = []

        async def begin() -> bool:
            if how == "background":
                told = await self._wire.post(sent, dice, "background")
                urls.append(told["events_url"] if told else "")
            elif (url := await self._wire.post_stream(sent, dice, view)) is not None:
                urls.append(url)
            return bool(urls)

        await self._persist(sent, dice, how, begin)
        if urls and urls[-1]:
            await self._follow(sent, dice, view, urls[-1])

    async def _follow(self, sent: Sent, dice: random.Random, view: View, url: str) -> None:
        """EventSource: it reconnects with the last id until it has seen the end, or a 204."""

        async def connect() -> bool:
            await self._wire.get_events(sent, dice, view, url)
            return has_ended(view)

        async def knock() -> bool:
            seen = len(view.events)
            await self._wire.get_events(sent, dice, view, url)
            if len(view.events) > seen:
                raise Unexpected("events after the end")
            # A process that has not heard of the end yet may answer with nothing; then it comes back.
            return view.gone

        if not has_ended(view):
            await asyncio.sleep(dice.uniform(0.02, 0.4))
            await self._persist(sent, dice, "reader", connect)
        if has_ended(view) and not view.gone and dice.random() < KNOCK:
            await self._persist(sent, dice, "knock", knock)

    async def _late(self, sent: Sent, delay: float) -> None:
        """A reader that joins somewhere in the middle, from the start or from any cursor."""
        await sent.known.wait()
        await asyncio.sleep(delay)
        dice = random.Random(f"late {sent.query}")
        view = View(dice.choice(_MODES), ids=True, after=dice.choice([0, 0, dice.randint(1, 20)]))
        sent.views.append(view)
        await self._follow(sent, dice, view, events_path(sent))

    async def _stop(self, sent: Sent, delay: float) -> None:
        await sent.known.wait()
        await asyncio.sleep(delay)
        sent.stop_asked = now()

        async def stop() -> bool:
            await self._wire.stop(sent, dice)
            sent.stop_done = now()
            return True

        dice = random.Random(f"stop {sent.query}")
        await self._persist(sent, dice, "stop", stop)

    async def _persist(
        self, sent: Sent, dice: random.Random, what: str, attempt: Callable[[], Awaitable[bool]]
    ) -> None:
        """Again and again, with jittered pauses, until it is done or makes no sense."""
        try:
            while True:
                try:
                    if await attempt():
                        return
                except (*Cut, Refused):
                    pass
                await asyncio.sleep(dice.uniform(0.05, 0.5))
        except Unexpected as error:
            sent.trouble.append(f"{what}: {error}")
        except asyncio.CancelledError:
            sent.trouble.append(f"{what}: given up")
            raise
