"""Runs one agent of pydantic-ai: a plan and a history in, run events and a terminal event's data out."""

import asyncio
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import pydantic
import pydantic_ai
from pydantic_ai import AgentRetries, RunContext
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import RunCancelled, UnsupportedSettingWarning
from pydantic_ai.messages import (
    AgentStreamEvent,
    BinaryImage,
    FunctionToolCallEvent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.usage import UsageLimits
from pydantic_core import to_jsonable_python

from agent_gateway.backend.embedded.agent.answers import WholeAnswers
from agent_gateway.backend.embedded.agent.content import TakenFiles, prompt_content
from agent_gateway.backend.embedded.agent.encoding import (
    WholeCharacters,
    delta_json,
    event_json,
    messages_json,
)
from agent_gateway.backend.embedded.agent.kept_files import MAX_KEPT_BYTES, with_bounded_files
from agent_gateway.backend.embedded.agent.output import is_text
from agent_gateway.backend.embedded.agent.prices import Meter, Metering
from agent_gateway.backend.embedded.agent.thoughts import ThoughtTags
from agent_gateway.backend.embedded.failures import is_failure, run_failed
from agent_gateway.backend.embedded.plan import Plan
from agent_gateway.backend.embedded.runs import Emit, RunFailed, RunInterrupted
from agent_gateway.backend.embedded.tools.deferred import deferred_call, resumption
from agent_gateway.domain.text import clean_json
from agent_gateway.domain.turns import Usage

# The framework prints a greeting when the first agent runs; it does not belong in an operator's log.
# It documents this switch, but its type is inferred as a constant.
pydantic_ai.BANNER_ENABLED = False  # pyrefly: ignore[bad-assignment]
# What a model ignores is logged when its settings are made.
warnings.simplefilter("ignore", UnsupportedSettingWarning)

_EVENTS: Final = pydantic.TypeAdapter[AgentStreamEvent](
    AgentStreamEvent, config=pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
)


@dataclass(frozen=True, kw_only=True)
class Additions:
    """What a run adds to its agent."""

    output_type: Sequence[Any] | None = None
    """What the answer may be; None: what the agent says."""
    toolsets: Sequence[AbstractToolset[object]] = ()
    settings: ModelSettings | None = None
    limits: UsageLimits | None = None
    retries: AgentRetries | None = None
    capabilities: Sequence[AbstractCapability[object]] = ()
    hides_text: bool = False
    """Whether only the end has the answer: text before it may be half of a JSON."""


async def run_agent(
    agent: AbstractAgent[Any, Any],
    plan: Plan,
    history: list[ModelMessage],
    meter: Meter,
    emit: Emit,
    additions: Additions,
) -> bytes:
    """Run an agent as planned and return the data of `run_succeeded` as JSON.

    Raises what the framework raises; `ending_as_a_run` turns it into RunFailed and RunInterrupted.
    """
    resumed = resumption(history, plan.answers) if plan.answers else None

    async def forward(_: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            meter.hears(event)
            if additions.hides_text and is_text(event):
                continue
            logged = emit(event_json(_EVENTS, event), delta_json(_text_delta(event)))
            if isinstance(event, FunctionToolCallEvent):
                # The tool runs after this: a run that is started again must have told of it.
                await logged

    result = await agent.run(
        resumed.words if resumed else prompt_content(plan.prompt, plan.files),
        output_type=additions.output_type,
        message_history=history,
        deferred_tool_results=resumed.results if resumed else None,
        instructions=plan.instructions,
        model_settings=additions.settings,
        usage_limits=additions.limits,
        retries=additions.retries,
        toolsets=additions.toolsets,
        event_stream_handler=forward,
        # The last one is the first to see a response: also those that the others refuse are counted.
        capabilities=[
            WholeCharacters(),
            TakenFiles(),
            ThoughtTags(),
            WholeAnswers(),
            *additions.capabilities,
            Metering(meter),
        ],
    )
    reason = result.response.finish_reason
    return _succeeded(plan, _dump(result.all_messages()), result.output, meter.usage(), reason)


@asynccontextmanager
async def ending_as_a_run(plan: Plan, meter: Meter, model: str) -> AsyncGenerator[None]:
    """Raise RunFailed and RunInterrupted, with what was used, for what the framework raises.

    `model` is named to the operator if it is given. Errors that are not the framework's stay as they are.
    """
    try:
        yield
    except asyncio.CancelledError as cancelled:
        leftovers = _leftovers(plan, cancelled, meter)
        if not leftovers:
            raise
        raise RunInterrupted(leftovers) from None
    except RunFailed as failure:
        raise failure.with_usage(meter.usage() if meter.is_used else None) from None
    except Exception as error:
        if not is_failure(error):
            raise
        raise run_failed(error, model, plan.output is not None).with_usage(meter.usage()) from None


def nothing_done(plan: Plan) -> bytes:
    """The data of a run that only cleans up: nothing is kept for a session here."""
    return _succeeded(plan, plan.messages(), None)


def history_of(plan: Plan) -> list[ModelMessage]:
    """The messages of the snapshot. Raises RunFailed when they cannot be read."""
    try:
        return ModelMessagesTypeAdapter.validate_json(plan.messages())
    except pydantic.ValidationError:
        raise RunFailed("the session snapshot's history cannot be read") from None


def with_room_for_files(history: list[ModelMessage], plan: Plan) -> list[ModelMessage]:
    """The history without the oldest files, if those of the message need the room."""
    given = sum(len(file.data or b"") for file in plan.files)
    return with_bounded_files(history, MAX_KEPT_BYTES - given)


def _text_delta(event: AgentStreamEvent) -> str | None:
    match event:
        case (
            PartStartEvent(part=TextPart(content=text))
            | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
        ):
            return text
        case _:
            return None


def _succeeded(
    plan: Plan,
    messages: bytes,
    output: object,
    usage: Usage | None = None,
    finish_reason: str | None = None,
) -> bytes:
    data: dict[str, object] = {"session_snapshot": plan.snapshot(messages)}
    if finish_reason is not None:
        data["finish_reason"] = finish_reason
    if isinstance(output, DeferredToolRequests):
        data["deferred_tool_call"] = clean_json(deferred_call(output))
    elif isinstance(output, BinaryImage):
        data["output"] = ""  # an event has brought the image
    else:
        data["output"] = clean_json(to_jsonable_python(output, bytes_mode="base64"))
    return msgspec.json.encode(data if usage is None else data | {"usage": usage})


def _leftovers(plan: Plan, cancelled: BaseException, meter: Meter) -> Mapping[str, object]:
    """Snapshot and usage of a cancelled run, as far as there are any."""
    state = RunCancelled.from_cancellation(cancelled)
    last = state.all_messages()[-1:] if state is not None else []
    # Keep only a partial answer: open tool calls would make the next turn fail.
    if not last or not isinstance(last[0], ModelResponse):
        return {"usage": meter.usage()} if meter.is_used or state is not None else {}
    meter.breaks_off(last[0])
    usage = {"usage": meter.usage()}
    if state is None or not last[0].text or last[0].tool_calls or plan.output is not None:
        return usage
    return usage | {"session_snapshot": plan.snapshot(_dump(state.all_messages()))}


def _dump(messages: list[ModelMessage]) -> bytes:
    # Each request brings the instructions again: kept ones would add a copy with every turn.
    kept = [
        replace(message, instructions=None) if isinstance(message, ModelRequest) else message
        for message in with_bounded_files(messages)
    ]
    return messages_json(kept)
