"""Public JSON of turns."""

from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from agent_gateway.domain.ids import canonical_uuid
from agent_gateway.filetypes import FileType
from agent_gateway.routes.schemas.base import NOT_BLANK, Body, ErrorBody, Metadata, UnixTime, User

MAX_REQUEST_FILES: Final = 100
"""Files that any app takes with a message, and more."""


class InputFileBody(Body):
    """A file that comes with a query."""

    type: FileType
    transfer_method: Literal["remote_url", "local_file"]
    url: str | None = Field(
        None,
        max_length=4096,
        validate_default=True,
        description="Where the file is, with `remote_url`: http or https. It is passed on, never fetched. "
        "The name `remote_url` is taken, too.",
    )
    upload_file_id: str | None = Field(
        None, validate_default=True, description="Which uploaded file it is, with `local_file`."
    )

    @model_validator(mode="before")
    @classmethod
    def _newer_name(cls, value: object) -> object:
        """Newer clients say `remote_url` where others say `url`."""
        if isinstance(value, dict) and not value.get("url") and value.get("remote_url"):
            return {**value, "url": value["remote_url"]}
        return value

    @field_validator("url")
    @classmethod
    def _remote(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("transfer_method") != "remote_url":
            return None
        if value and is_web_url(value):
            return value
        raise ValueError("must be an http or https URL")

    @field_validator("upload_file_id")
    @classmethod
    def _local(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("transfer_method") != "local_file":
            return None
        if canonical := canonical_uuid((value or "").strip()):
            return canonical
        raise ValueError("must be the id of an uploaded file")


def is_web_url(text: str) -> bool:
    """Whether this is a URL that an agent can be given: http or https, a host, nothing that breaks a line."""
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        return False
    printable = text.isprintable() and not any(letter.isspace() for letter in text)
    return parts.scheme in ("http", "https") and bool(host) and printable


class ChatMessageBody(Body):
    """Body of POST /chat-messages."""

    query: str = Field(
        description="What the user says.", examples=["What is 12 * 7?"], json_schema_extra=NOT_BLANK
    )
    user: User
    # Any JSON. A type that says so would be a name of its own in the document.
    inputs: dict[str, Any] = Field(default_factory=dict, description="Values of the app's input form.")
    response_mode: Literal["streaming", "blocking", "background"] = Field(
        "blocking", description="`background` answers 202 at once with an `events_url` to follow."
    )
    conversation_id: str | None = Field(
        None,
        description="UUID of the conversation to go on with; empty or absent starts a new one.",
        json_schema_extra={"format": "uuid"},
    )
    files: list[InputFileBody] = Field(default_factory=list, description="Files that come with the query.")
    auto_generate_name: bool = Field(
        True, description="Whether the app may name the conversation that this begins."
    )

    trace_id: str | None = Field(
        None, description="Passed on to the agent as `${trace_id}`. What is no id is ignored."
    )

    @field_validator("trace_id", mode="before")
    @classmethod
    def _text_or_nothing(cls, value: object) -> str | None:
        return value if isinstance(value, str) else None

    @field_validator("query")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value

    @field_validator("inputs", "files", "response_mode", "auto_generate_name", mode="before")
    @classmethod
    def _null_is_absent(cls, value: object, info: ValidationInfo) -> object:
        if value is not None:
            return value
        return cls.model_fields[info.field_name or ""].get_default(call_default_factory=True)

    @field_validator("files", mode="before")
    @classmethod
    def _not_too_many(cls, value: object) -> object:
        # Before each one is checked and its mistakes are listed.
        if isinstance(value, list) and len(value) > MAX_REQUEST_FILES:
            raise ValueError(f"must be at most {MAX_REQUEST_FILES}")
        return value

    @field_validator("conversation_id")
    @classmethod
    def _uuid(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        if canonical := canonical_uuid(value.strip()):
            return canonical
        raise ValueError("must be a UUID")


class StopBody(Body):
    """Body of POST /chat-messages/{task_id}/stop."""

    user: User


class BusyBody(ErrorBody):
    """409: `conversation_busy` names the turn that is running, `human_input_required` the open question."""

    task_id: str | None = Field(None, description="The running turn.")
    events_url: str | None = Field(None, description="Follows it without a key, for a limited time.")
    message_id: str | None = Field(None, description="The message that asks.")
    form_token: str | None = Field(None, description="Reads and submits the form of the open question.")


class ChatMessage(BaseModel):
    """A blocking answer."""

    event: Literal["message"]
    task_id: str
    id: str = Field(description="The same as `message_id`.")
    message_id: str
    conversation_id: str
    mode: Literal["chat"] = Field(description="`chat` in every app mode: existing clients reject others.")
    answer: str
    metadata: Metadata
    created_at: UnixTime


class BackgroundTurn(BaseModel):
    """A turn that was begun and can be followed."""

    task_id: str
    message_id: str
    conversation_id: str
    created_at: UnixTime
    status: Literal["running", "completed", "stopped", "failed"]
    events_url: str = Field(description="Follows the turn without a key, for a limited time.")
