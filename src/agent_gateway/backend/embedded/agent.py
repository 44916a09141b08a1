"""Runs pydantic-ai agents: one request in, run events and a terminal event's data out.

Importing this module loads the agent framework (seconds): only building an `EmbeddedBackend` does.
"""

import asyncio
import warnings
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec
import pydantic
import pydantic_ai
from pydantic_ai import Agent, AgentRetries, RunContext
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
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import UsageLimits

from agent_gateway.backend.embedded.answers import WholeAnswers
from agent_gateway.backend.embedded.content import TakenFiles, answers_with_images, prompt_content
from agent_gateway.backend.embedded.encoding import WholeCharacters, delta_json, event_json, messages_json
from agent_gateway.backend.embedded.failures import is_failure, run_failed
from agent_gateway.backend.embedded.history import Turn, summary_of, within_limits
from agent_gateway.backend.embedded.kept_files import MAX_KEPT_BYTES, with_bounded_files
from agent_gateway.backend.embedded.models import Models, settings_of, unfinished
from agent_gateway.backend.embedded.output import FitsSchema, is_text, output_of
from agent_gateway.backend.embedded.plan import Plan, read_plan
from agent_gateway.backend.embedded.prices import Meter, Metering
from agent_gateway.backend.embedded.retries import MAX_RETRIES, Retries
from agent_gateway.backend.embedded.runs import Emit, RunFailed, RunInterrupted
from agent_gateway.backend.embedded.thoughts import ThoughtTags
from agent_gateway.backend.embedded.tools.deferred import deferred_call, resumption
from agent_gateway.backend.embedded.tools.toolsets import Tools
from agent_gateway.backend.protocol import CreateRunRequest
from agent_gateway.domain.text import clean_json, clean_text
from agent_gateway.domain.turns import Usage
from agent_gateway.json_types import JsonObject

# The framework prints a greeting when the first agent runs; it does not belong in an operator's log.
# It documents this switch, but its type is inferred as a constant.
pydantic_ai.BANNER_ENABLED = False  # pyrefly: ignore[bad-assignment]
# What a model ignores is logged when its settings are made.
warnings.simplefilter("ignore", UnsupportedSettingWarning)

_EVENTS: Final = pydantic.TypeAdapter[AgentStreamEvent](
    AgentStreamEvent, config=pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
)


class EmbeddedAgents:
    """Runs the agents of this process. Raises ConfigError when the configured model cannot be used."""

    def __init__(self, model: str, pace: float, *, runs_code: bool = True) -> None:
        self._models = Models(model, pace)
        self._tools = Tools(runs_code=runs_code)

    async def execute(self, request: CreateRunRequest, emit: Emit) -> bytes:
        """Run the agent of one request and return the data of `run_succeeded` as JSON.

        Raises RunFailed, or RunInterrupted when the task was cancelled with something worth keeping.
        """
        plan = read_plan(request)
        if not plan.prompt:
            return _succeeded(plan, plan.messages(), None)
        meter = Meter()
        try:
            async with self._models.agent(plan.model) as agent:
                try:
                    return await self._run(plan, agent, meter, emit)
                except Exception:
                    meter.breaks_off(unfinished(agent))
                    raise
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
            # Another model than the configured one may be a user's choice.
            default = self._models.default
            named = default if self._models.name_of(plan.model) == default else ""
            raise run_failed(error, named, plan.output is not None).with_usage(meter.usage()) from None

    async def _run(self, plan: Plan, agent: Agent[object, str], meter: Meter, emit: Emit) -> bytes:
        history = await self._history(plan, meter)
        asks_human = plan.asks_human or not self._models.name_of(plan.model)
        may_stop = asks_human or plan.tools.asks_approval
        resumed = resumption(history, plan.answers) if plan.answers else None

        async def forward(_: RunContext[object], events: AsyncIterable[AgentStreamEvent]) -> None:
            async for event in events:
                meter.hears(event)
                if plan.output is not None and is_text(event):
                    continue
                logged = emit(event_json(_EVENTS, event), delta_json(_text_delta(event)))
                if isinstance(event, FunctionToolCallEvent):
                    # The tool runs after this: a run that is started again must have told of it.
                    await logged

        images = plan.output is None and answers_with_images(agent.model)
        async with self._tools.of(plan.tools, asks_human=asks_human) as toolsets:
            result = await agent.run(
                resumed.words if resumed else prompt_content(plan.prompt, plan.files),
                output_type=[
                    str if plan.output is None else output_of(plan.output),
                    *([BinaryImage] if images else []),
                    *([DeferredToolRequests] if may_stop else []),
                ],
                message_history=history,
                deferred_tool_results=resumed.results if resumed else None,
                instructions=plan.instructions,
                model_settings=settings_of(plan.model, agent),
                usage_limits=UsageLimits(request_limit=plan.model.max_requests),
                retries=AgentRetries(output=plan.output.max_retries) if plan.output else None,
                toolsets=toolsets,
                event_stream_handler=forward,
                capabilities=_capabilities(plan, meter),
            )
        reason = result.response.finish_reason
        return _succeeded(plan, _dump(result.all_messages()), result.output, meter.usage(), reason)

    async def _history(self, plan: Plan, meter: Meter) -> list[ModelMessage]:
        """The messages of earlier turns that the run continues from."""

        async def sum_up(turns: Sequence[Turn]) -> str:
            assert plan.limits.summary_model is not None
            return await summary_of(turns, plan.limits.summary_model, self._models, meter)

        kept = await within_limits(_load(plan.messages()), plan.limits, sum_up)
        given = sum(len(file.data or b"") for file in plan.files)
        return with_bounded_files(kept, MAX_KEPT_BYTES - given)

    async def aclose(self) -> None:
        """Close the connections to the model providers, and end the programs of tools."""
        await self._tools.aclose()
        await self._models.aclose()


def _capabilities(plan: Plan, meter: Meter) -> list[AbstractCapability[object]]:
    fits = [] if plan.output is None else [FitsSchema(plan.output.json_schema)]
    tries = 1 + (MAX_RETRIES if plan.model.max_retries is None else plan.model.max_retries)
    # The last one is the first to see a response: also those that the others refuse are counted.
    always = [WholeCharacters(), TakenFiles(), ThoughtTags(), WholeAnswers(), Retries(tries)]
    return [*always, *fits, Metering(meter)]


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
    output: str | JsonObject | BinaryImage | DeferredToolRequests | None,
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
        data["output"] = clean_text(output) if isinstance(output, str) else clean_json(output)
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


def _load(messages: bytes) -> list[ModelMessage]:
    try:
        return ModelMessagesTypeAdapter.validate_json(messages)
    except pydantic.ValidationError:
        raise RunFailed("the session snapshot's history cannot be read") from None


def _dump(messages: list[ModelMessage]) -> bytes:
    # Each request brings the instructions again: kept ones would add a copy with every turn.
    kept = [
        replace(message, instructions=None) if isinstance(message, ModelRequest) else message
        for message in with_bounded_files(messages)
    ]
    return messages_json(kept)
