"""How a turn ends: decided by the terminal event of its run, or by the gateway when there is none."""

from collections.abc import Sequence
from dataclasses import replace

from agent_gateway.backend.fold.artifacts import number_artifacts
from agent_gateway.backend.fold.terminal import RunEnd
from agent_gateway.backend.fold.translate import Fold
from agent_gateway.causes import Failure
from agent_gateway.domain.events import GATEWAY_REPLACE, Result, gateway_end, split_text
from agent_gateway.domain.files import StoredFile
from agent_gateway.domain.turns import Outcome


def conclude(
    fold: Fold, *, stop_asked: bool, files: Sequence[StoredFile] = (), said: str | None = None
) -> Result:
    """The end that the terminal run event decides. `stop_asked`: the turn's stop_at was set first (R9).

    `files` are those artifacts of the fold that were stored; `said` is its answer, where that is known.
    """
    end = fold.run_end
    assert end is not None
    chunks, position = tuple(fold.chunks), fold.position
    outcome, failure = _outcome(end, stop_asked=stop_asked)
    text = end.text if outcome is Outcome.COMPLETED else ""
    question = end.question if outcome is Outcome.COMPLETED else None
    if question and chunks and text:
        text = "\n\n" + text
    if text and (question or not chunks):
        pieces = split_text(text, position + 1)
        chunks += tuple(pieces)
        position += len(pieces)
        said = None if said is None else said + text
    made = number_artifacts(files, position)
    return Result(
        outcome=outcome,
        chunks=chunks,
        steps=tuple(fold.steps),
        files=made,
        # The position before message_end belongs to the closing message, in every app mode (R1). The form of
        # a question comes before that.
        end_position=position + len(made) + (1 if outcome is Outcome.FAILED else 3 if question else 2),
        error_code=failure.code if failure else None,
        cause=failure.cause if failure else None,
        usage=end.usage,
        finish_reason=end.finish_reason,
        # No later turn can continue from an open question: the snapshot from before it stays.
        snapshot=None if end.question else end.snapshot,
        question=replace(question, snapshot=end.snapshot) if question else None,
        text=said,
    )


def cut_short(fold: Fold, failure: Failure | None, files: Sequence[StoredFile] = ()) -> Result:
    """An end that the gateway makes itself: failed, or stopped when there is no failure (R8).

    Half of a character that is held back is left out: in another process, a reader may already have the whole
    character at the next position.
    """
    return Result(
        outcome=Outcome.FAILED if failure else Outcome.STOPPED,
        chunks=tuple(fold.chunks),
        steps=tuple(fold.steps),
        files=number_artifacts(files, GATEWAY_REPLACE),
        end_position=gateway_end(len(files)),
        error_code=failure.code if failure else None,
        cause=failure.cause if failure else None,
    )


def _outcome(end: RunEnd, *, stop_asked: bool) -> tuple[Outcome, Failure | None]:
    if end.type == "run_succeeded" and not (end.question and stop_asked):
        return Outcome.COMPLETED, None
    if stop_asked:
        return Outcome.STOPPED, None
    return Outcome.FAILED, end.failure
