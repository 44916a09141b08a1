"""Conversations and messages as their owner lists them."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query

from agent_gateway.domain.files import InputFile, input_file_id
from agent_gateway.domain.human_input import HumanInputForm
from agent_gateway.domain.ids import ConversationId, canonical_uuid
from agent_gateway.domain.turns import Caller, Outcome, Step, Usage, step_id
from agent_gateway.errors import FAILURES, InvalidParam
from agent_gateway.routes.dependencies.auth import DEFAULT_USER, AppDep
from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http.errors import ERRORS
from agent_gateway.routes.schemas.base import User
from agent_gateway.routes.schemas.conversations import (
    ConversationItem,
    ConversationPage,
    MessageItem,
    MessagePage,
    MessageRating,
    ThoughtItem,
)
from agent_gateway.routes.schemas.files import MessageFileItem
from agent_gateway.routes.schemas.human_input import HumanInputContent
from agent_gateway.routes.streams.frames import artifact_json
from agent_gateway.routes.streams.human_input_json import form_json, submission_json
from agent_gateway.store.conversations import Conversation, Message

router = APIRouter(tags=["conversations"])

UserQuery = Annotated[User, Query(description="The client's own identifier of its end user.")]
Limit = Annotated[int, Query(ge=1, le=100, description="Most items of a page.")]
SortBy = Annotated[
    Literal["created_at", "-created_at", "updated_at", "-updated_at"],
    Query(description="The field to sort by; with a minus, newest first."),
]
LIST_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: ERRORS[status] for status in (400, 401, 404, 503)
}


@router.get(
    "/conversations",
    operation_id="listConversations",
    summary="List conversations",
    response_description="A page of conversations.",
    responses=LIST_ERRORS,
)
async def get_conversations(
    app: AppDep,
    state: StateDep,
    user: UserQuery = DEFAULT_USER,
    last_id: Annotated[str | None, Query(description="Last id of the page before.")] = None,
    limit: Limit = 20,
    sort_by: SortBy = "-updated_at",
) -> ConversationPage:
    """A page of this user's conversations."""
    page = await state.conversations.conversations(
        Caller(app, user), limit=limit, sort_by=sort_by, last_id=optional_id(last_id, "last_id")
    )
    data = [conversation_item(item) for item in page.items]
    return ConversationPage(limit=limit, has_more=page.has_more, data=data)


@router.get(
    "/messages",
    operation_id="listMessages",
    summary="List messages",
    response_description="A page of messages.",
    responses=LIST_ERRORS,
)
async def get_messages(
    app: AppDep,
    state: StateDep,
    conversation_id: Annotated[str, Query(description="UUID of the conversation.")],
    user: UserQuery = DEFAULT_USER,
    first_id: Annotated[str | None, Query(description="First id of the page before: older ones.")] = None,
    limit: Limit = 20,
) -> MessagePage:
    """The newest messages of a conversation, oldest first within the page."""
    conversation = optional_id(conversation_id, "conversation_id")
    if conversation is None:
        raise InvalidParam("conversation_id: is required")
    page = await state.conversations.messages(
        Caller(app, user),
        ConversationId(conversation),
        limit=limit,
        first_id=optional_id(first_id, "first_id"),
    )
    data = [_message_item(item, state.file_tickets.url) for item in page.items]
    return MessagePage(limit=limit, has_more=page.has_more, data=data)


def optional_id(text: str | None, name: str) -> str | None:
    """The id in a query parameter; None when it is empty, InvalidParam when it is no UUID."""
    if not text:
        return None
    if canonical := canonical_uuid(text):
        return canonical
    raise InvalidParam(f"{name}: must be a UUID")


def conversation_item(item: Conversation) -> ConversationItem:
    """A conversation as clients get it."""
    return ConversationItem(
        id=item.id,
        name=item.name,
        inputs=item.inputs,
        status="normal",
        introduction=item.introduction,
        created_at=int(item.created_at.timestamp()),
        updated_at=int(item.updated_at.timestamp()),
    )


def _message_item(item: Message, file_url: Callable[[str], str]) -> MessageItem:
    usage = item.usage or Usage()
    failed = item.outcome is Outcome.FAILED
    created_at = int(item.created_at.timestamp())
    return MessageItem(
        id=item.id,
        conversation_id=item.conversation_id,
        parent_message_id=None,
        inputs=item.inputs,
        query=item.query,
        answer=item.answer,
        status="error" if failed else "normal",
        error=FAILURES.get(item.error_code, FAILURES["internal_server_error"])
        if failed and item.error_code
        else None,
        message_files=_message_files(item, file_url),
        feedback=MessageRating(rating=item.rating) if item.rating else None,
        retriever_resources=[],
        agent_thoughts=[_thought_item(item.id, step, created_at) for step in item.steps],
        created_at=created_at,
        extra_contents=[_question_item(item.form)] if item.form else [],
        message_tokens=usage.prompt_tokens,
        answer_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        provider_response_latency=usage.latency,
        total_price=usage.total_price,
        currency=usage.currency,
    )


def _question_item(form: HumanInputForm) -> HumanInputContent:
    submission = submission_json(form)
    return HumanInputContent.model_validate(
        {
            "type": "human_input",
            "workflow_run_id": form.message_id,
            "state": form.state.value,
            "submitted": submission is not None,
            "form_definition": form_json(form),
            "form_submission_data": submission,
            "form_submission_values": form.answer.values if form.answer else {},
        }
    )


def _message_files(item: Message, file_url: Callable[[str], str]) -> list[MessageFileItem]:
    given = [_input_file(item.id, number, file, file_url) for number, file in enumerate(item.files, start=1)]
    made = [artifact_json(file, file_url) for file in item.made_files]
    return [*given, *(MessageFileItem.model_validate(file) for file in made)]


def _input_file(
    message_id: str, number: int, file: InputFile, file_url: Callable[[str], str]
) -> MessageFileItem:
    stored = file.upload_file_id or None
    return MessageFileItem(
        id=stored or input_file_id(message_id, number),
        filename=file.name,
        type=file.type,
        url=file_url(stored) if stored else file.url,
        mime_type=file.mime_type,
        size=file.size,
        transfer_method=file.transfer_method,
        belongs_to="user",
        upload_file_id=stored,
        reference=None,
    )


def _thought_item(message_id: str, step: Step, created_at: int) -> ThoughtItem:
    return ThoughtItem(
        id=step_id(message_id, step.number),
        chain_id=None,
        message_id=message_id,
        position=step.number,
        thought=step.thought,
        tool=step.tool,
        tool_labels={},
        tool_input=step.tool_input,
        observation=step.observation,
        files=[],
        created_at=created_at,
    )
