"""Runs an agent function: somebody's async generator that takes a turn and yields its steps."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import AsyncGeneratorType

import msgspec

from agent_gateway.agent import AgentError, AgentFunction, Step, Turn
from agent_gateway.backend.embedded.function.memory import Memory, memory_of, snapshot_with
from agent_gateway.backend.embedded.function.steps import Steps, deferred_call
from agent_gateway.backend.embedded.function.turn import read_turn
from agent_gateway.backend.embedded.places import broken, place
from agent_gateway.backend.embedded.plan import NOT_OF_OWN_AGENTS, Plan, read_plan
from agent_gateway.backend.embedded.runs import Emit, RunFailed, RunInterrupted
from agent_gateway.backend.embedded.stopwatch import Stopwatch
from agent_gateway.backend.protocol import CreateRunRequest
from agent_gateway.domain.text import clean_text

logger = logging.getLogger(__name__)


class PlainAgents:
    """Every run is one call of the function. Nothing is kept between two runs."""

    def __init__(self, function: AgentFunction) -> None:
        self._function = function

    async def execute(self, request: CreateRunRequest, emit: Emit) -> bytes:
        """Call the function for one request and return the data of `run_succeeded` as JSON.

        Raises RunFailed, or RunInterrupted when the task was cancelled after the agent had said something.
        """
        plan = read_plan(request, ignored=NOT_OF_OWN_AGENTS)
        memory = memory_of(plan)
        if not plan.prompt:
            return msgspec.json.encode({"session_snapshot": snapshot_with(plan, memory), "output": None})
        turn, run = read_turn(request, plan, memory), _Run(plan, memory, emit)
        try:
            async with aclosing(self._function(turn)) as steps:
                await run.take_all(steps)
        except asyncio.CancelledError:
            if not _is_cancelled():
                raise RunFailed("the agent was cancelled by its own code") from None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a run must end, whatever its agent does
            failed = _failed(error)
            if not _is_cancelled():
                raise failed from None
            logger.warning("the agent failed while it was stopped: %s", failed.cause)
        if _is_cancelled():
            raise RunInterrupted(run.leftovers(turn))
        return run.succeeded(turn)

    async def aclose(self) -> None:
        """Nothing is open between two runs."""


class _Run:
    """One call of the function: its steps, and what is left of it."""

    def __init__(self, plan: Plan, memory: Memory, emit: Emit) -> None:
        self._plan = plan
        self._memory = memory
        self._watch = Stopwatch()
        self._steps = Steps(emit)

    async def take_all(self, steps: AsyncGenerator[Step, None]) -> None:
        """Take each step up to the last one, a question, or a cancellation."""
        async for step in steps:
            self._watch.saw_event()
            try:
                self._steps.take(step)
            except RunFailed as failure:
                raise _at_yield(failure, steps) from None
            if self._steps.question is not None or _is_cancelled():
                break
            # An agent that never waits would hold up all other runs.
            await asyncio.sleep(0)
        self._steps.end()

    def succeeded(self, turn: Turn) -> bytes:
        """The data of `run_succeeded`."""
        said, question = self._steps.answer, self._steps.question
        if question is None:
            memory = self._memory.after(turn.query, said, turn.state)
            data: dict[str, object] = {"output": clean_text(said)}
        else:
            heard = "\n\n".join(filter(None, (said, question.text)))
            memory = self._memory.after(turn.query, heard, turn.state, question.id)
            data = {"deferred_tool_call": deferred_call(question)}
        data |= {"session_snapshot": snapshot_with(self._plan, memory), "usage": self._usage()}
        return msgspec.json.encode(data)

    def leftovers(self, turn: Turn) -> dict[str, object]:
        """What a cancelled run leaves: its usage, and its text if there is one."""
        left: dict[str, object] = {"usage": self._usage()}
        if said := self._steps.answer:
            memory = self._memory.after(turn.query, said, turn.state)
            left["session_snapshot"] = snapshot_with(self._plan, memory)
        return left

    def _usage(self) -> object:
        used = self._steps.used
        return self._watch.usage(used.input_tokens, used.output_tokens)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failed(error: Exception | SystemExit) -> RunFailed:
    match error:
        case RunFailed():
            return error
        case AgentError():
            return RunFailed(error.text, error.reason)
        case _:
            return broken(error)


def _at_yield(failure: RunFailed, steps: AsyncGenerator[Step, None]) -> RunFailed:
    """The failure with the line of the `yield` for the operator."""
    if not isinstance(steps, AsyncGeneratorType) or steps.ag_frame is None:
        return failure
    where = place(steps.ag_frame.f_code.co_filename, steps.ag_frame.f_lineno)
    return RunFailed(failure.error, failure.reason, f"{failure.cause} ({where})")
