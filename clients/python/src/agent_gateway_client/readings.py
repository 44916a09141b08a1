"""The ways to begin to read a turn, the same for both clients."""

from collections.abc import Mapping

from agent_gateway_client.openings import (
    answer_request,
    form_request,
    message_request,
    place_of_task,
    place_of_url,
)
from agent_gateway_client.operations import MessageOptions, form_body, message_body, new_key
from agent_gateway_client.resumption import Reader, Resumption
from agent_gateway_client.types import HumanInputForm


def of_message(
    reader: Reader, query: str, options: MessageOptions, idempotency_key: str | None
) -> Resumption:
    """The turn that a message begins."""
    body = message_body(reader.user, query, options)
    return Resumption(reader, message_request(body, reader.mode, idempotency_key or new_key()))


def of_url(reader: Reader, events_url: str, after: int, text: str) -> Resumption:
    """A turn that another process began, by its `events_url`."""
    return Resumption(reader, place=place_of_url(events_url, reader.mode), after=after, text=text)


def of_task(reader: Reader, task_id: str, after: int, text: str) -> Resumption:
    """A turn of this user that was begun before, by its id."""
    place = place_of_task(task_id, reader.user, reader.mode)
    resumption = Resumption(reader, place=place, after=after, text=text)
    resumption.task_id = task_id
    return resumption


def of_answer(reader: Reader, message_id: str) -> Resumption:
    """The turn that carries the answer of a question, which somebody may still have to give."""
    return Resumption(reader, answer_request(message_id, reader.user))


def of_form(
    reader: Reader, form: HumanInputForm, action: str, inputs: Mapping[str, object] | None
) -> Resumption:
    """The turn that a submission of this form begins."""
    request = form_request(form["form_token"], form_body(reader.user, action, inputs))
    return Resumption(reader, request, question=form["node_id"])
