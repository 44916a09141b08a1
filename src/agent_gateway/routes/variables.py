"""Conversation variables. Agents keep their state in the session snapshot, so no conversation has any;
clients that list them get an empty list.
"""

from typing import Annotated, NoReturn

from fastapi import APIRouter, Path, Query

from agent_gateway.domain.turns import Caller
from agent_gateway.errors import NotFound
from agent_gateway.routes.dependencies.auth import DEFAULT_USER, AppDep
from agent_gateway.routes.dependencies.parameters import (
    ConversationPath,
    Limit,
    UserQuery,
    conversation_of,
    optional_id,
)
from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http.errors import RESOURCE_ERRORS
from agent_gateway.routes.schemas.variables import VariableBody, VariableItem, VariablePage

router = APIRouter(tags=["conversations"], responses=RESOURCE_ERRORS)


@router.get(
    "/conversations/{conversation_id}/variables",
    operation_id="listConversationVariables",
    summary="List a conversation's variables",
    response_description="A page of variables; always empty.",
)
async def get_variables(
    conversation_id: ConversationPath,
    app: AppDep,
    state: StateDep,
    user: UserQuery = DEFAULT_USER,
    last_id: Annotated[str | None, Query(description="Last id of the page before.")] = None,
    limit: Limit = 20,
    variable_name: Annotated[
        str | None, Query(max_length=255, description="Only the variable of this name.")
    ] = None,
) -> VariablePage:
    """The variables of a conversation: there are none."""
    last = optional_id(last_id, "last_id")
    await state.conversations.require(Caller(app, user), conversation_of(conversation_id))
    if last is not None:
        raise NotFound("Conversation Variable Not Exists.")
    return VariablePage(limit=limit, has_more=False, data=[])


@router.put(
    "/conversations/{conversation_id}/variables/{variable_id}",
    operation_id="updateConversationVariable",
    summary="Set a conversation's variable",
    response_description="The variable.",
    response_model=VariableItem,
)
async def put_variable(
    conversation_id: ConversationPath,
    variable_id: Annotated[str, Path(description="UUID of the variable.")],
    body: VariableBody,
    app: AppDep,
    state: StateDep,
) -> NoReturn:
    """Give a variable another value. There are none, so none is found."""
    await state.conversations.require(Caller(app, body.user), conversation_of(conversation_id))
    raise NotFound("Conversation Variable Not Exists.")
