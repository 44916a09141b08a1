"""Conversations: listed, named and deleted by the end user who owns them."""

import logging
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from agent_gateway.domain.text import short_name
from agent_gateway.domain.turns import AnsweredTurn, Caller
from agent_gateway.errors import BackendError, InvalidParam, NotFound, TurnError
from agent_gateway.routes.dependencies.auth import DEFAULT_USER, AppDep
from agent_gateway.routes.dependencies.parameters import (
    ConversationPath,
    Limit,
    UserQuery,
    conversation_of,
    optional_id,
)
from agent_gateway.routes.dependencies.state import AppState, StateDep
from agent_gateway.routes.http.errors import RESOURCE_ERRORS
from agent_gateway.routes.schemas.base import User
from agent_gateway.routes.schemas.conversations import (
    ConversationItem,
    ConversationPage,
    DeleteConversationBody,
    RenameConversationBody,
)
from agent_gateway.store.conversations import Conversation, SortBy

GIVEN_NAME_LENGTH: Final = 255

logger = logging.getLogger(__name__)
router = APIRouter(tags=["conversations"], responses=RESOURCE_ERRORS)

SortByQuery = Annotated[SortBy, Query(description="The field to sort by; with a minus, newest first.")]


@router.get(
    "/conversations",
    operation_id="listConversations",
    summary="List conversations",
    response_description="A page of conversations.",
)
async def get_conversations(
    app: AppDep,
    state: StateDep,
    user: UserQuery = DEFAULT_USER,
    last_id: Annotated[str | None, Query(description="Last id of the page before.")] = None,
    limit: Limit = 20,
    sort_by: SortByQuery = "-updated_at",
) -> ConversationPage:
    """A page of this user's conversations."""
    page = await state.conversations.page(
        Caller(app, user), limit=limit, sort_by=sort_by, last_id=optional_id(last_id, "last_id")
    )
    data = [_conversation_item(item) for item in page.items]
    return ConversationPage(limit=limit, has_more=page.has_more, data=data)


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
    owner = (body.user if body else None) or user
    if owner is None:
        raise InvalidParam("user: is required, in the body or the query")
    await state.live.delete(Caller(app, owner), conversation_of(conversation_id))
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
    caller, conversation = Caller(app, body.user), conversation_of(conversation_id)
    if body.auto_generate:
        exchange = await state.turns.reader.first_answered_turn(caller, conversation)
        if exchange is None:
            raise NotFound("Conversation Not Exists.")
        name = await _made_name(state, exchange)
    else:
        name = short_name(body.name or "", GIVEN_NAME_LENGTH)
    return _conversation_item(await state.conversations.rename(caller, conversation, name))


async def _made_name(state: AppState, exchange: AnsweredTurn) -> str:
    try:
        name = await state.auxiliary_runs.name(exchange, state.limits.name_seconds)
    except (BackendError, TurnError, TimeoutError) as error:
        task_id = exchange.turn.task_id
        logger.warning("no name was made: %s", type(error).__name__, extra={"task_id": task_id})
        name = None
    return name or short_name(exchange.turn.query)


def _conversation_item(item: Conversation) -> ConversationItem:
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
