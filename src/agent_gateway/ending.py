"""How a turn comes to its end: the final read of its run, its files, the commit (R7, R8)."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agent_gateway.backend.fold.artifacts import Artifact, as_stored
from agent_gateway.backend.fold.conclusion import conclude, cut_short
from agent_gateway.backend.fold.reasons import cause
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.backend.protocol import Backend, RunEvent
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

logger = logging.getLogger(__name__)


def failure_code(error: Exception, turn: Turn) -> str:
    """The failure code of a turn that met this error. The error is logged."""
    match error:
        case TurnError():
            return error.code
        case BackendError():
            logger.warning("%s: %s", type(error).__name__, error)
            return _backend_code(error)
        case StoreError():
            logger.error("store: %s", error)
        case _:
            logger.error("unexpected error", exc_info=error)
    return "internal_server_error"


def _backend_code(error: BackendError) -> str:
    match error:
        case BackendUnreachable() | BackendRefused(status=503 | 429 | 425 | 408):
            return "service_unavailable"
        case RunLost() | RunGap():
            return "turn_interrupted"
        case _:
            return "internal_server_error"


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a turn of ours that is not committed yet."""

    turn: Turn
    """The turn when its work ended. The commit uses its epoch."""
    run_id: RunId | None
    code: str | None
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
    result = await _commit_whatever(resources.store, ending, folding.fold, files)
    end = folding.fold.run_end
    if result is not None and result.outcome is Outcome.FAILED and end is not None:
        why = cause(end.error_type, end.reason) if end.type == "run_failed" else end.type
        logger.warning("the run failed: %s", why, extra={"run_id": ending.run_id})
    return result


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


async def _endings(fold: Fold, code: str | None, files: Sequence[StoredFile]) -> Endings:
    """How a turn ends; in a thread when its answer has many pieces, so that the event loop is not held up."""
    if len(fold.chunks) < MANY_CHUNKS:
        return _make_endings(fold, code, files)
    return await asyncio.to_thread(_make_endings, fold, code, files)


def _make_endings(fold: Fold, code: str | None, files: Sequence[StoredFile]) -> Endings:
    """How a turn ends; `code` says what went wrong if its run has no end of its own."""
    if fold.run_end is not None:
        said = fold.answer
        normal = conclude(fold, stop_asked=False, files=files, said=said)
        return Endings(normal, conclude(fold, stop_asked=True, files=files, said=said))
    # A caller that asked to stop gets a stopped turn, even if something else went wrong meanwhile (R9).
    normal = cut_short(fold, code or "turn_interrupted", files)
    return Endings(normal, if_stopped=cut_short(fold, None, files))


async def _commit_whatever(
    store: TurnStores, ending: Ending, fold: Fold, files: Sequence[StoredFile]
) -> Result | None:
    """Commit the end, or a minimal one when it cannot be made or the database refuses it (R7)."""
    try:
        return await _commit(store, ending, await _endings(fold, ending.code, files))
    except Exception as error:  # noqa: BLE001 - whatever it is, the turn must end
        # Bad data. Only the kind of error is logged: databases quote the row they refused, with its texts.
        logger.error("the result was refused: %s", type(error).__name__)
        failed = Result(Outcome.FAILED, (), (), GATEWAY_END, "internal_server_error")
        return await _commit(store, ending, Endings.always(failed))


async def _commit(store: TurnStores, ending: Ending, endings: Endings) -> Result | None:
    """Commit for as long as the turn is ours.

    Once it is not, another process commits its end, and our readers must hear of that even though we cannot
    write.
    """
    storing = asyncio.ensure_future(store.owner_retried(lambda: store.owned.finish(ending.turn, endings)))
    storing.add_done_callback(lambda _: ending.changed.set())
    try:
        while not storing.done():
            ending.changed.clear()
            if not ending.is_ours():
                return None
            await ending.changed.wait()
        return storing.result()
    finally:
        storing.cancel()
