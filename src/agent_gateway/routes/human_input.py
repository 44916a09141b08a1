"""Questions of an agent to a human: their forms, and the events of the turn that carries the answer.

A form is read and submitted with its token and a key of the app.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from agent_gateway.domain.events import GATEWAY_END, TurnFailed
from agent_gateway.domain.human_input import FormState, Submission
from agent_gateway.domain.ids import canonical_uuid
from agent_gateway.domain.text import clean_text
from agent_gateway.domain.turns import Caller
from agent_gateway.errors import FormAlreadySubmitted, FormExpired, NotFound
from agent_gateway.routes.dependencies.auth import DEFAULT_USER, AppDep
from agent_gateway.routes.dependencies.parameters import UserQuery
from agent_gateway.routes.dependencies.state import AppState, StateDep
from agent_gateway.routes.http.errors import error_responses
from agent_gateway.routes.http.tickets import Ticket
from agent_gateway.routes.http.trace import RequestTrace
from agent_gateway.routes.schemas.human_input import FormDefinitionBody, FormSubmitBody, FormSubmitted
from agent_gateway.routes.schemas.stream_events import EVENT_STREAM
from agent_gateway.routes.streams.frames import PING, FrameVariant
from agent_gateway.routes.streams.human_input_json import definition_json
from agent_gateway.routes.streams.response import TurnStream
from agent_gateway.routes.streams.turn_sources import TurnSource
from agent_gateway.routes.streams.wire import StreamBody, Wire
from agent_gateway.store.question_forms import FormStatus
from agent_gateway.store.turns.reader import TurnView

router = APIRouter(tags=["human input"])

FormToken = Annotated[str, Path(description="`form_token` of the question.")]


@router.get(
    "/form/human_input/{form_token}",
    operation_id="getHumanInputForm",
    summary="Get a form",
    response_description="What a front end needs to draw the form.",
    responses=error_responses(401, 404, 412, 503),
)
async def get_form(form_token: FormToken, app: AppDep, state: StateDep) -> FormDefinitionBody:
    """The form of a question that waits for its answer."""
    form = await state.forms.find(app.id, clean_text(form_token))
    if form is None:
        raise NotFound("Form not found.")
    if form.state is FormState.SUBMITTED:
        raise FormAlreadySubmitted
    if form.state is FormState.TIMEOUT:
        raise FormExpired
    return FormDefinitionBody.model_validate(definition_json(form))


@router.post(
    "/form/human_input/{form_token}",
    operation_id="submitHumanInputForm",
    summary="Submit a form",
    response_description="The answer is stored, and its turn has begun.",
    responses=error_responses(400, 401, 404, 412, 503),
)
async def post_form(
    form_token: FormToken, body: FormSubmitBody, app: AppDep, state: StateDep, trace: RequestTrace
) -> FormSubmitted:
    """Answer the question, once: the conversation goes on with a turn that tells the agent.

    An unknown action, or a required input that is missing, leaves the form open.
    """
    submission = Submission(body.action, body.inputs)
    live = await state.live.submit(app, clean_text(form_token), submission, trace)
    turn = live.turn
    return FormSubmitted(
        task_id=turn.task_id,
        message_id=turn.message_id,
        conversation_id=turn.conversation_id,
        events_url=state.tickets.events_url(Ticket(turn.task_id, app.id, turn.user)),
    )


@router.get(
    "/workflow/{workflow_run_id}/events",
    operation_id="followAnswer",
    summary="Follow the answer of a question",
    response_class=Response,
    responses={
        200: {"description": "The events of the turn that carries the answer.", **EVENT_STREAM},
        **error_responses(400, 401, 404, 412, 503),
    },
)
async def get_workflow_events(
    workflow_run_id: Annotated[str, Path(description="`message_id` of the question.")],
    app: AppDep,
    state: StateDep,
    user: UserQuery = DEFAULT_USER,
    include_state_snapshot: Annotated[
        bool, Query(description="Accepted for existing clients: the stream always begins at the start.")
    ] = False,
    continue_on_pause: Annotated[
        bool, Query(description="Accepted for existing clients: a further question ends the stream.")
    ] = False,
) -> Response:
    """The events of the turn that carries a question's answer; before there is one it waits, pinging.

    Of a message that asks nothing these are the events of its own turn.
    """
    message_id = canonical_uuid(workflow_run_id)
    asked = await state.forms.question(app.id, user, message_id) if message_id else None
    if asked is None:
        raise NotFound("Workflow run not found.")
    found = await state.sources.find(app.id, user, asked.task_id)
    variant = FrameVariant(found.view.mode, False)
    status = asked.status
    if status is None:
        return TurnStream(found.body(variant, 0), {"X-Task-Id": asked.task_id})
    if status.state is FormState.CANCELLED:
        raise NotFound("Workflow run not found.")
    if status.dropped:
        raise FormExpired
    return TurnStream(_answer_body(state, Caller(app, user), found.view, status), {})


def _answer_body(state: AppState, caller: Caller, question: TurnView, asked: FormStatus) -> StreamBody:
    """Pings until the question is answered, then all frames of the turn that carries the answer."""
    variant = FrameVariant(question.mode, False)

    async def send(wire: Wire) -> None:
        status = asked
        await wire.send(PING)
        while status.state is FormState.OPEN:
            closed = await state.form_waiters.wait(status.form_id, state.ping_seconds)
            if closed is None:
                if state.live.draining.is_set():
                    # Without a terminal event, like any connection that breaks: come back elsewhere.
                    return
                await wire.send(PING)
            status = closed or status
        found = await _answer(state, caller, status)
        if found is not None:
            await found.body(variant, 0)(wire)
        else:
            # Dropped or deleted: there will be no answer, and the stream must end with an error.
            encoder = state.sources.frames.encoder(question)
            await wire.send(encoder.encode(TurnFailed(GATEWAY_END, FormExpired.code), variant))

    return send


async def _answer(state: AppState, caller: Caller, status: FormStatus) -> TurnSource | None:
    if status.answered_by is None:
        return None
    try:
        return await state.sources.find(caller.app.id, caller.user, status.answered_by)
    except NotFound:
        return None
