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
    ((exceptions.ModelRequestTimeout, exceptions.ModelTimeoutError), "InvokeTimeoutError"),
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
    (exceptions.ModelConnectionError, "InvokeConnectionError"),
)

INCOMPLETE: Final = "AnswerIncompleteError"
"""The reason of a run whose provider broke off the answer."""
OUTPUT_INVALID: Final = "OutputInvalidError"
"""The reason of a run whose model gave no answer that fits the schema of its app."""
_NO_RETRIES_LEFT: Final = "Exceeded maximum output retries"
"""How the framework begins the error that it has no class of its own for."""


def run_failed(error: Exception, model: str, structured: bool = False) -> RunFailed:
    """The failed run for an exception of the agent framework; `model` is named to the operator if given.

    When all of several models failed, the last failure counts; the operator is told of each.
    `structured` says that the answer had to fit a schema.
    """
    if isinstance(error, exceptions.FallbackExceptionGroup):
        failures = [run_failed(one, "") for one in error.exceptions if isinstance(one, Exception)]
        last = failures[-1]
        told = "; ".join(failure.error for failure in failures)
        return RunFailed(last.error, last.reason, f"all {len(failures)} models failed: {told}")
    if structured and str(error).startswith(_NO_RETRIES_LEFT):
        return RunFailed("the model gave no answer that fits the schema", OUTPUT_INVALID)
    reason = next((reason for kinds, reason in _REASONS if isinstance(error, kinds)), None)
    kind = type(error).__name__.removeprefix("_HTTP")
    if not isinstance(error, exceptions.ModelAPIError):
        return RunFailed(f"the agent run failed ({kind})", reason)
    words = [kind, *filter(None, map(plain_word, (error.provider_error_code, error.provider_error_type)))]
    detail = ", ".join(dict.fromkeys(words))
    if isinstance(error, exceptions.ModelRequestTimeout):
        said = f"the model provider took longer than {error.timeout:g} s ({error.setting})"
    elif isinstance(error, exceptions.ModelHTTPError):
        said = f"the model provider answered {error.status_code} ({detail})"
    else:
        said = f"the request to the model provider failed ({detail})"
    return RunFailed(said, reason, f"{said}, for the model {model!r}" if model else None)
