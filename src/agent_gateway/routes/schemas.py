"""Public JSON: what clients send and what they get. Field names are the published contract's."""

import math
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from agent_gateway.app_config import AppMode
from agent_gateway.domain import canonical_uuid, clean_text

MAX_INT: Final = 2**63 - 1

User = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
    # Bodies are cleaned as a whole; this is for `user` in a query.
    AfterValidator(clean_text),
    Field(description="The client's own identifier of its end user; scopes everything."),
]


UnixTime = Annotated[int, Field(description="Unix time in seconds.")]
StepPosition = Annotated[int, Field(description="1, 2, 3 … in the order the steps were opened.")]
Thought = Annotated[str, Field(description="What the agent thought; empty in a tool step.")]
ToolName = Annotated[str, Field(description="The tool of a tool step; else empty.")]
ToolInput = Annotated[str, Field(description="The arguments of the tool as JSON text.")]
Observation = Annotated[str, Field(description="What the tool returned, as text; empty before it did.")]


class Body(BaseModel):
    """A request body: unknown fields are ignored, text is cleaned of what databases reject."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _clean(cls, value: Any) -> Any:
        try:
            return _clean(value)
        except RecursionError:
            raise ValueError("The body is nested too deeply.") from None


def _clean(value: Any) -> Any:
    match value:
        case str():
            return clean_text(value)
        case dict():
            return {clean_text(str(key)): _clean(item) for key, item in value.items()}
        case list():
            return [_clean(item) for item in value]
        case float() if not math.isfinite(value):
            raise ValueError("Numbers must be finite.")
        case int() if abs(value) > MAX_INT:
            raise ValueError("Whole numbers must fit into 64 bits.")
        case _:
            return value


class InputFile(Body):
    """A file that comes with a query."""

    type: Literal["image", "document", "audio", "video", "custom"]
    transfer_method: Literal["remote_url", "local_file"]
    url: str | None = Field(None, description="Where the file is, with `remote_url`.")
    upload_file_id: str | None = Field(None, description="Which uploaded file it is, with `local_file`.")


class ChatMessageBody(Body):
    """Body of POST /chat-messages."""

    query: str = Field(description="What the user says.", examples=["What is 12 * 7?"])
    user: User
    inputs: dict[str, Any] = Field(default_factory=dict, description="Values of the app's input form.")
    response_mode: Literal["streaming", "blocking", "background"] = Field(
        "blocking", description="`background` answers 202 at once with an `events_url` to follow."
    )
    conversation_id: str | None = Field(
        None, description="UUID of the conversation to go on with; empty or absent starts a new one."
    )
    files: list[InputFile] = Field(default_factory=list, description="Files that come with the query.")
    auto_generate_name: bool = Field(True, description="Accepted for existing clients.")

    @field_validator("query")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value

    @field_validator("inputs", "files", "response_mode", "auto_generate_name", mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any, info: Any) -> Any:
        if value is not None:
            return value
        return cls.model_fields[info.field_name].get_default(call_default_factory=True)

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


class Success(BaseModel):
    """The answer of what has nothing else to say."""

    result: Literal["success"]


class ErrorBody(BaseModel):
    """Every non-2xx body."""

    code: str = Field(description="What went wrong, for programs.", examples=["invalid_param"])
    message: str = Field(description="What went wrong, for people.")
    status: int = Field(description="The HTTP status.", examples=[400])


class BusyBody(ErrorBody):
    """409: `conversation_busy` names the turn that is running, `idempotency_conflict` does not."""

    task_id: str | None = Field(None, description="The running turn.")
    events_url: str | None = Field(None, description="Follows it without a key, for a limited time.")


class UsageBody(BaseModel):
    """Tokens, prices (decimal strings) and times (seconds) of a message; zeros when they are not known."""

    prompt_tokens: int
    prompt_unit_price: str
    prompt_price_unit: str
    prompt_price: str
    completion_tokens: int
    completion_unit_price: str
    completion_price_unit: str
    completion_price: str
    total_tokens: int
    total_price: str
    currency: str
    latency: float
    time_to_first_token: float
    time_to_generate: float


class Metadata(BaseModel):
    """What is known of an answer besides its text."""

    usage: UsageBody
    retriever_resources: list[dict[str, Any]]


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


class ConversationItem(BaseModel):
    """A conversation as listed."""

    id: str
    name: str
    inputs: dict[str, Any]
    status: Literal["normal"]
    introduction: str = Field(description="The app's opening statement.")
    created_at: UnixTime
    updated_at: UnixTime


class ConversationPage(BaseModel):
    """A page of conversations."""

    limit: int
    has_more: bool
    data: list[ConversationItem]


class ThoughtItem(BaseModel):
    """A step of a message as listed."""

    id: str
    chain_id: str | None
    message_id: str
    position: StepPosition
    thought: Thought
    tool: ToolName
    tool_labels: dict[str, Any]
    tool_input: ToolInput
    observation: Observation
    files: list[str]
    created_at: UnixTime


class Feedback(BaseModel):
    """What a user thought of an answer."""

    rating: Literal["like", "dislike"] | None


class MessageItem(BaseModel):
    """A message as listed."""

    id: str
    conversation_id: str
    parent_message_id: str | None
    inputs: dict[str, Any]
    query: str
    answer: str
    status: Literal["normal", "error"] = Field(description="`error` when its turn failed.")
    error: str | None = Field(description="Why its turn failed.")
    message_files: list[dict[str, Any]]
    feedback: Feedback | None
    retriever_resources: list[dict[str, Any]]
    agent_thoughts: list[ThoughtItem]
    created_at: UnixTime
    extra_contents: list[dict[str, Any]]
    message_tokens: int
    answer_tokens: int
    total_tokens: int
    provider_response_latency: float = Field(description="Seconds.")
    total_price: str = Field(description="A decimal number.")
    currency: str


class MessagePage(BaseModel):
    """A page of messages, oldest first."""

    limit: int
    has_more: bool
    data: list[MessageItem]


class AppInfo(BaseModel):
    """What an app says of itself."""

    name: str
    description: str
    tags: list[str]
    mode: AppMode = Field(description="Which events its streams have.")
    author_name: str


class Toggle(BaseModel):
    """A feature that is on or off."""

    enabled: bool


class VoiceToggle(Toggle):
    """Text to speech."""

    voice: str
    language: str
    autoPlay: str  # noqa: N815 - the published contract's name


class FileUpload(BaseModel):
    """Which files may come with a query."""

    enabled: bool
    allowed_file_types: list[str]
    allowed_file_extensions: list[str]
    allowed_file_upload_methods: list[str]
    number_limits: int
    image: dict[str, Any]


class SystemParameters(BaseModel):
    """Size limits in MB."""

    file_size_limit: int
    image_file_size_limit: int
    audio_file_size_limit: int
    video_file_size_limit: int
    workflow_file_upload_limit: int


class Parameters(BaseModel):
    """What a front end needs to draw the app."""

    opening_statement: str
    suggested_questions: list[str]
    suggested_questions_after_answer: Toggle
    speech_to_text: Toggle
    text_to_speech: VoiceToggle
    retriever_resource: Toggle
    annotation_reply: Toggle
    more_like_this: Toggle
    sensitive_word_avoidance: Toggle
    user_input_form: list[dict[str, Any]]
    file_upload: FileUpload
    system_parameters: SystemParameters


class Health(BaseModel):
    """Answer of the probes."""

    status: Literal["ok"]
