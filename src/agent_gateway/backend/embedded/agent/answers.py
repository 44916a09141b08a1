"""Looks at each answer of a model before the agent works with it: is it whole?

A provider may break an answer off politely. Then its last tool call, or its second one, may be missing, and
no tool may run on it.
"""

from typing import Final

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel

from agent_gateway.backend.embedded.failures import INCOMPLETE, TOO_LONG
from agent_gateway.backend.embedded.runs import RunFailed

_ERROR: Final = "error"
"""The finish reason of an answer in whose middle the provider failed."""


class WholeAnswers(AbstractCapability[object]):
    """Ends the run when an answer is not whole: RunFailed."""

    # `typing.override` is newer than the oldest Python supported here.
    async def after_model_request(  # pyrefly: ignore[missing-override-decorator]
        self, ctx: RunContext[object], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """The response as it is."""
        details = response.provider_details or {}
        if _ERROR in (response.finish_reason, details.get("finish_reason")):
            raise RunFailed("the model provider ended the answer with an error", INCOMPLETE)
        if _has_no_end(ctx.model, response):
            raise RunFailed("the provider's stream ended before the answer did", INCOMPLETE)
        if response.finish_reason == "length" and _has_half_a_call(response):
            raise RunFailed("the model reached its longest answer in the middle of a tool call", TOO_LONG)
        return response


def _has_no_end(model: object, response: ModelResponse) -> bool:
    """Whether it has no finish reason of its provider.

    For models of the OpenAI API the framework takes `stop` for granted then; only the details have the
    provider's own word. A model without a provider never has one.
    """
    if not response.provider_name or (response.provider_details or {}).get("finish_reason"):
        return False
    models = model.models if isinstance(model, FallbackModel) else [model]
    assumed = "stop" if any(isinstance(one, OpenAIChatModel) for one in models) else None
    return response.finish_reason in (None, assumed)


def _has_half_a_call(response: ModelResponse) -> bool:
    for call in response.tool_calls:
        try:
            call.args_as_dict(raise_if_invalid=True)
        except (ValueError, AssertionError):
            return True
    return False
