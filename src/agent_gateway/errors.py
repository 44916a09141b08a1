"""Every error the gateway raises on purpose.

GatewayError                    code + a text that is safe to show a client
├── InvalidParam                the request's shape or values (`param` names the field)
├── BadRequest                  well-formed, but makes no sense here
├── AppUnavailable              the app does not have this feature
├── NotWorkflowApp              a route for workflow apps
├── NotSupported                a route for a feature that no app has here
├── Unauthorized                no key, a wrong key, an expired ticket
├── NotFound                    unknown, or it belongs to another caller
│   ├── EndUserNotFound
│   └── FileNotFound
├── UploadRefused               an upload is malformed; `code` is one of the contract's
├── UnsupportedFileType         the app accepts no files of that kind
├── FileTooLarge                a file exceeds the limit of its kind
├── ConversationBusy            another turn of the conversation is running
├── QuestionOpen                a form of the conversation waits for its answer
├── FormAlreadySubmitted        the form was answered before
├── FormExpired                 the form was not answered in time
├── IdempotencyConflict         the key was used with another body
├── TooManyRequests             a limit of the app is reached; try again later
├── Unavailable                 draining, full, or without its database; try again
├── TurnError                   a turn failed; `code` is one of FAILURES
└── ConfigError                 settings, an app file or a command; shown to the operator

BackendError                    never shown to clients: mapped to TurnError by the runner
├── BackendUnreachable          no answer (`nothing_sent`: it is proven that no request arrived)
├── BackendRefused              an unexpected HTTP status
├── BackendGarbage              bytes that do not follow the run protocol
├── RunLost                     the backend does not know the run
├── RunGap                      events are missing from the run's log
└── RunNotSucceeded             an auxiliary run failed

StoreError                      the database refused a statement
├── StoreUnavailable            for now: the connection, a timeout, a lock; may be retried
└── StoreRejected               for good: this data cannot be written

ObjectError                     the file store refused an operation
├── ObjectMissing               it has no such object
└── ObjectsUnavailable          it failed, for now or for good; may be retried

This module knows no HTTP: `routes/http/errors.py` has the one table from code to status.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from agent_gateway.causes import Cause, Mistake

FAILURES: Final[dict[str, str]] = {
    "rate_limit_error": "The model provider's rate limit was exceeded. Please try again later.",
    "provider_not_initialize": "The model provider rejected the credentials of this app.",
    "provider_quota_exceeded": "The quota of this app at the model provider is used up.",
    "model_currently_not_support": "The model of this app does not exist at its provider.",
    "context_length_exceeded": "The conversation is too long for the model. Please begin a new one.",
    "completion_request_error": "The model provider rejected the request.",
    "provider_unavailable": "The model provider is not available. Please try again.",
    "agent_run_limit_exceeded": "The agent reached its limit of model calls or of time in this turn.",
    "output_length_exceeded": "The answer reached the model's longest length before it was complete.",
    "content_filtered": "The content filter of the model provider stopped the answer.",
    "answer_incomplete": "The model gave no complete answer. Please try again.",
    "provider_timeout": "The model provider did not answer in time. Please try again.",
    "output_invalid": "The model gave no answer in the form that this app needs. Please try again.",
    "service_unavailable": "The agent backend is not available. Please try again.",
    "backend_refused": "The agent backend refused the request.",
    "turn_interrupted": "The turn was interrupted before it could be completed. Please try again.",
    "turn_timeout": "The agent did not answer in time.",
    "human_input_required": "The agent waits for an answer to its question. Please submit the form.",
    "human_input_form_expired": "The form has expired.",
    "internal_server_error": "The agent could not complete this turn.",
}
"""Code of a failed turn → the only text about the failure that a client gets."""

TRY_AGAIN: Final = frozenset({"service_unavailable", "provider_unavailable"})
"""Codes of failures that pass by themselves soon."""

RETRY_SECONDS: Final = 2
"""After this time a client should try again, unless a better one is known."""


class GatewayError(Exception):
    """Base of the errors that a client may see: a code of the contract and a safe text."""

    code: str = "internal_server_error"
    retry_after: int | None = None
    """Seconds after which the client should try again; None when that would not help."""
    details: Mapping[str, str] = MappingProxyType({})
    """More fields for the error's body."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidParam(GatewayError):
    """A field of the request is missing or wrong; the message names it."""

    code = "invalid_param"


class BadRequest(GatewayError):
    """The request is well-formed, but makes no sense in this state."""

    code = "bad_request"


class AppUnavailable(GatewayError):
    """The app does not have the requested feature."""

    code = "app_unavailable"


class NotWorkflowApp(GatewayError):
    """The route is for workflow apps."""

    code = "not_workflow_app"


class NotSupported(GatewayError):
    """The route belongs to the published API, but no app of this gateway has its feature."""

    code = "not_supported"


class Unauthorized(GatewayError):
    """The request carries no valid key or ticket."""

    code = "unauthorized"


class NotFound(GatewayError):
    """The requested thing does not exist for this caller."""

    code = "not_found"


class EndUserNotFound(NotFound):
    """There is no such end user of this app."""

    code = "end_user_not_found"


class FileNotFound(NotFound):
    """The file does not exist for this caller."""

    code = "file_not_found"

    def __init__(self) -> None:
        super().__init__("File not found.")


class UploadRefused(GatewayError):
    """An upload is malformed; `code` says how."""

    def __init__(
        self, code: Literal["no_file_uploaded", "too_many_files", "filename_not_exists_error"], message: str
    ) -> None:
        super().__init__(message)
        self.code = code


class UnsupportedFileType(GatewayError):
    """The app accepts no files of this kind."""

    code = "unsupported_file_type"


class FileTooLarge(GatewayError):
    """A file is larger than files of its kind may be."""

    code = "file_too_large"


class ConversationBusy(GatewayError):
    """Another turn of the conversation is running; carries its task id."""

    code = "conversation_busy"

    def __init__(self, task_id: str) -> None:
        super().__init__("Another turn of this conversation is still running.")
        self.task_id = task_id
        self.details = {"task_id": task_id}


class QuestionOpen(GatewayError):
    """A question of the conversation is open, and its app accepts no message as the answer."""

    code = "human_input_required"

    def __init__(self, message_id: str, form_token: str) -> None:
        super().__init__(FAILURES[self.code])
        self.details = {"message_id": message_id, "form_token": form_token}


class FormAlreadySubmitted(GatewayError):
    """The form was submitted, or answered by a message."""

    code = "human_input_form_submitted"

    def __init__(self) -> None:
        super().__init__("The form has already been submitted.")


class FormExpired(GatewayError):
    """The form was not answered in time."""

    code = "human_input_form_expired"

    def __init__(self) -> None:
        super().__init__(FAILURES[self.code])


class IdempotencyConflict(GatewayError):
    """The idempotency key was used before with a different body."""

    code = "idempotency_conflict"


class TooManyRequests(GatewayError):
    """A limit of the app is reached; nothing was started."""

    code = "too_many_requests"

    def __init__(self, message: str, retry_after: int = RETRY_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(GatewayError):
    """The gateway cannot accept this request now (draining, full, without its database)."""

    code = "service_unavailable"

    def __init__(self, message: str, retry_after: int = RETRY_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TurnError(GatewayError):
    """A turn failed; `code` is a key of FAILURES and decides the text. `cause` is for the operator."""

    def __init__(self, code: str, cause: Cause | None = None) -> None:
        super().__init__(FAILURES[code])
        self.code = code
        self.cause = cause or Cause(code)
        if code in TRY_AGAIN:
            self.retry_after = RETRY_SECONDS


class ConfigError(Exception):
    """Settings, an app file or a command are wrong; the text is for the operator."""


class BackendError(Exception):
    """Base of the errors between the gateway and the agent backend."""


class BackendUnreachable(BackendError):
    """No answer from the backend; `nothing_sent` when it is proven that no request reached it."""

    def __init__(self, message: str, *, nothing_sent: bool = False) -> None:
        super().__init__(message)
        self.nothing_sent = nothing_sent


class BackendRefused(BackendError):
    """The backend answered with an unexpected status. Of its body, which may hold secrets, only what is safe.

    `said` is one plain word; `mistakes` say what is wrong with the request.
    """

    def __init__(self, status: int, said: str = "", mistakes: tuple[Mistake, ...] = ()) -> None:
        if 300 <= status < 400:
            said = "a redirect, which is not followed: is AGENT_GATEWAY_BACKEND_URL its own address?"
        super().__init__(f"the backend answered {status}{f', {said}' if said else ''}")
        self.status = status
        self.said = said
        self.mistakes = mistakes


class BackendGarbage(BackendError):
    """The backend sent bytes that do not follow the run protocol."""


class RunLost(BackendError):
    """The backend does not know the run, or no longer knows it."""


class RunGap(BackendError):
    """Events are missing from the run's log: the backend trimmed it."""


class RunNotSucceeded(BackendError):
    """An auxiliary run failed; the text says why.

    `misses_model`: the backend runs nothing without a model, so it has no clean-up runs.
    """

    def __init__(self, why: str, *, misses_model: bool = False) -> None:
        super().__init__(f"the run did not succeed: {why}")
        self.misses_model = misses_model


class StoreError(Exception):
    """Base of the errors of the database."""


class StoreUnavailable(StoreError):
    """The database fails for now: trying again later may work."""


class StoreHeldUp(StoreUnavailable):
    """The database gave a transaction up for the sake of another one: nothing of it was written."""


class StoreLeft(StoreUnavailable):
    """This process leaves, and begins nothing more in the database."""


class StoreRejected(StoreError):
    """The database will never take this write."""


class ObjectError(Exception):
    """Base of the errors between the gateway and the file store."""


class ObjectMissing(ObjectError):
    """The file store has no object with that key."""


class ObjectsUnavailable(ObjectError):
    """The file store failed; trying again may work."""
