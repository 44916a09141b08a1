"""Runs pydantic-ai agents: one request in, run events and a terminal event's data out.

Importing this module loads the agent framework (seconds): only building an `EmbeddedBackend` does.
"""

import asyncio
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import pydantic
import pydantic_ai
from pydantic_ai import Agent, RunContext
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.exceptions import AgentRunError, RunCancelled, UserError
from pydantic_ai.messages import (
    AgentStreamEvent,
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    UserContent,
)
from pydantic_ai.models import Model, infer_model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.output import OutputSpec
from pydantic_ai.tools import DeferredToolRequests
from pydantic_ai.usage import RunUsage
from pydantic_core import to_jsonable_python

from agent_gateway.backend.embedded.demo import demo_agent
from agent_gateway.backend.embedded.encoding import WholeCharacters, delta_json, event_json, messages_json
from agent_gateway.backend.embedded.failures import INCOMPLETE, run_failed
from agent_gateway.backend.embedded.human import TOOLSET, deferred_call, results_for
from agent_gateway.backend.embedded.plan import Plan, read_plan
from agent_gateway.backend.embedded.runs import Emit, RunFailed, RunInterrupted
from agent_gateway.backend.embedded.stopwatch import Stopwatch
from agent_gateway.backend.protocol import CreateRunRequest
from agent_gateway.domain.text import clean_json
from agent_gateway.domain.turns import Usage
from agent_gateway.errors import ConfigError

# The framework prints a greeting when the first agent runs; it does not belong in an operator's log.
# It documents this switch, but its type is inferred as a constant.
pydantic_ai.BANNER_ENABLED = False  # pyrefly: ignore[bad-assignment]

MAX_AGENTS: Final = 16
"""Agents (and their connections) kept at once: users may choose the model of a composition."""

MAX_SHOWN: Final = 100
"""Characters of a model's name that an error shows."""

_EVENTS: Final = pydantic.TypeAdapter[AgentStreamEvent](
    AgentStreamEvent, config=pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
)


class EmbeddedAgents:
    """The agents of this process by model name; the empty name is the offline demo agent.

    Raises ConfigError when the configured model cannot be used, for example without its API key.
    """

    def __init__(self, model: str, pace: float) -> None:
        self._model = model
        self._pace = pace
        self._agents: dict[str, Agent[object, str]] = {}
        try:
            self._agent(model)
        except (UserError, ImportError, ValueError) as error:
            raise ConfigError(f"The model {model!r} cannot be used: {error}") from None

    async def execute(self, request: CreateRunRequest, emit: Emit) -> bytes:
        """Run the agent of one request and return the data of `run_succeeded` as JSON.

        Raises RunFailed, or RunInterrupted when the task was cancelled with something worth keeping.
        """
        plan = read_plan(request)
        if not plan.prompt:
            return nothing_done(plan)
        model = plan.model or self._model
        # Another model than the configured one may be a user's choice, so errors do not name it.
        named = self._model if model == self._model else ""
        return await run_agent(
            self._usable(model), plan, emit, asks=plan.asks_human or not model, model=named
        )

    async def aclose(self) -> None:
        """Close the connections to the model providers."""
        for agent in self._agents.values():
            await close(agent)

    def _usable(self, model: str) -> Agent[object, str]:
        try:
            return self._agent(model)
        except (UserError, ImportError, ValueError) as error:
            # The framework's text may name the variable of a key, so only the kind of error is shown.
            kind = type(error).__name__
            raise RunFailed(
                f"the model {model[:MAX_SHOWN]!r} cannot be used ({kind})",
                "ModelNotFoundError",
                f"the model of the composition cannot be used ({kind})",
            ) from None

    def _agent(self, model: str) -> Agent[object, str]:
        agent = self._agents.pop(model, None)
        if agent is None:
            agent = Agent(infer_model(model)) if model else demo_agent(self._pace)
        self._agents[model] = agent  # the most recently used is last
        if len(self._agents) > MAX_AGENTS:
            del self._agents[next(name for name in self._agents if name != self._model)]
        return agent


async def run_agent(
    agent: AbstractAgent[Any, Any], plan: Plan, emit: Emit, *, asks: bool, model: str
) -> bytes:
    """Run an agent as planned and return the data of `run_succeeded` as JSON.

    With `asks` it gets the tool with which it asks humans. `model` is named in errors if it is given.
    Raises RunFailed, or RunInterrupted when the task was cancelled with something worth keeping.
    """
    watch, history = Stopwatch(), _load(plan.messages())
    prompt = _prompt(plan)

    async def forward(_: RunContext[Any], events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            watch.saw_event()
            emit(event_json(_EVENTS, event), delta_json(_text_delta(event)))

    try:
        result = await agent.run(
            None if plan.answers else prompt,
            output_type=_or_question(agent.output_type) if asks else None,
            message_history=history,
            deferred_tool_results=results_for(history, plan.answers) if plan.answers else None,
            instructions=plan.instructions,
            toolsets=[TOOLSET] if asks else None,
            event_stream_handler=forward,
            capabilities=[WholeCharacters()],
        )
    except asyncio.CancelledError as cancelled:
        if (leftovers := _leftovers(plan, cancelled, watch)) is None:
            raise
        raise RunInterrupted(leftovers) from None
    except (AgentRunError, UserError) as error:
        raise run_failed(error, model) from None
    if _is_incomplete(agent.model, result.response):
        raise RunFailed("the provider's stream ended before the answer did", INCOMPLETE)
    usage, reason = _used(watch, result.usage), result.response.finish_reason
    return _succeeded(plan, _dump(result.all_messages()), result.output, usage, reason)


def nothing_done(plan: Plan) -> bytes:
    """The data of a run that only cleans up: nothing is kept for a session here."""
    return _succeeded(plan, plan.messages(), None)


async def close(agent: AbstractAgent[Any, Any]) -> None:
    """Close the connections of an agent to its model's provider."""
    if isinstance(agent.model, Model):
        async with agent.model:
            pass  # a model closes its provider's client when its context is left


def _or_question(output_type: OutputSpec[Any]) -> Sequence[Any]:
    kinds: Sequence[Any] = output_type if isinstance(output_type, Sequence) else [output_type]
    return kinds if DeferredToolRequests in kinds else [*kinds, DeferredToolRequests]


def _used(watch: Stopwatch, used: RunUsage) -> Usage:
    return watch.usage(used.input_tokens, used.output_tokens)


def _prompt(plan: Plan) -> str | list[UserContent]:
    """The user's words: one text, or several texts with the images that the model sees."""
    if len(plan.prompt) == 1 and not plan.images:
        return plan.prompt[0]
    seen = [
        ImageUrl(url=image.url, media_type=image.mime_type)
        if image.data is None
        else BinaryContent(data=image.data, media_type=image.mime_type)
        for image in plan.images
    ]
    return [*plan.prompt, *seen]


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
    output: object,
    usage: Usage | None = None,
    finish_reason: str | None = None,
) -> bytes:
    data: dict[str, object] = {"session_snapshot": plan.snapshot(messages)}
    if finish_reason is not None:
        data["finish_reason"] = finish_reason
    if isinstance(output, DeferredToolRequests):
        data["deferred_tool_call"] = clean_json(deferred_call(output))
    else:
        data["output"] = clean_json(to_jsonable_python(output, bytes_mode="base64"))
    return msgspec.json.encode(data if usage is None else data | {"usage": usage})


def _leftovers(plan: Plan, cancelled: BaseException, watch: Stopwatch) -> Mapping[str, object] | None:
    """Snapshot and usage of a cancelled run; None when the framework kept no state of it."""
    state = RunCancelled.from_cancellation(cancelled)
    if state is None:
        return None
    last = state.all_messages()[-1:]
    # Keep only a partial answer: open tool calls would make the next turn fail.
    if not last or not isinstance(last[0], ModelResponse) or not last[0].text or last[0].tool_calls:
        return {"usage": _used(watch, state.usage)}
    snapshot = plan.snapshot(_dump(state.all_messages()))
    return {"session_snapshot": snapshot, "usage": _used(watch, state.usage)}


def _load(messages: bytes) -> list[ModelMessage]:
    try:
        return ModelMessagesTypeAdapter.validate_json(messages)
    except pydantic.ValidationError:
        raise RunFailed("the session snapshot's history cannot be read") from None


def _dump(messages: list[ModelMessage]) -> bytes:
    # Each request brings the instructions again: kept ones would add a copy with every turn.
    kept = [
        replace(message, instructions=None) if isinstance(message, ModelRequest) else message
        for message in messages
    ]
    return messages_json(kept)
