"""Messages: listed, rated, and the questions that may follow an answer."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query

from agent_gateway.domain.files import InputFile, input_file_id
from agent_gateway.domain.human_input import HumanInputForm
from agent_gateway.domain.ids import ConversationId, MessageId, canonical_uuid
from agent_gateway.domain.turns import Caller, Outcome, Step, Usage, step_id
from agent_gateway.errors import FAILURES, BadRequest, InvalidParam, NotFound
from agent_gateway.routes.dependencies.auth import DEFAULT_USER, AppDep
from agent_gateway.routes.dependencies.parameters import Limit, UserQuery, optional_id
from agent_gateway.routes.dependencies.state import AppState, StateDep
from agent_gateway.routes.http.errors import RESOURCE_ERRORS
from agent_gateway.routes.http.tickets import Ticket
from agent_gateway.routes.schemas.base import Metadata, Success, UsageBody
from agent_gateway.routes.schemas.files import MessageFileItem
from agent_gateway.routes.schemas.human_input import FormSubmission, HumanInputContent
from agent_gateway.routes.schemas.human_input import HumanInputForm as HumanInputFormItem
from agent_gateway.routes.schemas.messages import (
    FeedbackBody,
    MessageItem,
    MessagePage,
    MessageRating,
    SuggestedQuestionList,
    ThoughtItem,
)
from agent_gateway.routes.streams.frames import artifact_json
from agent_gateway.routes.streams.human_input_json import form_json, submission_json
from agent_gateway.store.messages import Message

router = APIRouter(tags=["conversations"], responses=RESOURCE_ERRORS)

MessagePath = Annotated[str, Path(description="UUID of the message.")]


@router.get(
    "/messages",
    operation_id="listMessages",
    summary="List messages",
    response_description="A page of messages.",
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
    caller = Caller(app, user)
    page = await state.messages.page(
        caller,
        ConversationId(conversation),
        limit=limit,
        first_id=optional_id(first_id, "first_id"),
    )
    data = [_message_item(state, caller, item) for item in page.items]
    return MessagePage(limit=limit, has_more=page.has_more, data=data)


@router.post(
    "/messages/{message_id}/feedbacks",
    operation_id="rateMessage",
    summary="Rate an answer",
    response_description="Done.",
)
async def post_feedback(
    message_id: MessagePath,
    body: FeedbackBody,
    app: AppDep,
    state: StateDep,
) -> Success:
    """Like or dislike an answer, or take that back. A later rating replaces the one before."""
    await state.feedbacks.rate(Caller(app, body.user), _message_of(message_id), body.rating, body.content)
    return Success(result="success")


@router.get(
    "/messages/{message_id}/suggested",
    operation_id="getSuggestedQuestions",
    summary="Suggest questions",
    response_description="The questions.",
)
async def get_suggested(
    message_id: MessagePath,
    app: AppDep,
    state: StateDep,
    user: UserQuery = DEFAULT_USER,
) -> SuggestedQuestionList:
    """Questions that the user may ask after this answer. They are made when they are asked for first;
    empty when that takes too long (ask again), for an unfinished or failed turn, or when there are none.
    """
    if not app.config.suggested_questions_after_answer.enabled:
        raise BadRequest("Suggested questions after an answer are not enabled for this app.")
    questions = await _questions(state, Caller(app, user), _message_of(message_id))
    return SuggestedQuestionList(result="success", data=questions)


async def _questions(state: AppState, caller: Caller, message_id: MessageId) -> list[str]:
    found = await state.messages.suggestions(caller, message_id)
    if found.questions is None and found.outcome is Outcome.COMPLETED:
        await state.turns.outbox.ask_suggestions(found.task_id)
        until = asyncio.get_running_loop().time() + state.limits.suggestions_seconds
        while found.questions is None and asyncio.get_running_loop().time() < until:
            await state.outbox_worker.settled(state.limits.suggestions_poll_seconds)
            found = await state.messages.suggestions(caller, message_id)
    return found.questions or []


def _message_of(message_id: str) -> MessageId:
    if canonical := canonical_uuid(message_id):
        return MessageId(canonical)
    raise NotFound("Message Not Exists.")


def _message_item(state: AppState, caller: Caller, item: Message) -> MessageItem:
    usage = item.usage or Usage()
    goes_on = item.outcome is None
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
        message_files=_message_files(item, state.file_tickets.url),
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
        metadata=Metadata(
            usage=UsageBody.model_validate(usage, from_attributes=True),
            retriever_resources=[],
            finish_reason=item.finish_reason,
        ),
        task_id=item.task_id if goes_on else None,
        events_url=state.tickets.events_url(Ticket(item.task_id, caller.app.id, caller.user))
        if goes_on
        else None,
    )


def _question_item(form: HumanInputForm) -> HumanInputContent:
    submission = submission_json(form)
    return HumanInputContent(
        type="human_input",
        workflow_run_id=form.message_id,
        state=form.state.value,
        submitted=submission is not None,
        form_definition=HumanInputFormItem.model_validate(form_json(form)),
        form_submission_data=FormSubmission.model_validate(submission) if submission else None,
        form_submission_values=form.answer.values if form.answer else {},
    )


def _message_files(item: Message, file_url: Callable[[str], str]) -> list[MessageFileItem]:
    given = [_input_file(item.id, number, file, file_url) for number, file in enumerate(item.files, start=1)]
    made = [artifact_json(file, file_url) for file in item.artifacts]
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
