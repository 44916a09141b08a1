"""What the gateway takes and gives: dictionaries as in its JSON.

Made from openapi/openapi.json by dev/generate_python_client.py: do not edit.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict


class AgentMessageEvent(TypedDict):
    """A piece of the answer in the modes `agent-chat` and `agent`."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["agent_message"]
    id: str
    """The same as `message_id`."""

    answer: str
    """Text that follows what was sent before."""


class AgentThoughtEvent(TypedDict):
    """A reasoning or tool step was opened, grew or got its result; always the whole step."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["agent_thought"]
    id: str
    """The step's own id: a later event with it replaces this one."""

    position: int
    """1, 2, 3 … in the order the steps were opened."""

    thought: str
    """What the agent thought; empty in a tool step."""

    tool: str
    """The tool of a tool step; else empty."""

    tool_labels: dict[str, object]
    tool_input: str
    """The arguments of the tool as JSON text."""

    observation: str
    """What the tool returned, as text; empty before it did."""

    message_files: list[str]


class AppInfo(TypedDict):
    """What an app says of itself."""

    name: str
    description: str
    tags: list[str]
    mode: Literal["chat", "agent-chat", "agent"]
    """Which events its streams have."""

    author_name: str


class AppMeta(TypedDict):
    """What is known of an app's tools."""

    tool_icons: dict[str, object]


class AppParameters(TypedDict):
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
    user_input_form: list[dict[str, object]]
    file_upload: FileUpload
    system_parameters: SystemParameters


class AppSite(TypedDict):
    """How a page that shows the app looks."""

    title: str
    chat_color_theme: str
    chat_color_theme_inverted: bool
    icon_type: Literal["emoji", "image", "link"]
    icon: str
    icon_background: str
    icon_url: str | None
    description: str
    copyright: str
    privacy_policy: str
    custom_disclaimer: str
    input_placeholder: str
    default_language: str
    show_workflow_steps: bool
    use_icon_as_answer_icon: bool


class BackgroundTurn(TypedDict):
    """A turn that was begun and can be followed."""

    task_id: str
    message_id: str
    conversation_id: str
    created_at: int
    """Unix time in seconds."""

    status: Literal["running", "completed", "stopped", "failed"]
    events_url: str
    """Follows the turn without a key, for a limited time."""


class BusyBody(TypedDict):
    """409: `conversation_busy` names the turn that is running, `human_input_required` the open question."""

    code: str
    """What went wrong, for programs."""

    message: str
    """What went wrong, for people."""

    status: int
    """The HTTP status."""

    task_id: NotRequired[str | None]
    """The running turn."""

    events_url: NotRequired[str | None]
    """Follows it without a key, for a limited time."""

    message_id: NotRequired[str | None]
    """The message that asks."""

    form_token: NotRequired[str | None]
    """Reads and submits the form of the open question."""


class ChatMessage(TypedDict):
    """A blocking answer."""

    event: Literal["message"]
    task_id: str
    id: str
    """The same as `message_id`."""

    message_id: str
    conversation_id: str
    mode: Literal["chat"]
    """`chat` in every app mode: existing clients reject others."""

    answer: str
    metadata: Metadata
    created_at: int
    """Unix time in seconds."""


class ChatMessageBody(TypedDict):
    """Body of POST /chat-messages."""

    query: str
    """What the user says."""

    user: str
    """The client's own identifier of its end user; scopes everything."""

    inputs: NotRequired[dict[str, object]]
    """Values of the app's input form."""

    response_mode: NotRequired[Literal["streaming", "blocking", "background"]]
    """`background` answers 202 at once with an `events_url` to follow."""

    conversation_id: NotRequired[str | None]
    """UUID of the conversation to go on with; empty or absent starts a new one."""

    files: NotRequired[list[InputFileBody]]
    """Files that come with the query."""

    auto_generate_name: NotRequired[bool]
    """Whether the app may name the conversation that this begins."""

    trace_id: NotRequired[str | None]
    """Passed on to the agent as `${trace_id}`. What is no id is ignored."""


class ConversationItem(TypedDict):
    """A conversation as listed."""

    id: str
    name: str
    inputs: dict[str, object]
    status: Literal["normal"]
    introduction: str
    """The app's opening statement."""

    created_at: int
    """Unix time in seconds."""

    updated_at: int
    """Unix time in seconds."""


class ConversationPage(TypedDict):
    """A page of conversations."""

    limit: int
    has_more: bool
    data: list[ConversationItem]


class DeleteConversationBody(TypedDict):
    """Body of DELETE /conversations/{conversation_id}; `user` may be a query parameter instead."""

    user: NotRequired[str | None]


class EndUserItem(TypedDict):
    """An end user of an app."""

    id: str
    tenant_id: str
    app_id: str
    type: Literal["service_api"]
    external_user_id: str
    """The `user` under which the client knows them."""

    name: str | None
    """Always null: the gateway knows no names."""

    is_anonymous: bool
    """Whether this is who requests without `user` are for."""

    session_id: str
    """The same as `external_user_id`."""

    created_at: str
    updated_at: str


class ErrorBody(TypedDict):
    """Every non-2xx body."""

    code: str
    """What went wrong, for programs. One of `invalid_param` (400), `bad_request` (400), `app_unavailable` (400), `not_workflow_app` (400), `provider_not_initialize` (400), `provider_quota_exceeded` (400), `completion_request_error` (400), `model_currently_not_support` (400), `context_length_exceeded` (400), `output_length_exceeded` (400), `content_filtered` (400), `agent_run_limit_exceeded` (400), `no_file_uploaded` (400), `too_many_files` (400), `filename_not_exists_error` (400), `unauthorized` (401), `not_found` (404), `end_user_not_found` (404), `file_not_found` (404), `method_not_allowed` (405), `conversation_busy` (409), `human_input_required` (409), `human_input_form_submitted` (412), `human_input_form_expired` (412), `request_too_large` (413), `file_too_large` (413), `unsupported_file_type` (415), `range_not_satisfiable` (416), `idempotency_conflict` (409), `too_many_requests` (429), `rate_limit_error` (429), `internal_server_error` (500), `not_supported` (501), `turn_interrupted` (500), `backend_refused` (502), `answer_incomplete` (502), `output_invalid` (502), `provider_unavailable` (503), `service_unavailable` (503), `turn_timeout` (504), `provider_timeout` (504)."""

    message: str
    """What went wrong, for people."""

    status: int
    """The HTTP status."""


class ErrorEvent(TypedDict):
    """The turn failed; ends the stream. What was streamed before is kept."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["error"]
    status: int
    """The HTTP status this would have been before the stream began."""

    code: str
    """What went wrong, for programs: as in ErrorBody."""

    message: str
    """What went wrong, for people."""


class FeedbackBody(TypedDict):
    """Body of POST /messages/{message_id}/feedbacks."""

    rating: NotRequired[Literal["like", "dislike"] | None]
    """Null takes the rating back."""

    content: NotRequired[str | None]
    """More about it, in the user's words."""

    user: str
    """The client's own identifier of its end user; scopes everything."""


class FeedbackItem(TypedDict):
    """A feedback as listed."""

    id: str
    app_id: str
    conversation_id: str
    message_id: str
    rating: Literal["like", "dislike"]
    content: str | None
    from_source: Literal["user"]
    from_end_user_id: str
    from_account_id: str | None
    """Always null."""

    created_at: str
    updated_at: str


class FeedbackPage(TypedDict):
    """A page of feedbacks, the newest first."""

    data: list[FeedbackItem]


class FileUpload(TypedDict):
    """Which files may come with a query."""

    enabled: bool
    allowed_file_types: list[Literal["image", "document", "audio", "video", "custom"]]
    allowed_file_extensions: list[str]
    """Without the dot."""

    allowed_file_upload_methods: list[Literal["local_file", "remote_url"]]
    number_limits: int
    """The most files of one message."""

    image: ImageUpload


class FormActionItem(TypedDict):
    """A button of a form."""

    id: str
    """Goes into `action` of the submission."""

    title: str
    button_style: Literal["primary", "default", "accent", "ghost"]


class FormDefinitionBody(TypedDict):
    """What a front end needs to draw a form."""

    form_content: str
    """The question in Markdown; `{{#$output.NAME#}}` marks where the input NAME belongs."""

    inputs: list[FormInputItem]
    resolved_default_values: dict[str, object]
    """First values of inputs, by name."""

    user_actions: list[FormActionItem]
    expiration_time: int
    """Unix time in seconds."""

    node_title: str
    """What the question is about, in a few words."""

    urgency: str
    """As the agent said it; `normal` if it did not."""

    approval: dict[str, object] | None
    """What is to be approved, when the agent said so."""


class FormInputItem(TypedDict):
    """An input of a form."""

    type: str
    """`paragraph`, `select`, or another kind that the agent named."""

    output_variable_name: str
    """Its name in `inputs` of the submission."""

    label: str
    required: bool
    placeholder: str
    default: dict[str, object] | None
    """Its first value, as `{type, selector, value}`."""

    options: list[SelectOption]
    """Choices of a select, with labels."""

    option_source: dict[str, object] | None
    """The same choices without labels, as `{type, selector, value}`."""


class FormSubmission(TypedDict):
    """What a human answered."""

    node_id: str
    """The message that asks."""

    node_title: str
    """What the question is about, in a few words."""

    rendered_content: str
    """The form with its values, or the message that was the answer."""

    action_id: str
    """Empty when a message was the answer."""

    action_text: str
    """Empty when a message was the answer."""

    submitted_data: dict[str, object]
    """The values that were submitted, by name."""


class FormSubmitBody(TypedDict):
    """Body of POST /form/human_input/{form_token}."""

    inputs: NotRequired[dict[str, object]]
    """Values by name of the input."""

    action: str
    """Id of the action, the button that was used."""

    user: str
    """The client's own identifier of its end user; scopes everything."""


class FormSubmitted(TypedDict):
    """The turn that carries the answer."""

    task_id: str
    message_id: str
    conversation_id: str
    events_url: str
    """Follows the turn without a key, for a limited time."""


class FormTimeout(TypedDict):
    """A form that nobody submitted in time."""

    node_id: str
    """The message that asks."""

    node_title: str
    """What the question is about, in a few words."""

    expiration_time: int
    """Unix time in seconds."""


class Health(TypedDict):
    """Answer of the probes."""

    status: Literal["ok"]


class HumanInputContent(TypedDict):
    """A question among the `extra_contents` of the message that asks it."""

    type: Literal["human_input"]
    workflow_run_id: str
    """The message that asks."""

    state: Literal["open", "submitted", "timeout", "cancelled"]
    submitted: bool
    form_definition: HumanInputForm
    form_submission_data: FormSubmission | None
    form_submission_values: dict[str, object]
    """The values that were submitted, by name."""


class HumanInputForm(TypedDict):
    """The form of a question."""

    form_id: str
    form_token: str
    """Reads and submits the form: GET and POST /form/human_input/{token}."""

    node_id: str
    """The message that asks."""

    node_title: str
    """What the question is about, in a few words."""

    form_content: str
    """The question in Markdown; `{{#$output.NAME#}}` marks where the input NAME belongs."""

    inputs: list[FormInputItem]
    actions: list[FormActionItem]
    display_in_ui: bool
    resolved_default_values: dict[str, object]
    """First values of inputs, by name."""

    expiration_time: int
    """Unix time in seconds."""

    urgency: str
    """As the agent said it; `normal` if it did not."""

    approval: dict[str, object] | None
    """What is to be approved, when the agent said so."""

    approval_channels: list[str]
    """Always empty: a form is answered in the client."""


class HumanInputFormFilledEvent(TypedDict):
    """First event of the turn that carries the human's answer."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["human_input_form_filled"]
    workflow_run_id: str
    """The message that asks, in whichever turn this is told."""

    data: FormSubmission


class HumanInputFormTimeoutEvent(TypedDict):
    """First event of the turn that tells the agent that nobody answered in time."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["human_input_form_timeout"]
    workflow_run_id: str
    """The message that asks, in whichever turn this is told."""

    data: FormTimeout


class HumanInputRequiredEvent(TypedDict):
    """The agent asks a human. The answer is the question's text, and `message_end` follows."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["human_input_required"]
    workflow_run_id: str
    """The message that asks, in whichever turn this is told."""

    data: HumanInputForm


class ImageUpload(TypedDict):
    """The same of images alone, for older clients."""

    enabled: bool
    number_limits: int
    transfer_methods: list[Literal["local_file", "remote_url"]]


class InputFileBody(TypedDict):
    """A file that comes with a query."""

    type: Literal["image", "document", "audio", "video", "custom"]
    transfer_method: Literal["remote_url", "local_file"]
    url: NotRequired[str | None]
    """Where the file is, with `remote_url`: http or https. It is passed on, never fetched. The name `remote_url` is taken, too."""

    upload_file_id: NotRequired[str | None]
    """Which uploaded file it is, with `local_file`."""


class MessageEndEvent(TypedDict):
    """The answer is complete and stored; ends the stream."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["message_end"]
    id: str
    """The same as `message_id`."""

    metadata: Metadata
    files: list[MessageFileItem]
    """What the agent made."""


class MessageEvent(TypedDict):
    """A piece of the answer; in mode `agent` the whole answer again, as its last event but one."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["message"]
    id: str
    """The same as `message_id`."""

    answer: str
    """Text that follows what was sent before."""

    from_variable_selector: list[str] | None
    """Always null."""


class MessageFileEvent(TypedDict):
    """The agent made a file; it is stored."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["message_file"]
    id: str
    """The file's id."""

    type: Literal["image", "document", "audio", "video", "custom"]
    belongs_to: Literal["assistant"]
    url: str
    """A URL of the file that needs no key, for a limited time."""


class MessageFileItem(TypedDict):
    """A file of a message: one that came with the query, or one that the agent made."""

    id: str
    """The file's id; of a remote file, one of its own."""

    filename: str
    type: Literal["image", "document", "audio", "video", "custom"]
    url: str
    """A URL that needs no key, for a limited time; of a remote file, its own."""

    mime_type: str
    """Empty when it is not known."""

    size: int
    """Bytes; 0 when it is not known."""

    transfer_method: Literal["local_file", "remote_url", "tool_file"]
    belongs_to: Literal["user", "assistant"]
    upload_file_id: str | None
    """Null for a remote file."""

    reference: str | None
    """Always null."""


class MessageItem(TypedDict):
    """A message as listed."""

    id: str
    conversation_id: str
    parent_message_id: str | None
    inputs: dict[str, object]
    query: str
    answer: str
    status: Literal["normal", "error"]
    """`error` when its turn failed."""

    error: str | None
    """Why its turn failed."""

    message_files: list[MessageFileItem]
    feedback: MessageRating | None
    retriever_resources: list[dict[str, object]]
    agent_thoughts: list[ThoughtItem]
    created_at: int
    """Unix time in seconds."""

    extra_contents: list[HumanInputContent]
    """The question that it asks a human."""

    message_tokens: int
    answer_tokens: int
    total_tokens: int
    provider_response_latency: float
    """Seconds."""

    total_price: str
    """A decimal number."""

    currency: str
    metadata: Metadata
    """As in the `message_end` of its turn."""

    task_id: str | None
    """Its turn, while that runs or waits; null when it has ended."""

    events_url: str | None
    """Follows its turn without a key, for a limited time; null when that has ended."""


class MessagePage(TypedDict):
    """A page of messages, oldest first."""

    limit: int
    has_more: bool
    data: list[MessageItem]


class MessageRating(TypedDict):
    """What its user thought of an answer."""

    rating: Literal["like", "dislike"]


class MessageReplaceEvent(TypedDict):
    """The answer so far is replaced by this text; later pieces append to it."""

    conversation_id: str
    """The same in all events of a stream."""

    message_id: str
    """The same in all events of a stream."""

    created_at: int
    """Unix time in seconds."""

    task_id: str
    """The turn, to stop it or to follow it."""

    event_id: int
    """Position of the event in its turn: grows, may skip. The cursor to resume after."""

    event: Literal["message_replace"]
    answer: str
    """The whole answer so far."""

    reason: str
    """Why it was replaced, for people."""


ChatStreamEvent: TypeAlias = (
    MessageEvent
    | AgentMessageEvent
    | AgentThoughtEvent
    | MessageReplaceEvent
    | HumanInputRequiredEvent
    | HumanInputFormFilledEvent
    | HumanInputFormTimeoutEvent
    | MessageFileEvent
    | MessageEndEvent
    | ErrorEvent
)
"""The JSON of one `data:` line of a stream; `event` tells which. Lines `event: ping` carry no data."""


class Metadata(TypedDict):
    """What is known of an answer besides its text."""

    usage: UsageBody
    retriever_resources: list[dict[str, object]]
    finish_reason: str | None
    """Why the model stopped: `stop`, `length` (its longest answer), `content_filter`, `tool_call`, `error`; null when the backend does not say."""


class RenameConversationBody(TypedDict):
    """Body of POST /conversations/{conversation_id}/name: a name, or the wish for one."""

    user: str
    """The client's own identifier of its end user; scopes everything."""

    name: NotRequired[str | None]
    """The new name."""

    auto_generate: NotRequired[bool | None]
    """Make a name of how the conversation began; wins over `name`."""


class SelectOption(TypedDict):
    """A choice of a select."""

    value: str
    label: str


class StopBody(TypedDict):
    """Body of POST /chat-messages/{task_id}/stop."""

    user: str
    """The client's own identifier of its end user; scopes everything."""


class Success(TypedDict):
    """The answer of what has nothing else to say."""

    result: Literal["success"]


class SuggestedQuestionList(TypedDict):
    """Questions that the user may ask next."""

    result: Literal["success"]
    data: list[str]
    """At most 5; empty when there are none (yet)."""


class SystemParameters(TypedDict):
    """Size limits in MB."""

    file_size_limit: int
    image_file_size_limit: int
    audio_file_size_limit: int
    video_file_size_limit: int
    workflow_file_upload_limit: int


class ThoughtItem(TypedDict):
    """A step of a message as listed."""

    id: str
    chain_id: str | None
    message_id: str
    position: int
    """1, 2, 3 … in the order the steps were opened."""

    thought: str
    """What the agent thought; empty in a tool step."""

    tool: str
    """The tool of a tool step; else empty."""

    tool_labels: dict[str, object]
    tool_input: str
    """The arguments of the tool as JSON text."""

    observation: str
    """What the tool returned, as text; empty before it did."""

    files: list[str]
    created_at: int
    """Unix time in seconds."""


class Toggle(TypedDict):
    """A feature that is on or off."""

    enabled: bool


class Transcript(TypedDict):
    """What was said."""

    text: str


class UploadedFile(TypedDict):
    """A file that was uploaded and can come with a query."""

    id: str
    """Send it as `upload_file_id`."""

    name: str
    """The file's name, without what is not safe to show."""

    size: int
    """Bytes."""

    extension: str
    """Lower case, without the dot; may be empty."""

    mime_type: str
    """By the extension, whatever the client said."""

    created_by: str
    """Id of the end user."""

    created_at: int
    """Unix time in seconds."""

    preview_url: str | None
    """Always null: use GET /files/{file_id}/preview."""

    source_url: str
    """A URL of the file that needs no key, for a limited time."""

    original_url: str | None
    """Always null."""

    user_id: str | None
    """Always null."""

    tenant_id: str | None
    """Always null."""

    conversation_id: str | None
    """Always null."""

    file_key: str | None
    """Always null."""

    reference: str | None
    """Always null."""


class UsageBody(TypedDict):
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


class VariableBody(TypedDict):
    """Body of PUT /conversations/{conversation_id}/variables/{variable_id}."""

    value: Any
    """The new value: any JSON."""

    user: str
    """The client's own identifier of its end user; scopes everything."""


class VariableItem(TypedDict):
    """A variable of a conversation."""

    id: str
    name: str
    value_type: str
    value: str
    description: str
    created_at: int
    """Unix time in seconds."""

    updated_at: int
    """Unix time in seconds."""


class VariablePage(TypedDict):
    """A page of variables."""

    limit: int
    has_more: bool
    data: list[VariableItem]


class VoiceToggle(TypedDict):
    """Text to speech."""

    enabled: bool
    voice: str
    language: str
    autoPlay: str
