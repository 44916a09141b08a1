"""Every call of the API but the streams, with its parameters: written once for both clients.

The first argument is the end user in whose name the call is made; the clients add it. Each raises
GatewayError when the gateway refuses it or does not answer.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final, Literal, TypedDict, Unpack

from agent_gateway_client import types
from agent_gateway_client.calls import Call, Upload, json_of, nothing, same
from agent_gateway_client.openings import Params, path_of

TURN_SECONDS: Final = 3700.0
"""The longest turn, with the gateway's default settings, and a moment."""
UPLOAD_SECONDS: Final = 300.0

Rating = Literal["like", "dislike"]
SortBy = Literal["created_at", "-created_at", "updated_at", "-updated_at"]


class MessageOptions(TypedDict, total=False):
    """What may be said with a message."""

    conversation_id: str | None
    """The conversation to go on with; without it a new one begins."""
    inputs: Mapping[str, object]
    """Values of the app's input form."""
    files: Sequence[types.InputFileBody]
    """Files that come with the query."""
    auto_generate_name: bool
    """Whether the app may name the conversation that this begins."""
    trace_id: str | None
    """Passed on to the agent."""


def message_body(user: str, query: str, options: MessageOptions) -> dict[str, object]:
    """The body of a message, without its response mode."""
    return {"query": query, "user": user, **options}


def new_key() -> str:
    """An Idempotency-Key that no other request has."""
    return str(uuid.uuid4())


def send_chat_message(
    user: str, query: str, *, idempotency_key: str | None = None, **options: Unpack[MessageOptions]
) -> Call[types.ChatMessage]:
    """Send a message and wait for its whole answer. `chat(…).text()` is the same over any cut."""
    body = {**message_body(user, query, options), "response_mode": "blocking"}
    return Call(
        *("POST", "/chat-messages", json_of(types.ChatMessage)),
        body=body,
        idempotency_key=idempotency_key or new_key(),
        is_repeatable=True,
        seconds=TURN_SECONDS,
    )


def begin(
    user: str, query: str, *, idempotency_key: str | None = None, **options: Unpack[MessageOptions]
) -> Call[types.BackgroundTurn]:
    """Begin a turn and leave it. Its `events_url` follows it from anywhere, without a key."""
    body = {**message_body(user, query, options), "response_mode": "background"}
    return Call(
        *("POST", "/chat-messages", json_of(types.BackgroundTurn)),
        body=body,
        idempotency_key=idempotency_key or new_key(),
        is_repeatable=True,
    )


def stop_chat_message(user: str, task_id: str) -> Call[types.Success]:
    """Stop a turn. Its partial answer stays. Also succeeds when there is nothing to stop."""
    path = path_of("chat-messages", task_id, "stop")
    return Call("POST", path, json_of(types.Success), body={"user": user}, is_repeatable=True)


def list_conversations(
    user: str, *, last_id: str | None = None, limit: int = 20, sort_by: SortBy = "-updated_at"
) -> Call[types.ConversationPage]:
    """A page of conversations, by default the last active one first. `limit` is from 1 to 100."""
    params = _present(user=user, last_id=last_id, limit=limit, sort_by=sort_by)
    return Call("GET", "/conversations", json_of(types.ConversationPage), params)


def delete_conversation(user: str, conversation_id: str) -> Call[None]:
    """Delete a conversation with its messages and files. Its running turns are stopped."""
    return Call("DELETE", path_of("conversations", conversation_id), nothing, body={"user": user})


def rename_conversation(
    user: str, conversation_id: str, name: str | None = None, *, auto_generate: bool = False
) -> Call[types.ConversationItem]:
    """Name a conversation, or let the app name it."""
    path = path_of("conversations", conversation_id, "name")
    body: types.RenameConversationBody = {"user": user, "auto_generate": auto_generate}
    if name is not None:
        body["name"] = name
    return Call("POST", path, json_of(types.ConversationItem), body=body)


def list_messages(
    user: str, conversation_id: str, *, first_id: str | None = None, limit: int = 20
) -> Call[types.MessagePage]:
    """The newest page of messages, oldest first; with `first_id` the page before. `limit` is up to 100."""
    params = _present(user=user, conversation_id=conversation_id, first_id=first_id, limit=limit)
    return Call("GET", "/messages", json_of(types.MessagePage), params)


def rate_message(
    user: str, message_id: str, rating: Rating | None, content: str | None = None
) -> Call[types.Success]:
    """Rate an answer, with an optional text; None takes the rating back."""
    body: types.FeedbackBody = {"user": user, "rating": rating, "content": content}
    return Call("POST", path_of("messages", message_id, "feedbacks"), json_of(types.Success), body=body)


def get_suggested_questions(user: str, message_id: str) -> Call[types.SuggestedQuestionList]:
    """Questions that the user may ask next."""
    path = path_of("messages", message_id, "suggested")
    return Call("GET", path, json_of(types.SuggestedQuestionList), {"user": user})


def list_conversation_variables(
    user: str,
    conversation_id: str,
    *,
    last_id: str | None = None,
    limit: int = 20,
    variable_name: str | None = None,
) -> Call[types.VariablePage]:
    """The variables of a conversation: there are none."""
    params = _present(user=user, last_id=last_id, limit=limit, variable_name=variable_name)
    path = path_of("conversations", conversation_id, "variables")
    return Call("GET", path, json_of(types.VariablePage), params)


def update_conversation_variable(
    user: str, conversation_id: str, variable_id: str, value: Any
) -> Call[types.VariableItem]:
    """Change a variable; the value is any JSON."""
    path = path_of("conversations", conversation_id, "variables", variable_id)
    return Call("PUT", path, json_of(types.VariableItem), body={"value": value, "user": user})


def list_feedbacks(user: str, *, page: int = 1, limit: int = 20) -> Call[types.FeedbackPage]:
    """All ratings of the app, of all users, the newest first. `limit` is up to 101."""
    return Call("GET", "/app/feedbacks", json_of(types.FeedbackPage), {"page": page, "limit": limit})


def upload_file(
    user: str, content: bytes | BinaryIO, name: str, mime_type: str | None = None
) -> Call[types.UploadedFile]:
    """Upload a file, to be named in a message."""
    upload = Upload(name, content, mime_type)
    return Call(
        *("POST", "/files/upload", json_of(types.UploadedFile)),
        body={"user": user},
        upload=upload,
        seconds=UPLOAD_SECONDS,
    )


def preview_file(user: str, file_id: str) -> Call[bytes]:
    """The bytes of a file that this user uploaded, or that an agent made for them."""
    path = path_of("files", file_id, "preview")
    return Call("GET", path, same, {"user": user}, seconds=UPLOAD_SECONDS)


def download_file(user: str, url: str) -> Call[bytes]:
    """The bytes at the `url` of a listed file. No key is sent there."""
    return Call("GET", url, same, seconds=UPLOAD_SECONDS, with_key=False)


def get_human_input_form(user: str, form_token: str) -> Call[types.FormDefinitionBody]:
    """The form of an open question."""
    return Call("GET", path_of("form", "human_input", form_token), json_of(types.FormDefinitionBody))


def submit_human_input_form(
    user: str, form_token: str, action: str, inputs: Mapping[str, object] | None = None
) -> Call[types.FormSubmitted]:
    """Submit a form, once. `answer_form` does the same and follows the turn that carries the answer."""
    body = form_body(user, action, inputs)
    return Call("POST", path_of("form", "human_input", form_token), json_of(types.FormSubmitted), body=body)


def form_body(user: str, action: str, inputs: Mapping[str, object] | None) -> dict[str, object]:
    """The body of a submission."""
    return {"inputs": dict(inputs or {}), "action": action, "user": user}


def get_app_info(user: str) -> Call[types.AppInfo]:
    """What the app says of itself."""
    return Call("GET", "/info", json_of(types.AppInfo))


def get_app_meta(user: str) -> Call[types.AppMeta]:
    """What is known of the app's tools."""
    return Call("GET", "/meta", json_of(types.AppMeta))


def get_app_site(user: str) -> Call[types.AppSite]:
    """How a page that shows the app looks."""
    return Call("GET", "/site", json_of(types.AppSite))


def get_app_parameters(user: str) -> Call[types.AppParameters]:
    """What a front end needs to draw the app."""
    return Call("GET", "/parameters", json_of(types.AppParameters))


def get_end_user(user: str, end_user_id: str) -> Call[types.EndUserItem]:
    """An end user of the app, by the gateway's id."""
    return Call("GET", path_of("end-users", end_user_id), json_of(types.EndUserItem))


def audio_to_text(
    user: str, content: bytes | BinaryIO, name: str, mime_type: str | None = None
) -> Call[types.Transcript]:
    """Turn speech into text. No app has that: the gateway says so."""
    upload = Upload(name, content, mime_type)
    return Call("POST", "/audio-to-text", json_of(types.Transcript), body={"user": user}, upload=upload)


def text_to_audio(user: str, text: str | None = None, *, message_id: str | None = None) -> Call[bytes]:
    """Turn text into speech. No app has that: the gateway says so."""
    return Call("POST", "/text-to-audio", same, body={"text": text, "message_id": message_id, "user": user})


def get_health(user: str) -> Call[types.Health]:
    """Whether the process is alive."""
    return Call("GET", "/healthz", json_of(types.Health), with_key=False)


def get_readiness(user: str) -> Call[types.Health]:
    """Whether the process takes turns."""
    return Call("GET", "/readyz", json_of(types.Health), with_key=False)


def _present(**params: str | int | None) -> Params:
    return {name: value for name, value in params.items() if value is not None}
