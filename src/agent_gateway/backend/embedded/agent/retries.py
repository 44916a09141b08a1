"""Tries again what a model provider refused for a moment, while the user has seen nothing of the answer."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelRateLimitError,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    RetryModelRequest,
)
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.settings import ModelSettings

from agent_gateway.backend.embedded.failures import exceeds_context, failures_in
from agent_gateway.retry import doubled, jittered

MAX_RETRIES: Final = 2
"""How often one request is made again at most, where the app does not say it."""
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0
"""A provider that asks to wait longer ends the turn: its user is told, and can decide."""

_PASSING: Final = (ModelRateLimitError, ModelUnavailableError, ModelServerError, ModelConnectionError)

logger = logging.getLogger(__name__)


@dataclass
class Retries(AbstractCapability[object]):
    """Makes a request again after a failure that may pass, in place of the SDKs of the providers.

    Those wait for minutes when a provider asks them to. The framework asks this only until the first event of
    an answer; what fails later is not tried again.
    """

    tries: int = 1 + MAX_RETRIES
    """How often one request is made at most. With fallback models, each of them is asked once in a try."""

    # `typing.override` is newer than the oldest Python supported here.
    def get_model_settings(self) -> Callable[[RunContext[object]], ModelSettings]:  # pyrefly: ignore[missing-override-decorator]
        """No retries by the SDK, where it makes some."""
        return _no_retries

    async def on_model_request_error(  # pyrefly: ignore[missing-override-decorator]
        self, ctx: RunContext[object], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        """Wait and have the request made again, or raise its error."""
        pause = pause_before_retry(error, request_context.attempt, self.tries)
        if pause is None:
            raise error
        kind = type(error).__name__.removeprefix("_HTTP")
        logger.debug("the model provider failed (%s), trying again in %.1f s", kind, pause)
        await asyncio.sleep(pause)
        raise RetryModelRequest


def _no_retries(ctx: RunContext[object]) -> ModelSettings:
    knows = isinstance(ctx.model, Model) and "max_retries" not in ctx.model.unsupported_settings
    return ModelSettings(max_retries=0) if knows else ModelSettings()


def pause_before_retry(error: Exception, tries: int, at_most: int = 1 + MAX_RETRIES) -> float | None:
    """Seconds to wait after this many tries, of which the last one failed so; None: do not try again."""
    error = failures_in(error)[-1]
    if tries >= at_most or not isinstance(error, ModelAPIError):
        return None
    if isinstance(error, ModelHTTPError) and exceeds_context(error):
        return None
    hint = error.provider_retry_hint if isinstance(error, ModelHTTPError) else None
    # Another attempt would wait as long again for an answer that does not come.
    passes = isinstance(error, _PASSING) and not isinstance(error, ModelTimeoutError)
    if hint is False or not (hint or passes):
        return None
    if error.retry_after is None:
        return jittered(doubled(tries - 1, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS))
    return error.retry_after if error.retry_after <= LONGEST_PAUSE_SECONDS else None
