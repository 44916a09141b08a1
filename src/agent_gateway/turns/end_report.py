"""What is told of a turn that ended here: a line in the log (WARNING when it failed), metrics, its span."""

import logging
from typing import Final

from agent_gateway import metrics, turn_span
from agent_gateway.domain.events import Result
from agent_gateway.domain.turns import Outcome
from agent_gateway.turn_times import TurnTimes
from agent_gateway.turns.live_turn import LiveTurn

logger = logging.getLogger(__name__)

_DIGITS: Final = 3


def report_end(live: LiveTurn, result: Result) -> None:
    """Write the line of a turn whose end this process has stored."""
    runner, turn = live.runner, live.turn
    times = runner.times
    answer, failed = result.answer, result.outcome is Outcome.FAILED
    fields: dict[str, object] = {
        "app": turn.app.slug or turn.app.id,
        "task_id": turn.task_id,
        "run_id": runner.run_id,
        "outcome": result.outcome.value,
        "code": result.error_code,
        "cause": str(result.cause) if result.cause else None,
        "seconds": times.total,
        "queued_seconds": times.queued,
        "first_event_seconds": times.to_first_event,
        "backend_seconds": times.of_backend,
        "chunks": len(result.chunks),
        "bytes": len(answer) if answer.isascii() else len(answer.encode()),
        "tokens": result.usage.total_tokens if result.usage else None,
        "adoptions": turn.adoptions,
        "readers": live.log.readers_ever,
    }
    told = {
        name: round(value, _DIGITS) if isinstance(value, float) else value
        for name, value in fields.items()
        if value is not None
    }
    logger.log(logging.WARNING if failed else logging.INFO, "turn %s", result.outcome.value, extra=told)
    _measure(result, times)
    if (span := runner.take_span()) is not None:
        turn_span.end(span, turn, runner.run_id, result, times)


def _measure(result: Result, times: TurnTimes) -> None:
    outcome = result.outcome.value
    metrics.TURNS_ENDED(outcome, result.error_code or "").inc()
    metrics.TURN_SECONDS(outcome).observe(times.total)
    if times.queued:
        metrics.QUEUE_SECONDS.observe(times.queued)
    whole, backend = times.to_first_event, times.of_backend
    if whole is not None and backend is not None:
        metrics.FIRST_EVENT_SECONDS("gateway").observe(max(0.0, whole - backend))
        metrics.FIRST_EVENT_SECONDS("backend").observe(backend)
    if times.since_stop is not None:
        metrics.STOP_SECONDS.observe(times.since_stop)
    if result.usage is not None:
        metrics.TOKENS("prompt").inc(result.usage.prompt_tokens)
        metrics.TOKENS("completion").inc(result.usage.completion_tokens)
