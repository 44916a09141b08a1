"""Ratings of answers: given by an end user, read by the app."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query

from agent_gateway.domain.ids import MessageId, canonical_uuid
from agent_gateway.domain.turns import Caller
from agent_gateway.errors import NotFound
from agent_gateway.routes.dependencies.auth import AppDep
from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http.errors import ERRORS
from agent_gateway.routes.schemas.base import Success
from agent_gateway.routes.schemas.feedbacks import FeedbackBody, FeedbackItem, FeedbackPage
from agent_gateway.store.feedbacks import Feedback

MAX_PAGES: Final = 1_000_000

router = APIRouter()


@router.post(
    "/messages/{message_id}/feedbacks",
    operation_id="rateMessage",
    tags=["conversations"],
    summary="Rate an answer",
    response_description="Done.",
    responses={status: ERRORS[status] for status in (400, 401, 404, 503)},
)
async def post_feedback(
    message_id: Annotated[str, Path(description="UUID of the message.")],
    body: FeedbackBody,
    app: AppDep,
    state: StateDep,
) -> Success:
    """Like or dislike an answer, or take that back. A later rating replaces the one before."""
    canonical = canonical_uuid(message_id)
    if canonical is None:
        raise NotFound("Message Not Exists.")
    await state.feedbacks.rate(Caller(app, body.user), MessageId(canonical), body.rating, body.content)
    return Success(result="success")


@router.get(
    "/app/feedbacks",
    operation_id="listFeedbacks",
    tags=["app"],
    summary="List the ratings of all users",
    response_description="A page of ratings.",
    responses={status: ERRORS[status] for status in (400, 401, 503)},
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
