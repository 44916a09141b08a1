"""Why runs fail, in the words of backends and model providers: the code for clients, the cause for operators.

The text of an error may hold credentials or a user's words. So nothing of it is passed on but what is on a
list here: names of errors, known phrases, and the HTTP status.
"""

import re
from typing import Final

from agent_gateway.causes import Cause, Failure, plain_word

_CODES: Final[dict[str, str]] = {
    "agent_run_limit_exceeded": "agent_run_limit_exceeded",
    "AgentLLMQuotaExceededError": "provider_quota_exceeded",
    "QuotaExceededError": "provider_quota_exceeded",
    "InvokeRateLimitError": "rate_limit_error",
    "InvokeAuthorizationError": "provider_not_initialize",
    "CredentialsValidateFailedError": "provider_not_initialize",
    "ModelNotFoundError": "model_currently_not_support",
    "ModelCurrentlyNotSupportError": "model_currently_not_support",
    "ContextLengthExceededError": "context_length_exceeded",
    "OutputLengthExceededError": "output_length_exceeded",
    "ContentFilterError": "content_filtered",
    "AnswerIncompleteError": "answer_incomplete",
    "OutputInvalidError": "output_invalid",
    "InvokeTimeoutError": "provider_timeout",
    "AnswerUnusableError": "answer_incomplete",
    "AnswerUnreadableError": "provider_unavailable",
    "InvokeBadRequestError": "completion_request_error",
    "PluginPermissionDeniedError": "completion_request_error",
    "PluginNotFoundError": "completion_request_error",
    "binding_lost": "completion_request_error",
    "InvokeConnectionError": "provider_unavailable",
    "InvokeServerUnavailableError": "provider_unavailable",
    "shutdown": "service_unavailable",
    "ToolServerUnavailableError": "service_unavailable",
    "process_lost": "turn_interrupted",
}
"""Keys of errors.FAILURES by the error type or the reason of a failed run."""

_VAGUE: Final = frozenset({"completion_request_error", "internal_server_error"})
"""Codes that a known phrase in the error's text makes more exact."""

_PHRASES: Final[dict[str, str]] = {
    "context_length_exceeded": "context_length_exceeded",
    "context window": "context_length_exceeded",
    "model_not_found": "model_currently_not_support",
    "insufficient_quota": "provider_quota_exceeded",
    "billing_hard_limit_reached": "provider_quota_exceeded",
    "invalid_api_key": "provider_not_initialize",
    "authentication_error": "provider_not_initialize",
    "rate_limit_exceeded": "rate_limit_error",
    "rate limit exceeded": "rate_limit_error",
    "content_filter": "content_filtered",
    "content_policy_violation": "content_filtered",
    "overloaded": "provider_unavailable",
    "peer closed connection": "answer_incomplete",
    "refused the connection": "provider_unavailable",
    "exceeded maximum output retries": "",
    "layer names must match": "",
    "unknown snapshot modules": "",
    "unknown registered module": "",
    "unprocessed tool calls": "",
    "user_prompts must not be empty": "",
    "missing required 'llm'": "",
    "validation error": "",
    "invalid json": "",
    "timed out": "",
    "out of memory": "",
}
"""What may be repeated of an error's text, in lower case → the code that it proves, if it proves one."""

_KNOWLEDGE: Final = re.compile(r"(?i)[a-z_.]*(knowledge|dataset)")
"""A knowledge base has many error codes; each of them names it."""
_NO_MODEL: Final = re.compile(r"Missing required .?llm\b")
_STATUS: Final = re.compile(r"(?i)\b(?:status(?:[_ ]code)?|error code|answered|http)[\s:=]{1,3}([45]\d\d)\b")
_READ: Final = 4096
"""Characters of an error's text that are looked at."""
_DECLARED: Final = 300
"""Characters of a declared cause that are kept."""


def failure_of(error_type: str | None, reason: str | None, error: str, declared: str = "") -> Failure:
    """Why a run failed. Its type decides before its reason, and both before the text of its error.

    Unknown ones are an internal error. `declared` is what the backend itself declares to be safe.
    """
    code, named = "internal_server_error", ""
    for word in filter(None, (error_type, reason)):
        if found := _CODES.get(word):
            code, named = found, word
            break
        if _KNOWLEDGE.match(word):
            code = "completion_request_error"
            break
    text = error[:_READ]
    lowered = text.lower()
    phrases = [phrase for phrase in _PHRASES if phrase in lowered]
    if code in _VAGUE:
        code = next((proven for phrase in phrases if (proven := _PHRASES[phrase])), code)
    words = [word for given in (error_type, reason) if (word := plain_word(given))]
    kind = named or next(iter(words), "run_failed")
    status = _STATUS.search(text)
    said = [word for word in words if word != kind] + phrases
    told = declared[:_DECLARED] if declared.isprintable() and declared else ", ".join(said)
    return Failure(code, Cause(kind, int(status[1]) if status else None, told))


def misses_model(error: str) -> bool:
    """Whether a run failed because its composition has no model: the backend knows no clean-up runs."""
    return _NO_MODEL.match(error) is not None
