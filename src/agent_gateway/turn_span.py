"""The span of a turn: one for each time that a process has it, from its begin or its adoption on.

It is the call of an agent by the conventions for GenAI, in the version of `spans.SCHEMA_URL`.
"""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agent_gateway import tracing
from agent_gateway.domain.events import Result
from agent_gateway.domain.turns import App, Outcome, Trace, Turn
from agent_gateway.turn_times import TurnTimes

if TYPE_CHECKING:
    from agent_gateway.spans import Span, Tracer, Value

OPERATION: Final = "invoke_agent"
RELEASED: Final = "released"
"""The outcome of a turn that this process gave up, so that another one adopts it."""
LOST: Final = "lost"
"""Of a turn that another process has, or will have, without having been given it."""
QUEUED: Final = "queued"
"""Of a turn that only waited here, and was driven elsewhere."""


def begin(tracer: "Tracer", app: App, trace: Trace) -> "tuple[Span, Trace]":
    """The span of a turn that begins here, and the turn's trace, which leads to that span.

    `tell_turn` says the rest, once the store has decided it.
    """
    span = _begin(tracer, app, trace)
    return span, replace(trace, parent=span.traceparent)


def adopt(tracer: "Tracer", turn: Turn) -> "Span":
    """The span of a turn that is adopted: in the same trace, below and linked to where it was begun."""
    span = _begin(tracer, turn.app, turn.trace, link=turn.trace.parent)
    tell_turn(span, turn)
    return span


def tell_turn(span: "Span", turn: Turn) -> None:
    """The version of the app that the turn is pinned to, and its query if that is asked for."""
    attributes: dict[str, Value] = {"gen_ai.agent.version": turn.app.version_id}
    if turn.query and tracing.tracer is not None and tracing.tracer.with_content:
        attributes["gen_ai.input.messages"] = _message("user", turn.query)
    span.set(attributes)


def _begin(tracer: "Tracer", app: App, trace: Trace, *, link: str = "") -> "Span":
    name = app.slug or app.id
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": "agent_gateway",
        "gen_ai.agent.name": name,
        "gen_ai.agent.id": app.id,
        "agent_gateway.app": name,
    }
    if trace.request_id:
        attributes["agent_gateway.request_id"] = trace.request_id
    return tracer.client_span(f"{OPERATION} {name}", attributes, parent=trace.parent, link=link)


def end(span: "Span", turn: Turn, run_id: str | None, result: Result, times: TurnTimes) -> None:
    """The turn has ended here, with this result."""
    attributes = _known(turn, run_id, result.outcome.value) | {
        "agent_gateway.turn.queued_seconds": times.queued,
    }
    if times.to_first_event is not None:
        attributes["agent_gateway.turn.first_event_seconds"] = times.to_first_event
    if result.usage is not None:
        attributes["gen_ai.usage.input_tokens"] = result.usage.prompt_tokens
        attributes["gen_ai.usage.output_tokens"] = result.usage.completion_tokens
    if result.finish_reason:
        attributes["gen_ai.response.finish_reasons"] = [result.finish_reason]
    if result.cause is not None:
        attributes["agent_gateway.turn.cause"] = str(result.cause)
    if tracing.tracer is not None and tracing.tracer.with_content:
        attributes["gen_ai.output.messages"] = _message(
            "assistant", result.answer, result.finish_reason or ""
        )
    failed = result.outcome is Outcome.FAILED
    span.end(attributes, error=(result.error_code or "internal_server_error") if failed else "")


def leave(span: "Span", turn: Turn, run_id: str | None, outcome: str) -> None:
    """This process tells no end of the turn: it goes on, or has ended, elsewhere."""
    span.end(_known(turn, run_id, outcome))


def _known(turn: Turn, run_id: str | None, outcome: str) -> "dict[str, Value]":
    attributes: dict[str, Value] = {
        "gen_ai.conversation.id": turn.conversation_id,
        "agent_gateway.task_id": turn.task_id,
        "agent_gateway.turn.outcome": outcome,
        "agent_gateway.turn.adoptions": turn.adoptions,
    }
    if run_id is not None:
        attributes["agent_gateway.run_id"] = run_id
    return attributes


def _message(role: str, text: str, finish_reason: str = "") -> str:
    message: dict[str, object] = {"role": role, "parts": [{"type": "text", "content": text}]}
    if finish_reason:
        message["finish_reason"] = finish_reason
    return json.dumps([message])
