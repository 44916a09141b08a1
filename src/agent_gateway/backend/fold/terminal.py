"""The terminal event of a run, read leniently."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec

from agent_gateway.backend.fold.question import read_question
from agent_gateway.backend.fold.reasons import failure_of, misses_model
from agent_gateway.backend.lenient import UNREADABLE, as_str, read_object
from agent_gateway.backend.protocol import RunEvent
from agent_gateway.causes import Cause, Failure
from agent_gateway.domain.human_input import Question
from agent_gateway.domain.text import clean_json, clean_text
from agent_gateway.domain.turns import Usage

_USAGE_FIELDS: Final = msgspec.structs.fields(Usage)
FINISH_REASONS: Final = frozenset({"stop", "length", "content_filter", "tool_call", "error"})
_FINISH: Final = re.compile(r'"finish_reason":\s*"([a-z_]{1,16})"')
_DECIMAL: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,30})?")


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The terminal event of a run, read leniently."""

    type: str
    text: str = ""
    """Output as text, or the question when the run asks a human."""
    question: Question | None = None
    failure: Failure | None = None
    """Why it failed. Nothing else of the error's text is kept."""
    misses_model: bool = False
    """It failed because its composition has no model."""
    usage: Usage | None = None
    snapshot: str | None = None
    finish_reason: str | None = None
    """Why the model stopped answering, one of FINISH_REASONS; None when the run does not say."""


class _RunEndData(msgspec.Struct):
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    deferred_tool_call: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    session_snapshot: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    finish_reason: Any = None
    error_type: Any = None
    reason: Any = None
    cause: Any = None
    error: Any = None


_run_end_data = msgspec.json.Decoder(_RunEndData)


def read_run_end(event: RunEvent) -> RunEnd:
    """Read a terminal run event; missing and malformed parts are left out."""
    data = _read(event.data)
    # An unreadable question is still a question: no later turn may continue from its snapshot.
    asks = _raw_text(data.deferred_tool_call) not in ("", "null")
    question = read_question(read_object(data.deferred_tool_call)) if asks else None
    snapshot = _raw_text(data.session_snapshot)
    return RunEnd(
        type=event.type,
        text=question.text if question else _output_text(data.output),
        question=question,
        failure=_failure(event.type, data),
        misses_model=misses_model(as_str(data.error)),
        usage=read_usage(read_object(data.usage)),
        snapshot=snapshot if snapshot.startswith("{") else None,
        # The snapshot of a run that did not succeed may end with the answer of the turn before.
        finish_reason=_finish_reason(
            as_str(data.finish_reason), snapshot if event.type == "run_succeeded" else ""
        ),
    )


def _failure(kind: str, data: _RunEndData) -> Failure | None:
    match kind:
        case "run_failed":
            return failure_of(
                as_str(data.error_type) or None,
                as_str(data.reason) or None,
                as_str(data.error),
                clean_text(as_str(data.cause)),
            )
        case "run_cancelled":
            return Failure("turn_interrupted", Cause(kind, said="the backend cancelled the run by itself"))
        case _:
            return None


def _finish_reason(given: str, snapshot: str) -> str | None:
    """The reason that the run gives, or else that of the last answer in its session snapshot."""
    if not given:
        # A quotation mark inside of a text is escaped there, so this finds no text of a user.
        found = _FINISH.match(snapshot, max(0, snapshot.rfind('"finish_reason":')))
        given = found[1] if found else ""
    return given if given in FINISH_REASONS else None


def _read(raw: msgspec.Raw) -> _RunEndData:
    try:
        return _run_end_data.decode(raw)
    except UNREADABLE:
        pass
    # msgspec refuses halves of surrogate pairs. The snapshot keeps them; everything else is shown, so clean.
    given = read_object(raw)
    snapshot = given.pop("session_snapshot", msgspec.UNSET)
    try:
        data = _run_end_data.decode(msgspec.json.encode(clean_json(given)))
        if snapshot is not msgspec.UNSET:
            data.session_snapshot = msgspec.Raw(json.dumps(snapshot).encode())
    except UNREADABLE:
        return _RunEndData()
    return data


def read_usage(data: Mapping[str, object]) -> Usage | None:
    """The usage that a backend reports. A field with a bad value keeps its default."""
    if not data:
        return None
    values: dict[str, object] = {}
    for field in _USAGE_FIELDS:
        value = _usage_value(field.name, field.type, data.get(field.name))
        if value is not None:
            values[field.name] = value
    return msgspec.convert(values, type=Usage)


def _usage_value(name: str, kind: type, value: object) -> int | float | str | None:
    """A count, seconds, a plain decimal or a currency; None when it has no sane value."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value if isinstance(value, str) else f"{Decimal(str(value)):f}"
    if name == "currency":
        return clean_text(text)[:16]
    if not _DECIMAL.fullmatch(text):
        return None
    return text if kind is str else kind(Decimal(text))


def _output_text(output: msgspec.Raw | msgspec.UnsetType) -> str:
    text = _raw_text(output)
    if text.startswith('"'):
        return clean_text(msgspec.json.decode(text, type=str))
    return "" if text == "null" else clean_text(text)


def _raw_text(raw: msgspec.Raw | msgspec.UnsetType) -> str:
    return "" if isinstance(raw, msgspec.UnsetType) else bytes(raw).decode(errors="replace").strip()
