"""How a turn comes to its end: the final read of its run, its files, the commit (R7, R8)."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agent_gateway.backend.fold.artifacts import Artifact, as_stored
from agent_gateway.backend.fold.conclusion import conclude, cut_short
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import Backend, RunEvent
from agent_gateway.bounds import interrupted
from agent_gateway.causes import Cause, Failure
from agent_gateway.domain.events import GATEWAY_END, Endings, Result, TurnEvent
from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.ids import RunId
from agent_gateway.domain.turns import Outcome, Turn
from agent_gateway.errors import (
    BackendError,
    BackendRefused,
    BackendUnreachable,
    ObjectsUnavailable,
    RunGap,
    RunLost,
    StoreError,
    TurnError,
)
from agent_gateway.retry import retry_while
from agent_gateway.run_folding import Folding
from agent_gateway.store.files import FileStore
from agent_gateway.store.turns.stores import TurnStores
from agent_gateway.turn_resources import Resources

MANY_CHUNKS: Final = 50_000
"""Pieces of an answer that are joined in a thread: 50,000 take a few milliseconds."""
ANSWER_SECONDS: Final = 1.0
"""How long a commit may still take whose turn is no longer ours."""

logger = logging.getLogger(__name__)


def failure_of(error: Exception) -> Failure:
    """The failure of a turn that met this error. An unexpected one is logged here, with its traceback."""
    match error:
        case TurnError():
            return Failure(error.code, error.cause)
        case BackendError():
            return _backend_failure(error)
        case StoreError():
            return Failure("internal_server_error", Cause(type(error).__name__, said=str(error)))
        case _:
            logger.error("unexpected error", exc_info=error)
            return Failure("internal_server_error", Cause(type(error).__name__))


def _backend_failure(error: BackendError) -> Failure:
    kind = type(error).__name__
    if not isinstance(error, BackendRefused):
        # The texts of these errors are the gateway's own.
        code = _BACKEND_CODES.get(type(error), "internal_server_error")
        return Failure(code, Cause(kind, said=str(error)))
    cause = Cause(kind, error.status, error.said, error.mistakes)
    if error.status in _PASSING:
        return Failure("service_unavailable", cause)
    return Failure("backend_refused" if 400 <= error.status < 500 else "internal_server_error", cause)


_PASSING: Final = frozenset({503, 429, 425, 408})
_BACKEND_CODES: Final[dict[type[BackendError], str]] = {
    BackendUnreachable: "service_unavailable",
    RunLost: "turn_interrupted",
    RunGap: "turn_interrupted",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a turn of ours that is not committed yet."""

    turn: Turn
    """The turn when its work ended. The commit uses its epoch."""
    run_id: RunId | None
    failure: Failure | None
    """What went wrong, unless the run has an end of its own."""
    is_ours: Callable[[], bool]
    """False once another process has the turn."""
    changed: asyncio.Event
    """Set when `is_ours` may have changed."""


async def end_turn(resources: Resources, ending: Ending, folding: Folding) -> Result | None:
    """Commit how the turn ended; None when it is not ours to end."""
    turn, limits = ending.turn, resources.limits
    if not folding.run_has_ended and ending.run_id is not None and turn.runnable:
        fold, events = await _final_read(resources.backend, ending.run_id, turn, limits.final_read_seconds)
        if fold.run_end is not None and fold.position >= folding.fold.position:
            folding.continue_with(fold, events)
    files = await _store_artifacts(resources.files, turn, folding.fold, limits.store_file_seconds)
    return await _commit_whatever(resources.store, ending, folding.fold, files)


async def _final_read(
    backend: Backend, run_id: RunId, turn: Turn, seconds: float
) -> tuple[Fold, list[TurnEvent]]:
    """Fold the run's log once more from its start: a terminal event found there decides after all (R8)."""
    fold = Fold(turn.opening, turn.fold_version)
    events: list[TurnEvent] = []

    def feed(read: list[RunEvent]) -> None:
        events.extend(fold.feed(read))

    try:
        async with asyncio.timeout(seconds):
            await backend.stream(run_id, feed)
    except (BackendError, TimeoutError):
        pass
    except Exception:
        # What broke the fold once breaks it again. The turn must end nevertheless.
        logger.exception("the final read failed")
    return fold, events


async def _store_artifacts(files: FileStore, turn: Turn, fold: Fold, seconds: float) -> list[StoredFile]:
    """Store what the agent made (R7); those of its files that could be stored, in order."""
    if fold.files_left_out:
        logger.warning("%d files were left out", fold.files_left_out)
    if not fold.files:
        return []
    stored = await asyncio.gather(*(_store_artifact(files, turn, made, seconds) for made in fold.files))
    return [file for file in stored if file is not None]


async def _store_artifact(files: FileStore, turn: Turn, made: Artifact, seconds: float) -> StoredFile | None:
    file = as_stored(made, turn.message_id)
    if file.url:
        return file
    try:
        async with asyncio.timeout(seconds):
            await retry_while(
                ObjectsUnavailable,
                lambda: files.put_artifact(turn.created_at, file.id, made.data),
                "the file store",
            )
    except Exception as error:  # noqa: BLE001 - whatever it is, the turn must end
        kind = type(error).__name__
        logger.error("file %d could not be stored: %s", made.number, kind)
        return None
    return file


async def _endings(fold: Fold, failure: Failure | None, files: Sequence[StoredFile]) -> Endings:
    """How a turn ends; in a thread when its answer has many pieces, so that the event loop is not held up."""
    if len(fold.chunks) < MANY_CHUNKS:
        return _make_endings(fold, failure, files)
    return await asyncio.to_thread(_make_endings, fold, failure, files)


def _make_endings(fold: Fold, failure: Failure | None, files: Sequence[StoredFile]) -> Endings:
    """How a turn ends; `failure` is what went wrong if its run has no end of its own."""
    if fold.run_end is not None:
        said = fold.answer
        normal = conclude(fold, stop_asked=False, files=files, said=said)
        return Endings(normal, conclude(fold, stop_asked=True, files=files, said=said))
    # A caller that asked to stop gets a stopped turn, even if something else went wrong meanwhile (R9).
    normal = cut_short(fold, failure or interrupted("RunEndless", "the run did not say how it ended"), files)
    return Endings(normal, if_stopped=cut_short(fold, None, files))


async def _commit_whatever(
    store: TurnStores, ending: Ending, fold: Fold, files: Sequence[StoredFile]
) -> Result | None:
    """Commit the end, or a minimal one when it cannot be made or the database refuses it (R7)."""
    try:
        return await _commit(store, ending, await _endings(fold, ending.failure, files))
    except Exception as error:  # noqa: BLE001 - whatever it is, the turn must end
        # Bad data. Only the kind of error is logged: databases quote the row they refused, with its texts.
        logger.error("the result was refused: %s", type(error).__name__)
        cause = Cause("ResultRefused", said=type(error).__name__)
        failed = Result(Outcome.FAILED, (), (), GATEWAY_END, "internal_server_error", cause=cause)
        return await _commit(store, ending, Endings.always(failed))


async def _commit(store: TurnStores, ending: Ending, endings: Endings) -> Result | None:
    """Commit for as long as the turn is ours.

    Once it is not, another process commits its end, and our readers must hear of that even though we cannot
    write. But a heartbeat may also have met a turn that this commit has just ended: its answer is on its way.
    """
    storing = asyncio.ensure_future(store.owner_retried(lambda: store.owned.finish(ending.turn, endings)))
    storing.add_done_callback(lambda _: ending.changed.set())
    try:
        while not storing.done():
            ending.changed.clear()
            if not ending.is_ours():
                await asyncio.wait([storing], timeout=ANSWER_SECONDS)
                return storing.result() if storing.done() else None
            await ending.changed.wait()
        return storing.result()
    finally:
        storing.cancel()
