"""Forms of questions to humans: read and submitted by whoever has the token and the app's key."""

from typing import Annotated

from fastapi import APIRouter, Path

from agent_gateway.domain.human_input import FormState, Submission
from agent_gateway.domain.text import clean_text
from agent_gateway.errors import FormExpired, NotFound
from agent_gateway.errors import FormSubmitted as AlreadySubmitted
from agent_gateway.routes.dependencies.auth import AppDep
from agent_gateway.routes.dependencies.state import StateDep
from agent_gateway.routes.http.errors import ERRORS
from agent_gateway.routes.http.tickets import Ticket
from agent_gateway.routes.schemas.human_input import FormDefinitionBody, FormSubmitBody, FormSubmitted
from agent_gateway.routes.streams.human_input_json import definition_json

router = APIRouter(tags=["human input"])

FormToken = Annotated[str, Path(description="`form_token` of the question.")]


@router.get(
    "/form/human_input/{form_token}",
    operation_id="getHumanInputForm",
    summary="Get a form",
    response_description="What a front end needs to draw the form.",
    responses={status: ERRORS[status] for status in (401, 404, 412, 503)},
)
async def get_form(form_token: FormToken, app: AppDep, state: StateDep) -> FormDefinitionBody:
    """The form of a question that waits for its answer."""
    form = await state.forms.find(app.id, clean_text(form_token))
    if form is None:
        raise NotFound("Form not found.")
    if form.state is FormState.SUBMITTED:
        raise AlreadySubmitted
    if form.state is FormState.TIMEOUT:
        raise FormExpired
    return FormDefinitionBody.model_validate(definition_json(form))


@router.post(
    "/form/human_input/{form_token}",
    operation_id="submitHumanInputForm",
    summary="Submit a form",
    response_description="The answer is stored, and its turn has begun.",
    responses={status: ERRORS[status] for status in (400, 401, 404, 412, 503)},
)
async def post_form(
    form_token: FormToken, body: FormSubmitBody, app: AppDep, state: StateDep
) -> FormSubmitted:
    """Answer the question, once: the conversation goes on with a turn that tells the agent.

    An unknown action, or a required input that is missing, leaves the form open.
    """
    submission = Submission(body.action, body.inputs)
    live = await state.live.submit(app.id, clean_text(form_token), submission)
    turn = live.turn
    return FormSubmitted(
        task_id=turn.task_id,
        message_id=turn.message_id,
        conversation_id=turn.conversation_id,
        events_url=state.tickets.events_url(Ticket(turn.task_id, app.id, turn.user)),
    )
