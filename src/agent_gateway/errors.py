"""Every error the gateway raises on purpose.

GatewayError                    code + a text that is safe to show a client
├── InvalidParam                the request's shape or values (`param` names the field)
├── BadRequest                  well-formed, but makes no sense here
├── AppUnavailable              the app does not have this feature
├── NotWorkflowApp              a route for workflow apps
├── NotSupported                a route for what no app here has
├── Unauthorized                no key, a wrong key, a spent ticket
├── NotFound                    unknown, or somebody else's
│   ├── EndUserNotFound
│   └── FileNotFound            the same of a file
├── UploadRefused               an upload that cannot be taken; says which of the contract's codes
├── UnsupportedFileType         the app takes no files of that kind
├── FileTooLarge                larger than its kind may be
├── ConversationBusy            a turn of that conversation is running
├── QuestionOpen                a form of that conversation waits for its answer
├── FormSubmitted               the form has its answer
├── FormExpired                 the form was not answered in time
├── IdempotencyConflict         the key was used with another body
├── TooManyRequests             a limit of the app is reached: try again later
├── Unavailable                 draining, full, or the database is away: try again
├── TurnError                   a turn failed; `code` is one of FAILURES
└── ConfigError                 settings, an app file or a command; shown to the operator

BackendError                    never shown to clients: mapped to TurnError by the runner
├── BackendUnreachable          no answer (`nothing_sent`: proven that no request arrived)
├── BackendRefused              an HTTP status that is not the expected one
├── BackendGarbage              bytes that are not the run protocol
├── RunLost                     the backend does not know the run
├── RunGap                      the run's log no longer holds what comes next
└── RunNotSucceeded             a run that the gateway made on its own account failed

StoreError                      the database said no
├── StoreUnavailable            passing: the connection, a timeout, a lock; may be retried
└── StoreRejected               permanent: this data cannot be written

ObjectError                     the file store said no
├── ObjectMissing               it has no such object
└── ObjectsUnavailable          passing or not: it did not do what it was asked

This module knows no HTTP: `routes/http/errors.py` has the one table from code to status.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

FAILURES: Final[dict[str, str]] = {
    "rate_limit_error": "The model provider's rate limit was exceeded. Please try again later.",
    "provider_not_initialize": "The model provider rejected the credentials of this app.",
    "provider_quota_exceeded": "The quota of this app at the model provider is used up.",
    "completion_request_error": "The model provider rejected the request.",
    "agent_run_limit_exceeded": "The agent reached its limit of model calls or of time in this turn.",
    "service_unavailable": "The agent backend is not available. Please try again.",
    "turn_interrupted": "The turn was interrupted before it could be completed. Please try again.",
    "turn_timeout": "The agent did not answer in time.",
    "human_input_required": "The agent waits for an answer to its question. Please submit the form.",
    "human_input_form_expired": "The form has expired.",
    "internal_server_error": "The agent could not complete this turn.",
}
"""Code of a failed turn → the only text about it that reaches a client."""


RETRY_SECONDS: Final = 2
"""After which a client should try again when nothing better is known."""


class GatewayError(Exception):
    """Base of what may be shown to a client: a code of the contract and a safe text."""

    code: str = "internal_server_error"
    retry_after: int | None = None
    """Seconds after which the client should try again, when that makes sense."""
    details: Mapping[str, str] = MappingProxyType({})
    """More fields for the error's body."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidParam(GatewayError):
    """A field of the request is missing or wrong; the message names it."""

    code = "invalid_param"


class BadRequest(GatewayError):
    """The request is well-formed but cannot be served as it is."""

    code = "bad_request"


class AppUnavailable(GatewayError):
    """The app does not have the feature that was asked for."""

    code = "app_unavailable"


class NotWorkflowApp(GatewayError):
    """The route is for workflow apps."""

    code = "not_workflow_app"


class NotSupported(GatewayError):
    """The route is of the published API, but nothing here does what it is for."""

    code = "not_supported"


class Unauthorized(GatewayError):
    """The request carries no valid key or ticket."""

    code = "unauthorized"


class NotFound(GatewayError):
    """What was asked for does not exist for this caller."""

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
    """Files were sent in a way that cannot be taken; `code` says which."""

    def __init__(
        self, code: Literal["no_file_uploaded", "too_many_files", "filename_not_exists_error"], message: str
    ) -> None:
        super().__init__(message)
        self.code = code


class UnsupportedFileType(GatewayError):
    """The app takes no files of this kind."""

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
    """A question of the conversation is open, and its app takes no message as the answer."""

    code = "human_input_required"

    def __init__(self, message_id: str, form_token: str) -> None:
        super().__init__(FAILURES[self.code])
        self.details = {"message_id": message_id, "form_token": form_token}


class FormSubmitted(GatewayError):
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
    """A limit of the app is reached; nothing was begun."""

    code = "too_many_requests"

    def __init__(self, message: str, retry_after: int = RETRY_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(GatewayError):
    """The gateway cannot take this request now (draining, full, database away)."""

    code = "service_unavailable"

    def __init__(self, message: str, retry_after: int = RETRY_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TurnError(GatewayError):
    """A turn failed; `code` is a key of FAILURES and decides the text."""

    def __init__(self, code: str) -> None:
        super().__init__(FAILURES[code])
        self.code = code
        if code == Unavailable.code:
            self.retry_after = RETRY_SECONDS


class ConfigError(Exception):
    """Settings, an app file or a command are wrong; the text is for the operator."""


class BackendError(Exception):
    """Base of what can go wrong between the gateway and the agent backend."""


class BackendUnreachable(BackendError):
    """No answer from the backend; `nothing_sent` when it is proven that no request reached it."""

    def __init__(self, message: str, *, nothing_sent: bool = False) -> None:
        super().__init__(message)
        self.nothing_sent = nothing_sent


class BackendRefused(BackendError):
    """The backend answered with an unexpected status. Its body may hold secrets: never kept."""

    def __init__(self, status: int) -> None:
        redirect = ", a redirect, which is not followed: is AGENT_GATEWAY_BACKEND_URL its own address?"
        super().__init__(f"the backend answered {status}{redirect if 300 <= status < 400 else ''}")
        self.status = status


class BackendGarbage(BackendError):
    """The backend sent something that is not the run protocol."""


class RunLost(BackendError):
    """The backend does not know the run (any more)."""


class RunGap(BackendError):
    """The run's log does not go on where it was left: events were trimmed."""


class RunNotSucceeded(BackendError):
    """A run that the gateway made on its own account did not come to a good end; the text says why.

    `misses_model`: the backend runs nothing without a model, so it knows no clean-up runs.
    """

    def __init__(self, why: str, *, misses_model: bool = False) -> None:
        super().__init__(f"the run did not succeed: {why}")
        self.misses_model = misses_model


class StoreError(Exception):
    """Base of what the database refuses."""


class StoreUnavailable(StoreError):
    """A passing failure of the database: trying again later may work."""


class StoreRejected(StoreError):
    """The database will never take this write."""


class ObjectError(Exception):
    """Base of what goes wrong between the gateway and the file store."""


class ObjectMissing(ObjectError):
    """The file store has no object of that key."""


class ObjectsUnavailable(ObjectError):
    """The file store did not do what it was asked; trying again may work."""
