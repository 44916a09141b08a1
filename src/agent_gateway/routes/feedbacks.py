"""The ratings of answers, as the app lists them. End users give them in messages.py."""

from typing import Annotated, Final

from fastapi import APIRouter, Query

from agent_gateway.routes.dependencies.auth import AppDep
from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http.errors import error_responses
from agent_gateway.routes.schemas.feedbacks import FeedbackItem, FeedbackPage
from agent_gateway.store.feedbacks import Feedback

MAX_PAGES: Final = 1_000_000

router = APIRouter(tags=["app"], responses=error_responses(400, 401, 503))


@router.get(
    "/app/feedbacks",
    operation_id="listFeedbacks",
    summary="List the ratings of all users",
    response_description="A page of ratings.",
)
async def get_feedbacks(
    app: AppDep,
    state: StateDep,
    page: Annotated[int, Query(ge=1, le=MAX_PAGES, description="1 is the newest.")] = 1,
    limit: Annotated[int, Query(ge=1, le=101, description="Most items of a page.")] = 20,
) -> FeedbackPage:
    """The ratings that users of this app gave, the newest first."""
    found = await state.feedbacks.page(app.id, page=page, limit=limit)
    return FeedbackPage(data=[_item(feedback) for feedback in found])


def _item(feedback: Feedback) -> FeedbackItem:
    return FeedbackItem(
        id=feedback.id,
        app_id=feedback.app_id,
        conversation_id=feedback.conversation_id,
        message_id=feedback.message_id,
        rating=feedback.rating,
        content=feedback.content,
        from_source="user",
        from_end_user_id=feedback.end_user_id,
        from_account_id=None,
        created_at=feedback.created_at,
        updated_at=feedback.updated_at,
    )
