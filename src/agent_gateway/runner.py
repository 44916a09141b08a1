"""One turn: create the run, fold its events, save the outcome, then tell it.

The runner owns every decision about how a turn ends. Whatever happens, exactly one result is
committed, by us or by whoever took the turn over, and the terminal event is rendered from it (I2,
I3). Who listens is not the runner's business: it hands events to `emit` and never waits for readers.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar

from agent_gateway.backend.compose import compose
from agent_gateway.backend.protocol import Backend
from agent_gateway.backend.translate import Fold, conclude, cut_short
from agent_gateway.domain import Outcome, RunId, Turn
from agent_gateway.errors import (
    BackendError,
    BackendRefused,
    BackendUnreachable,
    RunGap,
    RunLost,
    StoreError,
    StoreUnavailable,
    TurnError,
)
from agent_gateway.events import GATEWAY_END, Result, TurnEvent, rest_of
from agent_gateway.store.turns import TurnStore

T = TypeVar("T")

STOP_SECONDS: Final = 5.0
"""How long a stopped run may take to say how it ended (R9)."""
LAST_LOOK_SECONDS: Final = 2.0
"""How long the run's log is read once more before the gateway makes an end itself (R8)."""
CANCEL_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every turn, in seconds."""

    idle_seconds: float


class TurnRunner:
    """Drives one turn that this process holds. `run` once; `stop`, `interrupt`, `lose` any time."""

    def __init__(
        self,
        turn: Turn,
        *,
        backend: Backend,
        store: TurnStore,
        limits: Limits,
        environ: Mapping[str, str],
        emit: Callable[[Sequence[TurnEvent]], None],
    ) -> None:
        self.turn = turn
        self.run_id: RunId | None = None
        self.result: Result | None = None
        """What was stored, once the turn has ended."""
        self._backend = backend
        self._store = store
        self._limits = limits
        self._environ = environ
        self._emit = emit
        self._fold = Fold()
        self._timer: asyncio.Timeout | None = None
        self._deadline = 0.0
        self._stop_by: float | None = None
        self._cut: str | None = None
        self._lost = False

    async def run(self) -> None:
        """Drive the turn to its one end. Raises only when cancelled."""
        self._deadline = asyncio.get_running_loop().time() + self.turn.seconds_left
        code = None
        try:
            async with asyncio.timeout_at(self._deadline) as self._timer:
                self._rearm()
                await self._follow_run()
        except TimeoutError:
            code = self._cut or (None if self._stop_by else "turn_timeout")
        except TurnError as error:
            code = error.code
        except BackendError as error:
            code = _code_of(error)
            logger.warning("turn %s: %s: %s", self.turn.task_id, type(error).__name__, error)
        except StoreError as error:
            code = "internal_server_error"
            logger.error("turn %s: store: %s", self.turn.task_id, error)
        except Exception:
            code = "internal_server_error"
            logger.exception("turn %s: unexpected error", self.turn.task_id)
        finally:
            self._timer = None
        await self._end(code)

    def stop(self) -> None:
        """A caller asked to stop and the store knows: give the run a moment to say how it ended."""
        if self._stop_by is None:
            self._stop_by = asyncio.get_running_loop().time() + STOP_SECONDS
            self._rearm()

    def interrupt(self) -> None:
        """The process has to go: end the turn as interrupted, now."""
        self._cut = "turn_interrupted"
        self._rearm()

    def lose(self) -> None:
        """The lease is lost: stop driving and tell what the row says (I9)."""
        self._lost = True
        self.interrupt()

    @property
    def left_running(self) -> bool:
        """True when nobody has seen the run's end: the backend may still be at work on it."""
        return self.run_id is not None and self._fold.run_end is None and not self._lost

    async def cancel_run(self) -> None:
        """Ask the backend to cancel the run, if it is known."""
        if self.run_id is not None:
            await cancel_quietly(self._backend, self.run_id)

    # -- the run ----------------------------------------------------------------------------------

    async def _follow_run(self) -> None:
        request = compose(self.turn, self._environ)
        if not await _patiently(lambda: self._store.arm(self.turn)):
            return
        run_id = self.run_id = await self._backend.create_run(request)
        if not await _patiently(lambda: self._store.running(self.turn, run_id)):
            await self.cancel_run()
            return
        if self._stop_by is not None:
            await self.cancel_run()
        async with aclosing(self._backend.stream(run_id)) as batches:
            async for batch in batches:
                self._emit(self._fold.feed(batch))
                if self._fold.run_end is not None:
                    return
                self._rearm()
        raise RunLost("the stream ended without a terminal event")

    def _rearm(self) -> None:
        """Set the timer to the next bound: the turn's, the run's silence, a stop, or at once."""
        if self._timer is None or self._timer.expired():
            return
        now = asyncio.get_running_loop().time()
        when = min(self._deadline, now + self._limits.idle_seconds)
        if self._stop_by is not None:
            when = min(when, self._stop_by)
        self._timer.reschedule(now if self._cut else when)

    # -- the end ----------------------------------------------------------------------------------

    async def _end(self, code: str | None) -> None:
        """Commit how the turn ended, then tell it (I2). `code` is why the run was not followed on."""
        result = None
        if not self._lost:
            if self._fold.run_end is None and self.run_id is not None:
                await self._last_look()
            result = await self._finish(code)
        self.result = result or await self._settled()
        self._emit(rest_of(self.result, self._fold.position))

    async def _last_look(self) -> None:
        """Read the run's log once more: a terminal event found there decides after all (R8)."""
        assert self.run_id is not None
        fold = Fold()
        told: list[TurnEvent] = []
        try:
            async with (
                asyncio.timeout(LAST_LOOK_SECONDS),
                aclosing(self._backend.stream(self.run_id)) as batches,
            ):
                async for batch in batches:
                    told += fold.feed(batch)
        except (BackendError, TimeoutError):
            pass
        except Exception:
            # What broke the fold once breaks it again; the turn must end all the same.
            logger.exception("turn %s: the last look failed", self.turn.task_id)
        if fold.run_end is not None and fold.position >= self._fold.position:
            self._emit([event for event in told if event.position > self._fold.position])
            self._fold = fold

    async def _finish(self, code: str | None) -> Result | None:
        def decide(stop_asked: bool) -> Result:
            if self._fold.run_end is not None:
                return conclude(self._fold, stop_asked=stop_asked)
            # Whoever asked to stop gets a stopped turn, whatever else went wrong meanwhile (R9).
            return cut_short(self._fold, None if stop_asked else code or "turn_interrupted")

        try:
            return await _patiently(lambda: self._store.finish(self.turn, decide))
        except Exception as error:  # noqa: BLE001 - whatever it is, the turn must end
            # Bad data: the turn fails with a minimal row (R7). Only the kind of error is logged: databases
            # quote the row they refused, with all its texts.
            logger.error("turn %s: the result was refused: %s", self.turn.task_id, type(error).__name__)
            failed = Result(Outcome.FAILED, (), (), GATEWAY_END, "internal_server_error")
            return await _patiently(lambda: self._store.finish(self.turn, lambda _: failed))

    async def _settled(self) -> Result:
        """What the rows say once somebody else ended this turn."""
        while True:
            result = await _patiently(lambda: self._store.result(self.turn.task_id))
            if result is not None:
                return result
            await _patiently(lambda: self._store.end_if_expired(self.turn.task_id))
            await asyncio.sleep(POLL_SECONDS)


async def cancel_quietly(backend: Backend, run_id: RunId) -> None:
    """Ask the backend to cancel a run, within a bound; a failure is logged, never raised."""
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            await backend.cancel(run_id)
    except (BackendError, TimeoutError) as error:
        logger.warning("run %s: cancel failed: %s", run_id, type(error).__name__)


def _code_of(error: BackendError) -> str:
    match error:
        case BackendUnreachable() | BackendRefused(status=503):
            return "service_unavailable"
        case RunLost() | RunGap():
            return "turn_interrupted"
        case _:
            return "internal_server_error"


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Do it again for as long as the database is away: a turn never ends for that reason (R7)."""
    pause = 0.1
    while True:
        try:
            return await work()
        except StoreUnavailable as error:
            logger.warning("the database is not available, trying again: %s", error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(2 * pause, 2.0)
