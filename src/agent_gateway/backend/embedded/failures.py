"""Turns the errors of models and their providers into failed runs, in words that hold no secrets.

The texts of these exceptions hold response bodies, in which some providers repeat the API key. Only the
reason, the status, the kind of error and the provider's own code for it are passed on.
"""

from typing import Final

from pydantic_ai import exceptions

from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.causes import plain_word

_REASONS: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    # The first match counts: the specific kinds are subclasses of those below them.
    (exceptions.ModelQuotaExceededError, "QuotaExceededError"),
    (exceptions.UsageLimitExceeded, "agent_run_limit_exceeded"),
    (exceptions.OutputTokenLimitExceeded, "OutputLengthExceededError"),
    (exceptions.ContentFilterError, "ContentFilterError"),
    (exceptions.ModelRateLimitError, "InvokeRateLimitError"),
    (exceptions.ModelAuthenticationError, "InvokeAuthorizationError"),
    (exceptions.ModelContextWindowExceededError, "ContextLengthExceededError"),
    (exceptions.ModelNotFoundError, "ModelNotFoundError"),
    (exceptions.ModelRequestRejectedError, "InvokeBadRequestError"),
    ((exceptions.ModelUnavailableError, exceptions.ModelServerError), "InvokeServerUnavailableError"),
    ((exceptions.ModelConnectionError, exceptions.ModelRequestTimeout), "InvokeConnectionError"),
)

INCOMPLETE: Final = "AnswerIncompleteError"
"""The reason of a run whose provider broke off the answer."""
TOOLS_AWAY: Final = "ToolServerUnavailableError"
"""The reason of a run whose tools cannot be used now."""
TOOLS_MISTAKEN: Final = "ToolConfigError"
"""The reason of a run whose app says something about tools that cannot be."""


def run_failed(error: Exception, model: str) -> RunFailed:
    """The failed run for an exception of the agent framework; `model` is named to the operator if given."""
    reason = next((reason for kinds, reason in _REASONS if isinstance(error, kinds)), None)
    kind = type(error).__name__.removeprefix("_HTTP")
    if not isinstance(error, exceptions.ModelAPIError):
        return RunFailed(f"the agent run failed ({kind})", reason)
    words = [kind, *filter(None, map(plain_word, (error.provider_error_code, error.provider_error_type)))]
    detail = ", ".join(dict.fromkeys(words))
    if isinstance(error, exceptions.ModelHTTPError):
        said = f"the model provider answered {error.status_code} ({detail})"
    else:
        said = f"the request to the model provider failed ({detail})"
    return RunFailed(said, reason, f"{said}, for the model {model!r}" if model else None)
