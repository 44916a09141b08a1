"""The questions that a user may ask after an answer."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Path

from agent_gateway.domain.ids import MessageId, canonical_uuid
from agent_gateway.domain.turns import Caller, Outcome
from agent_gateway.errors import BadRequest, NotFound
from agent_gateway.routes.conversations import UserQuery
from agent_gateway.routes.dependencies.auth import DEFAULT_USER, AppDep
from agent_gateway.routes.dependencies.state import AppState, StateDep
from agent_gateway.routes.http.errors import ERRORS
from agent_gateway.routes.schemas.suggestions import SuggestedQuestionList

WAIT_SECONDS: Final = 10.0
"""How long a client waits for questions that are being made."""
LOOK_SECONDS: Final = 0.5
"""Between looks for what another process may have made."""

router = APIRouter(
    tags=["conversations"], responses={status: ERRORS[status] for status in (400, 401, 404, 503)}
)


@router.get(
    "/messages/{message_id}/suggested",
    operation_id="getSuggestedQuestions",
    summary="Suggest questions",
    response_description="The questions.",
)
async def get_suggested(
    message_id: Annotated[str, Path(description="UUID of the message.")],
    app: AppDep,
    state: StateDep,
    user: UserQuery = DEFAULT_USER,
) -> SuggestedQuestionList:
    """Questions that the user may ask after this answer. They are made when they are asked for first;
    empty when that takes too long (ask again), for an unfinished or failed turn, or when there are none.
    """
    if not app.config.suggested_questions_after_answer.enabled:
        raise BadRequest("Suggested questions after an answer are not enabled for this app.")
    canonical = canonical_uuid(message_id)
    if canonical is None:
        raise NotFound("Message Not Exists.")
    questions = await _questions(state, Caller(app, user), MessageId(canonical))
    return SuggestedQuestionList(result="success", data=questions)


async def _questions(state: AppState, caller: Caller, message_id: MessageId) -> list[str]:
    found = await state.conversations.suggestions(caller, message_id)
    if found.questions is None and found.outcome is Outcome.COMPLETED:
        await state.turns.outbox.ask_suggestions(found.task_id)
        until = asyncio.get_running_loop().time() + WAIT_SECONDS
        while found.questions is None and asyncio.get_running_loop().time() < until:
            await state.outbox_worker.settled(LOOK_SECONDS)
            found = await state.conversations.suggestions(caller, message_id)
    return found.questions or []
