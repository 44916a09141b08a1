"""Compares the views of one turn's readers with its row, its run and each other."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tests.chaos.truth import GATEWAY_MADE, Row, RunTruth
from tests.chaos.view import TERMINAL, Seen, Sent, View, chunk_kind


def check_views(sent: Sent, row: Row, run: RunTruth | None) -> Iterator[str]:
    """All that is wrong with what was seen of a turn."""
    for answer in sent.answers:
        if answer != row.answer or row.outcome == "failed":
            yield f"a blocking caller got {answer[:60]!r}, the row has {row.answer[:60]!r} ({row.outcome})"
    for code in sent.failures:
        if code != row.error_code:
            yield f"a caller got {code}, the row says {row.error_code}"
    for view in sent.views:
        who = f"{view.mode}{' with ids' if view.ids else ''}{f' after {view.after}' if view.after else ''}"
        problems = [*_check_sequence(view, row), *_check_end(view, row)]
        problems += _check_text(view, row, run)
        if view.ended and view.mode != "chat" and not view.after and not row.gateway_made:
            problems += _check_steps(view, row)
        yield from (f"{who}: {problem}" for problem in problems)
    yield from _check_agreement(sent, row)


def _check_sequence(view: View, row: Row) -> Iterator[str]:
    positions = [event.position for event in view.events]
    if any(after <= before for before, after in pairwise([view.after, *positions])):
        yield f"positions do not grow: {positions}"
    ends = [event.kind for event in view.events if event.kind in TERMINAL]
    if len(ends) > 1 or (ends and view.events[-1].kind not in TERMINAL):
        yield f"not one end, or something after it: {[event.kind for event in view.events][-4:]}"
    if view.gone and not ends and view.after < row.end_position:
        yield "204, but it has not seen the end"
    for event in view.events:
        known = (event.payload["message_id"], event.payload["task_id"], event.payload["conversation_id"])
        if known[1:] != (row.task_id, row.conversation_id):
            yield f"an event of something else: {known}"


def _check_end(view: View, row: Row) -> Iterator[str]:
    if not view.ended:
        return
    end = view.events[-1]
    if end.position != row.end_position:
        yield f"the end has position {end.position}, the row {row.end_position}"
    if (end.kind == "error") != (row.outcome == "failed"):
        yield f"{end.kind}, but the turn has {row.outcome}"
    if end.kind == "error" and end.payload["code"] != row.error_code:
        yield f"sent {end.payload['code']}, stored {row.error_code}"
    if end.at < row.ended - 0.05:
        yield f"sent {row.ended - end.at:.3f} s before it was stored"


def _check_text(view: View, row: Row, run: RunTruth | None) -> Iterator[str]:
    if view.after and not _replaced(view):
        # A reader that came in the middle has the rest, no more and no less, of what it had seen.
        if view.ended and not row.answer.endswith(view.text) and not row.gateway_made:
            yield f"not a rest of the answer: {view.text[:80]!r}"
        return
    said = run.text if run and run.text else row.answer
    if view.ended and view.text != row.answer:
        shown, stored = view.text, row.answer
        yield f"shows {len(shown)} characters, …{shown[-60:]!r}; stored {len(stored)}, …{stored[-60:]!r}"
    elif not view.ended and not said.startswith(view.text) and not row.answer.startswith(view.text):
        yield f"shows text that is not in the answer: {view.text[-80:]!r}"
    for event in view.events:
        if event.kind == "message" and view.mode == "agent" and event.payload["answer"] != row.answer:
            yield "the closing message is not the answer"


def _replaced(view: View) -> bool:
    return any(event.kind == "message_replace" for event in view.events)


def _check_steps(view: View, row: Row) -> Iterator[str]:
    if _replaced(view):
        return
    fields = ("thought", "tool", "tool_input", "observation")
    shown: dict[int, tuple[Any, ...]] = {}
    for event in view.events:
        if event.kind == "agent_thought":
            shown[event.payload["position"]] = tuple(event.payload[field] for field in fields)
    stored = {step["number"]: tuple(step[field] for field in fields) for step in row.steps}
    if shown != stored:
        yield f"shows steps {shown}, stored {stored}"


def _check_agreement(sent: Sent, row: Row) -> Iterator[str]:
    """One position, one event: the same for every reader, at every process, at any time (I8)."""
    told: dict[tuple[str, int], str] = {}
    for view in sent.views:
        for event in view.events:
            if event.kind == "message_replace" and event.position < GATEWAY_MADE:
                continue
            key, said = (view.mode, event.position), json.dumps(event.payload, sort_keys=True)
            if (
                view.mode == "agent"
                and event.kind in ("message", "message_replace")
                and event.position > GATEWAY_MADE
            ):
                # The text told as a whole has the place of the closing message, and has to be the same text.
                said = event.payload["answer"]
            if told.setdefault(key, said) != said:
                yield f"position {event.position} is two events: {told[key][:200]} / {said[:200]}"
    yield from _check_completeness(sent, row)


def _check_completeness(sent: Sent, row: Row) -> Iterator[str]:
    """A reader that has seen the end has seen every chunk that any other has, beyond its cursor."""
    if row.gateway_made:
        return
    chunks: dict[int, Seen] = {}
    for view in sent.views:
        chunks |= {event.position: event for event in view.events if event.kind == chunk_kind(view.mode)}
    for view in sent.views:
        if view.ended and not _replaced(view):
            mine = {event.position for event in view.events}
            if missed := sorted(set(chunks) - mine - set(range(view.after + 1))):
                yield f"{view.mode} after {view.after} missed positions {missed}"
