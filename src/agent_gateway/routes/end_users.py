"""End users by the id that uploads and feedbacks name."""

from typing import Annotated

from fastapi import APIRouter, Path

from agent_gateway.domain.ids import canonical_uuid
from agent_gateway.routes.dependencies.auth import DEFAULT_USER, AppDep
from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http.errors import error_responses
from agent_gateway.routes.schemas.end_users import EndUserItem

router = APIRouter(tags=["app"])


@router.get(
    "/end-users/{end_user_id}",
    operation_id="getEndUser",
    summary="Describe an end user",
    response_description="The end user.",
    responses=error_responses(401, 404, 503),
)
async def get_end_user(
    end_user_id: Annotated[str, Path(description="UUID of the end user.")], app: AppDep, state: StateDep
) -> EndUserItem:
    """Who this is to the client: an end user of this app, whoever asks with its key."""
    found = await state.end_users.find(app.id, canonical_uuid(end_user_id))
    return EndUserItem(
        id=found.id,
        tenant_id=app.config.tenant_id,
        app_id=found.app_id,
        type="service_api",
        external_user_id=found.external_id,
        name=None,
        is_anonymous=found.external_id == DEFAULT_USER,
        session_id=found.external_id,
        created_at=found.created_at,
        # An end user never changes.
        updated_at=found.created_at,
    )
