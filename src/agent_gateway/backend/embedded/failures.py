"""Turns the errors of models and their providers into failed runs, in words that hold no secrets.

The texts of these exceptions hold response bodies, in which some providers repeat the API key. Only the
reason, the status and the kind of error are passed on.
"""

from typing import Final

from pydantic_ai import exceptions

from agent_gateway.backend.embedded.runs import RunFailed

_REASONS: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    # The first match counts: the specific kinds are subclasses of `ModelRequestRejectedError`.
    (exceptions.ModelQuotaExceededError, "QuotaExceededError"),
    (exceptions.UsageLimitExceeded, "agent_run_limit_exceeded"),
    (exceptions.ModelRateLimitError, "InvokeRateLimitError"),
    (exceptions.ModelAuthenticationError, "InvokeAuthorizationError"),
    (exceptions.ModelRequestRejectedError, "InvokeBadRequestError"),
    ((exceptions.ModelUnavailableError, exceptions.ModelServerError), "InvokeServerUnavailableError"),
    ((exceptions.ModelConnectionError, exceptions.ModelRequestTimeout), "InvokeConnectionError"),
)


def run_failed(error: Exception) -> RunFailed:
    """The failed run for an exception of the agent framework."""
    reason = next((reason for kinds, reason in _REASONS if isinstance(error, kinds)), None)
    kind = type(error).__name__.removeprefix("_HTTP")
    if isinstance(error, exceptions.ModelHTTPError):
        return RunFailed(f"the model provider answered {error.status_code} ({kind})", reason)
    if isinstance(error, exceptions.ModelAPIError):
        return RunFailed(f"the request to the model provider failed ({kind})", reason)
    return RunFailed(f"the agent run failed ({kind})", reason)
