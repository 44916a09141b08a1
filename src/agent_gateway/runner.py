"""One turn: create the run, fold its events, save the outcome, then tell it.

A runner either owns its turn or follows it. Both fold the same run into the same log; only the
owner creates the run, keeps the deadlines and commits the result. It can change sides at any time
(`adopt`, `lose`) and its readers stay. Whatever happens, exactly one result is committed, by us or by
another process, and the terminal event is rendered from it (I2, I3, R2).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from structlog.contextvars import bind_contextvars

from agent_gateway.backend.compose import compose
from agent_gateway.backend.fold.artifacts import Artifact, as_stored
from agent_gateway.backend.fold.conclusion import conclude, cut_short
from agent_gateway.backend.fold.reasons import cause
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import Backend
from agent_gateway.backend.shown_files import to_be_shown
from agent_gateway.domain.events import (
    GATEWAY_END,
    Endings,
    FormAnswered,
    MessageReplace,
    Result,
    TurnEvent,
    rest_of,
)
from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import Outcome, Turn, TurnState
from agent_gateway.errors import (
    BackendError,
    BackendRefused,
    BackendUnreachable,
    GatewayError,
    ObjectError,
    ObjectsUnavailable,
    RunGap,
    RunLost,
    StoreError,
    TurnError,
)
from agent_gateway.limits import TurnLimits
from agent_gateway.retry import retry_while
from agent_gateway.store.files import FileStore
from agent_gateway.store.turns.stores import TurnStores

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """What all turns of a process are run with."""

    backend: Backend
    store: TurnStores
    files: FileStore
    limits: TurnLimits
    idle_seconds: float
    """How long a run may say nothing."""
    environ: Mapping[str, str]
    file_url: Callable[[str], str]
    """Makes the URL under which an agent gets the stored file of that id."""


class TurnRunner:
    """Drives or follows one turn. `run` once; everything else any time."""

    def __init__(
        self,
        turn: Turn,
        *,
        owned: bool,
        resources: Resources,
        emit: Callable[[Sequence[TurnEvent]], None],
    ) -> None:
        self.turn = turn
        self.owned = owned
        self.run_id = turn.run_id
        self.result: Result | None = None
        """What was stored, once the turn has ended."""
        self._resources = resources
        self._backend = resources.backend
        self._store = resources.store
        self._limits = resources.limits
        self._emit = emit
        self._fold = Fold(version=turn.fold_version)
        self._sending = False
        self._creation: asyncio.Future[RunId] | None = None
        self._saved = 0
        """Position up to which the fold is stored as a checkpoint."""
        self._dumped = 0
        """The same of the checkpoint that was taken last, stored or not."""
        self._timer: asyncio.Timeout | None = None
        self._deadline = 0.0
        self._stop_by: float | None = None
        self._interrupted = False
        self._turned = False
        """Ownership or the row changed: what is going on has to be looked at anew."""
        self._news = asyncio.Event()
        self._saw_run_end = False

    async def run(self) -> None:
        """Drive or follow the turn to its one end. Raises only when cancelled."""
        # This task is the turn's own: all that is logged in it says so.
        bind_contextvars(task_id=self.turn.task_id)
        while self.result is None:
            self._turned = False
            self._open()
            if self.owned:
                await self._drive()
            else:
                await self._follow()

    @property
    def position(self) -> int:
        """Position of the last event of the run that was folded."""
        return self._fold.position

    @property
    def ending(self) -> bool:
        """True when how the turn ends is decided and being stored."""
        return self._fold.run_end is not None or self._timer is None

    @property
    def sending(self) -> bool:
        """True between arming the row and knowing the run's id: no moment to hand over (R4)."""
        return self._sending

    def checkpoint(self) -> bytes | None:
        """The fold's whole state, or None when there is nothing new to keep (R5)."""
        if self._fold.run_end is not None or self._fold.position <= self._saved:
            return None
        self._dumped = self._fold.position
        return self._fold.dump()

    def checkpointed(self) -> None:
        """The checkpoint that was taken last is stored."""
        self._saved = self._dumped

    @property
    def stopping(self) -> bool:
        """True once this runner knows that a stop was asked for."""
        return self._stop_by is not None

    def stop(self) -> None:
        """A caller asked to stop and the store knows: give the run a moment to say how it ended."""
        if self._stop_by is None:
            self._stop_by = asyncio.get_running_loop().time() + self._limits.stop_seconds
            self._rearm()

    def interrupt(self) -> None:
        """The process has to go and nobody can take over: end the turn as interrupted, now."""
        self._interrupted = True
        self._rearm()

    def adopt(self, turn: Turn) -> None:
        """The turn is ours now, under a new epoch."""
        self.turn, self.owned = turn, True
        self.run_id = turn.run_id or self.run_id
        self._turn_round()

    def lose(self) -> None:
        """The turn is no longer ours: follow it; a write of ours would change nothing (I9)."""
        if self.owned:
            self.owned = False
            self._turn_round()

    def see(self, run_id: RunId | None, *, ended: bool) -> None:
        """What the row of a turn that we follow says now."""
        if self.owned or self.result is not None:
            return
        if self.run_id is None and run_id is not None:
            self.run_id = run_id
            self._news.set()
        if ended:
            self._turn_round()

    def look(self) -> None:
        """The row of a turn that we follow may have changed: look at it now."""
        if not self.owned:
            self._turn_round()

    async def clean_up(self) -> None:
        """After the end was told and `slim`: cancel a run that we ended without having seen its end.

        Who ended the turn tries first, being the only one who can when the run is held in its memory;
        the outbox tries again (R8).
        """
        if not self.owned or self.result is None or self._saw_run_end:
            return
        if self.run_id is None and self._creation is not None:
            # No further attempt; one that is on its way is waited for, for its run would be nobody's.
            self._creation.cancel()
            try:
                async with asyncio.timeout(self._limits.cancel_seconds):
                    self.run_id = await self._creation
            except (BackendError, TurnError, TimeoutError, asyncio.CancelledError):
                return
        if self.run_id is not None:
            await self._cancel_for_good(self.run_id)

    def slim(self) -> None:
        """Let go of what only a running turn needs; its log and result stay for late readers."""
        self.turn = replace(self.turn, query="", inputs={}, files=[], snapshot=None, checkpoint=None)
        if self.result is not None:
            self.result = replace(self.result, snapshot=None)
        self._saw_run_end = self._fold.run_end is not None
        self._fold.run_end = None
        self._fold.chunks.clear()
        self._fold.files.clear()

    async def cancel_run(self) -> None:
        """Ask the backend to cancel the run, if it is known."""
        if self.run_id is not None:
            await cancel_quietly(self._backend, self.run_id, self._limits.cancel_seconds)

    async def _cancel_for_good(self, run_id: RunId) -> None:
        done = await cancel_quietly(self._backend, run_id, self._limits.cancel_seconds)
        await self._store.outbox.cancel_tried(self.turn, run_id, done=done)

    def _open(self) -> None:
        """What a human answered comes before all that the run says, and is decided already."""
        if self.turn.form is not None and self._fold.position == 0:
            self._fold = Fold(self.turn.opening, self.turn.fold_version)
            self._emit([FormAnswered(self.turn.opening, self.turn.form)])

    def _turn_round(self) -> None:
        self._turned = True
        self._news.set()
        self._rearm()

    # -- owning -----------------------------------------------------------------------------------

    async def _drive(self) -> None:
        self._deadline = asyncio.get_running_loop().time() + self.turn.seconds_left
        if self.turn.stop_asked:
            self.stop()
        code = await self._bounded(self._do_run)
        if not self.owned or (self._turned and self._fold.run_end is None):
            return
        turn = self.turn
        result = await self._finish_with(turn, code)
        if result is not None:
            self._log_failure(result)
            self._tell(result)
        elif self.turn.epoch == turn.epoch:
            self.owned = False

    def _log_failure(self, result: Result) -> None:
        end = self._fold.run_end
        if end is not None and result.outcome is Outcome.FAILED:
            why = cause(end.error_type, end.reason) if end.type == "run_failed" else end.type
            logger.warning("turn %s: its run %s failed: %s", self.turn.task_id, self.run_id, why)

    async def _bounded(self, work: Callable[[], Awaitable[str | None]]) -> str | None:
        """Do this within the turn's bounds; the code of what went wrong, or None."""
        try:
            async with asyncio.timeout(None) as self._timer:
                self._rearm()
                return await work()
        except TimeoutError:
            return None if self._stop_by and not self._interrupted else self._why_cut()
        except TurnError as error:
            return error.code
        except BackendError as error:
            logger.warning("turn %s: %s: %s", self.turn.task_id, type(error).__name__, error)
            return _code_of(error)
        except StoreError as error:
            logger.error("turn %s: store: %s", self.turn.task_id, error)
            return "internal_server_error"
        except Exception:
            logger.exception("turn %s: unexpected error", self.turn.task_id)
            return "internal_server_error"
        finally:
            self._timer = None

    def _why_cut(self) -> str:
        return "turn_interrupted" if self._interrupted else "turn_timeout"

    async def _do_run(self) -> str | None:
        if not self.turn.runnable:
            self._restore()
            return "turn_interrupted"
        if self.run_id is None:
            if self.turn.state is TurnState.SENDING:
                # Whoever armed it may have created a run that nobody knows: never a second one (R4).
                return "turn_interrupted"
            if not await self._create_run():
                return None
        if self.stopping:
            await self.cancel_run()
        await self._fold_run()
        return None

    async def _create_run(self) -> bool:
        request = compose(self.turn, self._resources.environ, self._resources.file_url, await self._images())
        self._sending = True
        try:
            if not await self._store.retried(lambda: self._store.owned.arm(self.turn)):
                return False
            # A task of its own: a request that is cut leaves a run that nobody knows (R4).
            self._creation = asyncio.ensure_future(self._backend.create_run(request))
            run_id = await asyncio.shield(self._creation)
            stop_asked = await self._store.retried(lambda: self._store.owned.mark_running(self.turn, run_id))
            if stop_asked is None:
                # Not ours any more. The run is nobody's, unless a write that stored it lost its answer.
                stored = await self._store.retried(lambda: self._store.reader.load(self.turn.task_id))
                if stored is None or stored.run_id != run_id:
                    await self._cancel_for_good(run_id)
                return False
        finally:
            self._sending = False
        self.run_id = run_id
        if stop_asked:
            self.stop()
        return True

    async def _images(self) -> dict[str, bytes]:
        """The bytes of the images that the model is to see; one that can not be read is sent as a URL."""
        wanted = to_be_shown(self.turn.app.config.composition, self.turn.files)
        images: dict[str, bytes] = {}
        try:
            async with asyncio.timeout(self._limits.read_images_seconds):
                for file_id in wanted:
                    try:
                        images[file_id] = await self._resources.files.read_all(file_id)
                    except (GatewayError, ObjectError, StoreError) as error:
                        kind = type(error).__name__
                        logger.warning("turn %s: an image is sent as a URL: %s", self.turn.task_id, kind)
        except TimeoutError:
            logger.warning("turn %s: images are sent as URLs: the file store is slow", self.turn.task_id)
        return images

    def _rearm(self) -> None:
        """Set the timer to the next bound: the turn's, the run's silence, a stop, or at once."""
        if self._timer is None or self._timer.expired():
            return
        now = asyncio.get_running_loop().time()
        if (self._turned and not self._sending) or self._interrupted:
            self._timer.reschedule(now)
        elif self.owned:
            when = min(self._deadline, now + self._resources.idle_seconds)
            self._timer.reschedule(when if self._stop_by is None else min(when, self._stop_by))

    async def _finish_with(self, turn: Turn, code: str | None) -> Result | None:
        """Commit how the turn ended (R7, R8); None when it is not ours to end."""
        if self._fold.run_end is None and self.run_id is not None and turn.runnable:
            await self._last_look()
        files = await self._keep_files()

        try:
            return await self._store_end(turn, self._endings(code, files))
        except Exception as error:  # noqa: BLE001 - whatever it is, the turn must end
            # Bad data: the turn fails with a minimal row (R7). Only the kind of error is logged: databases
            # quote the row they refused, with all its texts.
            logger.error("turn %s: the result was refused: %s", self.turn.task_id, type(error).__name__)
            failed = Result(Outcome.FAILED, (), (), GATEWAY_END, "internal_server_error")
            return await self._store_end(turn, Endings.always(failed))

    def _endings(self, code: str | None, files: Sequence[StoredFile]) -> Endings:
        """How the turn ends; `code` says what went wrong if its run has no end of its own."""
        if self._fold.run_end is not None:
            normal = conclude(self._fold, stop_asked=False, files=files)
            return Endings(normal, conclude(self._fold, stop_asked=True, files=files))
        # A caller that asked to stop gets a stopped turn, even if something else went wrong meanwhile (R9).
        normal = cut_short(self._fold, code or "turn_interrupted", files)
        return Endings(normal, if_stopped=cut_short(self._fold, None, files))

    async def _store_end(self, turn: Turn, endings: Endings) -> Result | None:
        """Commit the end for as long as the turn is ours; None once it is not.

        Whoever has it then tells its end, and our readers must hear that although we could not write.
        """
        storing = asyncio.ensure_future(self._store.retried(lambda: self._store.owned.finish(turn, endings)))
        storing.add_done_callback(lambda _: self._news.set())
        try:
            while not storing.done():
                self._news.clear()
                if not self.owned or self.turn is not turn:
                    return None
                await self._news.wait()
            return storing.result()
        finally:
            storing.cancel()

    async def _keep_files(self) -> list[StoredFile]:
        """Store what the agent made (R7); those of its files that could be stored, in order."""
        if self._fold.files_left_out:
            logger.warning("turn %s: %d files were left out", self.turn.task_id, self._fold.files_left_out)
        kept = await asyncio.gather(*(self._keep_file(file) for file in self._fold.files))
        return [file for file in kept if file is not None]

    async def _keep_file(self, made: Artifact) -> StoredFile | None:
        file = as_stored(made, self.turn.message_id)
        if file.url:
            return file
        try:
            async with asyncio.timeout(self._limits.store_file_seconds):
                await retry_while(
                    ObjectsUnavailable,
                    lambda: self._resources.files.keep(self.turn.created_at, file.id, made.data),
                    "the file store",
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, the turn must end
            kind = type(error).__name__
            logger.error("turn %s: its file %d could not be stored: %s", self.turn.task_id, made.number, kind)
            return None
        return file

    async def _last_look(self) -> None:
        """Read the run's log once more: a terminal event found there decides after all (R8)."""
        assert self.run_id is not None
        fold = Fold(self.turn.opening, self.turn.fold_version)
        told: list[TurnEvent] = []
        try:
            async with asyncio.timeout(self._limits.final_read_seconds):
                async with aclosing(self._backend.stream(self.run_id)) as batches:
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

    # -- following --------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Tell what the run says, then what the row says; until it has ended or the turn is ours."""
        looks, watching = 0, self._backend.replayable and self.turn.runnable
        while not self.owned:
            self._turned = False
            # Before the row is read: news that come meanwhile must end the wait below.
            self._news.clear()
            result = await self._store.retried(lambda: self._store.reader.result(self.turn.task_id))
            if result is not None:
                self._tell(result)
                return
            if watching and self._fold.run_end is None:
                failed = await self._bounded(self._watch_run)
                watching = failed is None or self._turned
                continue
            # The end is usually committed within moments of the run's; then the statuses, read once
            # a second for all followed turns together, bring the news.
            await self._wait_for_news(min(0.05 * 2 ** min(looks, 10), self._limits.recheck_seconds))
            looks += 1

    async def _watch_run(self) -> str | None:
        while self.run_id is None:
            self._news.clear()
            await self._wait_for_news(None)
        await self._leave_queue()
        await self._fold_run()
        return None

    async def _leave_queue(self) -> None:
        """What a turn goes on from, and whose answer it carries, was decided when it left the queue."""
        if self.turn.state is not TurnState.QUEUED:
            return
        stored = await self._store.retried(lambda: self._store.reader.load(self.turn.task_id))
        if stored is not None and not self.owned:
            self.turn = stored
            self._open()

    async def _wait_for_news(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    # -- both -------------------------------------------------------------------------------------

    async def _fold_run(self) -> None:
        """Fold the run's events from where the fold stands until its terminal one."""
        if self._fold.run_end is not None:
            return
        bind_contextvars(run_id=self.run_id)
        try:
            await self._fold_stream()
        except RunGap:
            if not await self._restore_from_row():
                raise
            await self._fold_stream()

    async def _fold_stream(self) -> None:
        assert self.run_id is not None
        async with aclosing(self._backend.stream(self.run_id, self._fold.cursors)) as batches:
            async for batch in batches:
                self._emit(self._fold.feed(batch))
                if self._fold.run_end is not None:
                    return
                self._rearm()
        raise RunLost("the stream ended without a terminal event")

    async def _restore_from_row(self) -> bool:
        stored = await self._store.retried(lambda: self._store.reader.load(self.turn.task_id))
        if stored is None or stored.checkpoint is None:
            return False
        self.turn = self.turn if self.owned else stored
        return self._restore(stored.checkpoint)

    def _restore(self, checkpoint: bytes | None = None) -> bool:
        """Go on from a stored fold state that is further than ours; its text is told as a whole (R5)."""
        checkpoint = checkpoint or self.turn.checkpoint
        if checkpoint is None:
            return False
        fold = Fold.load(checkpoint, self.turn.fold_version)
        if fold.position <= self._fold.position:
            return False
        self._fold = fold
        self._emit([MessageReplace(fold.position, fold.answer, "past_lost")])
        return True

    def _tell(self, result: Result) -> None:
        self._emit(rest_of(result, self._fold.position))
        self.result = result


async def cancel_quietly(backend: Backend, run_id: RunId, seconds: float) -> bool:
    """Ask the backend to cancel a run, within a bound; a failure is logged and False, never raised."""
    try:
        async with asyncio.timeout(seconds):
            await backend.cancel(run_id)
    except Exception as error:  # noqa: BLE001 - in a task group, one failure would end every turn
        logger.warning("run %s: cancel failed: %s", run_id, type(error).__name__)
        return False
    return True


def _code_of(error: BackendError) -> str:
    match error:
        case BackendUnreachable() | BackendRefused(status=503 | 429 | 425 | 408):
            return "service_unavailable"
        case RunLost() | RunGap():
            return "turn_interrupted"
        case _:
            return "internal_server_error"
