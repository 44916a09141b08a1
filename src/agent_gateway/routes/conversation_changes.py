"""Deleting and naming a conversation."""

import logging
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Response

from agent_gateway.domain.ids import ConversationId, canonical_uuid
from agent_gateway.domain.text import short_name
from agent_gateway.domain.turns import AnsweredTurn, Caller
from agent_gateway.errors import BackendError, InvalidParam, NotFound, TurnError
from agent_gateway.routes.conversations import conversation_item
from agent_gateway.routes.dependencies.auth import AppDep
from agent_gateway.routes.dependencies.state import AppState, StateDep
from agent_gateway.routes.http.errors import ERRORS
from agent_gateway.routes.schemas.base import User
from agent_gateway.routes.schemas.conversation_changes import (
    DeleteConversationBody,
    RenameConversationBody,
)
from agent_gateway.routes.schemas.conversations import ConversationItem

GIVEN_NAME_LENGTH: Final = 255
NAME_SECONDS: Final = 5.0
"""How long a client waits for a name before it gets the cut of the first query."""

logger = logging.getLogger(__name__)
router = APIRouter(
    tags=["conversations"], responses={status: ERRORS[status] for status in (400, 401, 404, 503)}
)

ConversationPath = Annotated[str, Path(description="UUID of the conversation.")]


@router.delete(
    "/conversations/{conversation_id}",
    operation_id="deleteConversation",
    summary="Delete a conversation",
    response_description="It is gone.",
    status_code=204,
    response_class=Response,
)
async def delete_conversation(
    conversation_id: ConversationPath,
    app: AppDep,
    state: StateDep,
    body: DeleteConversationBody | None = None,
    user: Annotated[User | None, Query(description="Instead of `user` in the body.")] = None,
) -> Response:
    """Delete a conversation of this user: its turns are stopped, the agent's session is closed later."""
    who = (body.user if body else None) or user
    if who is None:
        raise InvalidParam("user: is required, in the body or the query")
    await state.live.delete(Caller(app, who), _known(conversation_id))
    return Response(status_code=204)


@router.post(
    "/conversations/{conversation_id}/name",
    operation_id="renameConversation",
    summary="Name a conversation",
    response_description="The conversation.",
)
async def post_name(
    conversation_id: ConversationPath, body: RenameConversationBody, app: AppDep, state: StateDep
) -> ConversationItem:
    """Give a conversation a name, or have one made. It is never changed by the app again."""
    caller, conversation = Caller(app, body.user), _known(conversation_id)
    if body.auto_generate:
        exchange = await state.turns.first_answered_turn(caller, conversation)
        if exchange is None:
            raise NotFound("Conversation Not Exists.")
        name = await _made_name(state, exchange)
    else:
        name = short_name(body.name or "", GIVEN_NAME_LENGTH)
    return conversation_item(await state.conversations.rename(caller, conversation, name))


async def _made_name(state: AppState, exchange: AnsweredTurn) -> str:
    try:
        name = await state.auxiliary_runs.name(exchange, NAME_SECONDS)
    except (BackendError, TurnError, TimeoutError) as error:
        logger.warning("turn %s: no name was made: %s", exchange.turn.task_id, type(error).__name__)
        name = None
    return name or short_name(exchange.turn.query)


def _known(conversation_id: str) -> ConversationId:
    if canonical := canonical_uuid(conversation_id):
        return ConversationId(canonical)
    raise NotFound("Conversation Not Exists.")
