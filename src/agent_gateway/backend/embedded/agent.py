"""Runs pydantic-ai agents: one request in, run events and a terminal event's data out.

Importing this module loads the agent framework (seconds): only building an `EmbeddedBackend` does.
"""

import asyncio
import time
from collections.abc import AsyncIterable, Mapping
from dataclasses import replace
from typing import Final

import msgspec
import pydantic
import pydantic_ai
from pydantic_ai import RunContext
from pydantic_ai.exceptions import AgentRunError, RunCancelled, UserError
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
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import RunUsage, UsageLimits

from agent_gateway.backend.embedded.content import TakenFiles, answers_with_images, prompt_content
from agent_gateway.backend.embedded.encoding import WholeCharacters, delta_json, event_json, messages_json
from agent_gateway.backend.embedded.failures import INCOMPLETE, run_failed
from agent_gateway.backend.embedded.kept_files import MAX_KEPT_BYTES, with_bounded_files
from agent_gateway.backend.embedded.models import Models, settings_of
from agent_gateway.backend.embedded.plan import Plan, read_plan
from agent_gateway.backend.embedded.runs import Emit, RunFailed, RunInterrupted
from agent_gateway.backend.embedded.tools.deferred import deferred_call, resumption
from agent_gateway.backend.embedded.tools.toolsets import Tools
from agent_gateway.backend.protocol import CreateRunRequest
from agent_gateway.domain.text import clean_json, clean_text
from agent_gateway.domain.turns import Usage

# The framework prints a greeting when the first agent runs; it does not belong in an operator's log.
# It documents this switch, but its type is inferred as a constant.
pydantic_ai.BANNER_ENABLED = False  # pyrefly: ignore[bad-assignment]

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
        given = sum(len(file.data or b"") for file in plan.files)
        watch, history = Stopwatch(), with_bounded_files(_load(plan.messages()), MAX_KEPT_BYTES - given)
        model = self._models.name_of(plan.model)
        asks_human = plan.asks_human or not model
        may_stop = asks_human or plan.tools.asks_approval
        resumed = resumption(history, plan.answers) if plan.answers else None

        async def forward(_: RunContext[object], events: AsyncIterable[AgentStreamEvent]) -> None:
            async for event in events:
                watch.saw_event()
                logged = emit(event_json(_EVENTS, event), delta_json(_text_delta(event)))
                if isinstance(event, FunctionToolCallEvent):
                    # The tool runs after this: a run that is started again must have told of it.
                    await logged

        agent = self._models.agent(plan.model)
        try:
            async with self._tools.of(plan.tools, asks_human=asks_human) as toolsets:
                result = await agent.run(
                    resumed.words if resumed else prompt_content(plan.prompt, plan.files),
                    output_type=[
                        str,
                        *([BinaryImage] if answers_with_images(agent.model) else []),
                        *([DeferredToolRequests] if may_stop else []),
                    ],
                    message_history=history,
                    deferred_tool_results=resumed.results if resumed else None,
                    instructions=plan.instructions,
                    model_settings=settings_of(plan.model),
                    usage_limits=UsageLimits(request_limit=plan.model.max_requests),
                    toolsets=toolsets,
                    event_stream_handler=forward,
                    capabilities=[WholeCharacters(), TakenFiles()],
                )
        except asyncio.CancelledError as cancelled:
            if (leftovers := _leftovers(plan, cancelled, watch)) is None:
                raise
            raise RunInterrupted(leftovers) from None
        except (AgentRunError, UserError) as error:
            # Another model than the configured one may be a user's choice.
            default = self._models.default
            raise run_failed(error, default if model == default else "") from None
        if _is_incomplete(agent.model, result.response):
            raise RunFailed("the provider's stream ended before the answer did", INCOMPLETE)
        usage, reason = watch.usage(result.usage), result.response.finish_reason
        return _succeeded(plan, _dump(result.all_messages()), result.output, usage, reason)

    async def aclose(self) -> None:
        """Close the connections to the model providers, and end the programs of tools."""
        await self._tools.aclose()
        await self._models.aclose()


class Stopwatch:
    """Seconds of one run on the monotonic clock."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._first: float | None = None

    def saw_event(self) -> None:
        """Note the time of the model's first event."""
        if self._first is None:
            self._first = time.monotonic()

    def usage(self, used: RunUsage) -> Usage:
        """Tokens and times so far. Prices are unknown here, so they are zero."""
        now = time.monotonic()
        first = now if self._first is None else self._first
        return Usage(
            prompt_tokens=used.input_tokens,
            completion_tokens=used.output_tokens,
            total_tokens=used.input_tokens + used.output_tokens,
            latency=round(now - self._start, 3),
            time_to_first_token=round(first - self._start, 3),
            time_to_generate=round(now - first, 3),
        )


def _is_incomplete(model: object, response: ModelResponse) -> bool:
    """Whether a provider's answer ended without a finish reason: its stream was cut in a polite way.

    For models of the OpenAI API the framework takes `stop` for granted then; only the details have the
    provider's own word. A model without a provider never has one.
    """
    if not response.provider_name or (response.provider_details or {}).get("finish_reason"):
        return False
    assumed = "stop" if isinstance(model, OpenAIChatModel) else None
    return response.finish_reason in (None, assumed)


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
    output: str | BinaryImage | DeferredToolRequests | None,
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
        data["output"] = clean_text(output) if output else output
    return msgspec.json.encode(data if usage is None else data | {"usage": usage})


def _leftovers(plan: Plan, cancelled: BaseException, watch: Stopwatch) -> Mapping[str, object] | None:
    """Snapshot and usage of a cancelled run; None when the framework kept no state of it."""
    state = RunCancelled.from_cancellation(cancelled)
    if state is None:
        return None
    last = state.all_messages()[-1:]
    # Keep only a partial answer: open tool calls would make the next turn fail.
    if not last or not isinstance(last[0], ModelResponse) or not last[0].text or last[0].tool_calls:
        return {"usage": watch.usage(state.usage)}
    snapshot = plan.snapshot(_dump(state.all_messages()))
    return {"session_snapshot": snapshot, "usage": watch.usage(state.usage)}


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
