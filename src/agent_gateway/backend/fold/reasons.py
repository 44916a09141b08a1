"""Why runs fail, in the words of backends, and the code that clients get."""

import re
from typing import Final

_CODES: Final[dict[str, str]] = {
    "agent_run_limit_exceeded": "agent_run_limit_exceeded",
    "AgentLLMQuotaExceededError": "provider_quota_exceeded",
    "QuotaExceededError": "provider_quota_exceeded",
    "InvokeRateLimitError": "rate_limit_error",
    "InvokeAuthorizationError": "provider_not_initialize",
    "CredentialsValidateFailedError": "provider_not_initialize",
    "InvokeBadRequestError": "completion_request_error",
    "PluginPermissionDeniedError": "completion_request_error",
    "PluginNotFoundError": "completion_request_error",
    "binding_lost": "completion_request_error",
    "InvokeConnectionError": "service_unavailable",
    "InvokeServerUnavailableError": "service_unavailable",
    "shutdown": "service_unavailable",
}
"""Keys of errors.FAILURES by the error type or the reason of a failed run."""
_KNOWLEDGE: Final = re.compile(r"(?i)[a-z_.]*(knowledge|dataset)")
"""A knowledge base has many error codes; each of them names it."""
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_.]{0,47}")
"""Names of errors and reasons have no digits and no dashes; keys have them."""
_NO_MODEL: Final = re.compile(r"Missing required .?llm\b")


def failure_code(error_type: str | None, reason: str | None) -> str:
    """The code of a failed run. Its type decides before its reason; unknown ones are an internal error."""
    for word in filter(None, (error_type, reason)):
        if code := _CODES.get(word):
            return code
        if _KNOWLEDGE.match(word):
            return "completion_request_error"
    return "internal_server_error"


def cause(error_type: str | None, reason: str | None) -> str:
    """The reason for the log. Only plain words are used: the text of an error may hold credentials."""
    words = [word for word in (error_type, reason) if word and _WORD.fullmatch(word)]
    return ", ".join(words) or "no reason was given"


def misses_model(error: str) -> bool:
    """Whether a run failed because its composition has no model: the backend knows no clean-up runs."""
    return _NO_MODEL.match(error) is not None
