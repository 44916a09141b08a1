"""Turns the errors of models and their providers into failed runs, in words that hold no secrets.

The texts of these exceptions hold response bodies, in which some providers repeat the API key. Only the
reason, the status, the kind of error, the provider's own code for it and how long it asks to wait are passed
on. A body is read for phrases that say what went wrong, and no part of it is repeated.
"""

import traceback
from typing import Final

from pydantic_ai import exceptions

from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.causes import plain_word

INCOMPLETE: Final = "AnswerIncompleteError"
"""The reason of a run whose provider broke off the answer."""
UNUSABLE: Final = "AnswerUnusableError"
"""The reason of a run whose model gave no answer, or none that the agent can use."""
UNREADABLE: Final = "AnswerUnreadableError"
"""The reason of a run whose provider answered something that its API does not know: a page, broken JSON."""
TOO_LONG: Final = "OutputLengthExceededError"
"""The reason of a run whose model reached its longest answer in the middle of it."""
OUTPUT_INVALID: Final = "OutputInvalidError"
"""The reason of a run whose model gave no answer that fits the schema of its app."""
TOOLS_AWAY: Final = "ToolServerUnavailableError"
"""The reason of a run whose tools cannot be used now."""
TOOLS_MISTAKEN: Final = "ToolConfigError"
"""The reason of a run whose app says something about tools that cannot be."""
_CONTEXT: Final = "ContextLengthExceededError"

_REASONS: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    # The first match counts: the specific kinds are subclasses of those below them.
    ((exceptions.ModelRequestTimeout, exceptions.ModelTimeoutError), "InvokeTimeoutError"),
    (exceptions.ModelQuotaExceededError, "QuotaExceededError"),
    (exceptions.UsageLimitExceeded, "agent_run_limit_exceeded"),
    (exceptions.OutputTokenLimitExceeded, TOO_LONG),
    (exceptions.ContentFilterError, "ContentFilterError"),
    (exceptions.ModelRateLimitError, "InvokeRateLimitError"),
    (exceptions.ModelAuthenticationError, "InvokeAuthorizationError"),
    (exceptions.ModelContextWindowExceededError, _CONTEXT),
    (exceptions.ModelNotFoundError, "ModelNotFoundError"),
    (exceptions.ModelRequestRejectedError, "InvokeBadRequestError"),
    ((exceptions.ModelUnavailableError, exceptions.ModelServerError), "InvokeServerUnavailableError"),
    (exceptions.ModelConnectionError, "InvokeConnectionError"),
    (exceptions.ModelHTTPError, "InvokeBadRequestError"),
    # What is left is an answer that could not be read: its status was below 400.
    (exceptions.ModelAPIError, UNREADABLE),
)

_TOO_MUCH_CONTEXT: Final = (
    "available context size",
    "exceed_context_size",
    "context_length",
    "context length",
    "context window",
    "prompt is too long",
    "input is too long",
    "input token count",
    "prompt too long",
    "too many tokens",
)
"""How providers word, in lower case, that a conversation is too long, where the framework does not see it."""

_NO_RETRIES_LEFT: Final = "Exceeded maximum output retries"
_FOREIGN: Final = "it is not one of its API; is the provider's base URL right?"
_ODD_BEHAVIOR: Final[tuple[tuple[str, str, str], ...]] = (
    ("Streamed response ended without content", UNREADABLE, _FOREIGN),
    ("Invalid response from", UNREADABLE, _FOREIGN),
    (_NO_RETRIES_LEFT, UNUSABLE, "it is empty, or not of the form that the app asks for"),
    ("Tool ", UNUSABLE, "it calls a tool that does not exist, or with wrong arguments"),
)
"""How the framework's text about an odd answer begins, the reason of the run, and what is wrong."""

_READ: Final = 4096
"""Characters of a body that are looked at."""
_FAILURES: Final = (exceptions.AgentRunError, exceptions.UserError, exceptions.FallbackExceptionGroup)
_READERS: Final = ("pydantic_ai.models.", "openai.", "anthropic.", "google.")
"""Modules that read the answers of providers."""


def run_failed(error: Exception, model: str, structured: bool = False) -> RunFailed:
    """The failed run for an exception of the agent framework; `model` is named to the operator if given.

    When all of several models failed, the last failure counts, and the operator is told of each.
    `structured` says that the answer had to fit a schema.
    """
    if isinstance(error, exceptions.FallbackExceptionGroup):
        failures = [run_failed(one, "") for one in failures_in(error)]
        told = "; ".join(failure.error for failure in failures)
        return RunFailed(
            failures[-1].error, failures[-1].reason, f"all {len(failures)} models failed: {told}"
        )
    if structured and str(error).startswith(_NO_RETRIES_LEFT):
        return RunFailed("the model gave no answer that fits the schema", OUTPUT_INVALID)
    if isinstance(error, exceptions.ModelAPIError):
        said, reason = _api_error(error)
    else:
        said, reason = _agent_error(error)
    return RunFailed(said, reason, f"{said}, for the model {model!r}" if model else None)


def is_failure(error: Exception) -> bool:
    """Whether `run_failed` has words for this exception of an agent's run; others are faults of a program."""
    return isinstance(error, _FAILURES) or _broke_a_reader(error)


def failures_in(error: Exception) -> list[Exception]:
    """The failure of each model that was asked, in order."""
    if not isinstance(error, exceptions.FallbackExceptionGroup):
        return [error]
    return [one for one in error.exceptions if isinstance(one, Exception)]


def exceeds_context(error: exceptions.ModelHTTPError) -> bool:
    """Whether the provider says that the conversation is too long for the model."""
    # Local servers answer 500 for it.
    if error.status_code not in (400, 413, 500):
        return False
    text = str(error.body)[:_READ].lower()
    return any(phrase in text for phrase in _TOO_MUCH_CONTEXT)


def _api_error(error: exceptions.ModelAPIError) -> tuple[str, str | None]:
    kind = type(error).__name__.removeprefix("_HTTP")
    reason = _reason(error)
    words = [kind, *filter(None, map(plain_word, (error.provider_error_code, error.provider_error_type)))]
    if error.retry_after is not None:
        words.append(f"it asks to wait {error.retry_after:.0f} s")
    detail = ", ".join(dict.fromkeys(words))
    if isinstance(error, exceptions.ModelRequestTimeout):
        return f"the model provider took longer than {error.timeout:g} s ({error.setting})", reason
    if isinstance(error, exceptions.ModelHTTPError):
        return f"the model provider answered {error.status_code} ({detail})", reason
    if reason == UNREADABLE:
        return f"the model provider's answer cannot be read ({detail})", reason
    return f"the request to the model provider failed ({detail})", reason


def _agent_error(error: Exception) -> tuple[str, str | None]:
    kind = type(error).__name__
    if not isinstance(error, exceptions.AgentRunError) and _broke_a_reader(error):
        return f"the model provider's answer cannot be read ({kind})", UNREADABLE
    # Not its subclasses, which have reasons of their own.
    if type(error) is exceptions.UnexpectedModelBehavior:
        for beginning, reason, wrong in _ODD_BEHAVIOR:
            if error.message.startswith(beginning):
                return f"the model's answer cannot be used: {wrong}", reason
        return f"the model's answer cannot be used ({kind})", UNUSABLE
    return f"the agent run failed ({kind})", _reason(error)


def _reason(error: Exception) -> str | None:
    if isinstance(error, exceptions.ModelHTTPError) and exceeds_context(error):
        return _CONTEXT
    return next((reason for kinds, reason in _REASONS if isinstance(error, kinds)), None)


def _broke_a_reader(error: Exception) -> bool:
    """Whether what reads the answers of providers raised it, as it does for JSON of another shape."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__", "")).startswith(_READERS)
