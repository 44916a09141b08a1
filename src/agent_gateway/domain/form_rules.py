"""The rules of forms: which submissions are valid, and the texts of forms and answers. Pure."""

import re
from typing import Final

import msgspec

from agent_gateway.domain.human_input import FormAnswer, FormDefinition, FormInput, Submission
from agent_gateway.errors import InvalidParam
from agent_gateway.json_types import JsonObject

TIMED_OUT: Final = FormAnswer("timeout")
NO_ANSWER: Final = "No answer was given in time."
"""The query of the turn that tells a run that its form expired unanswered."""
_MARK: Final = re.compile(r"\{\{#\$output\..*?#\}\}")
MAX_RENDERED: Final = 32_768
"""Characters of a filled-in form in one event, whose line must stay under 512 KiB."""


def answer_of(definition: FormDefinition, submission: Submission) -> FormAnswer:
    """The answer that a submission makes, without values that the form does not ask for.

    Raises InvalidParam for an unknown action, a required input that is missing, and a choice that a
    select does not offer.
    """
    action = next((action for action in definition.actions if action.id == submission.action_id), None)
    if action is None:
        raise InvalidParam("action: must be the id of one of the form's actions")
    values: JsonObject = {}
    for field in definition.inputs:
        value = submission.values.get(field.name)
        if value is None or value in ("", []):
            if field.required:
                raise InvalidParam(f"inputs.{field.name}: is required")
            continue
        if field.options and not _is_offered(field, value):
            raise InvalidParam(f"inputs.{field.name}: must be one of the options")
        values[field.name] = value
    return FormAnswer("submitted", action, values)


def _is_offered(field: FormInput, value: object) -> bool:
    """Whether the value is one of the options, or a list of them."""
    offered = [option.value for option in field.options]
    return all(choice in offered for choice in (value if isinstance(value, list) else [value]))


def marked(definition: FormDefinition) -> str:
    """The form's text with a mark where each input belongs, as existing front ends expect it."""
    missing = [field for field in definition.inputs if mark(field) not in definition.content]
    return "\n\n".join([definition.content, *(f"{field.label}\n\n{mark(field)}" for field in missing)])


def mark(field: FormInput) -> str:
    """Where a front end draws this input."""
    return "{{#$output." + field.name + "#}}"


def filled(definition: FormDefinition, answer: FormAnswer) -> str:
    """The form's text with the answer filled in; an answer by message is that message."""
    if answer.message is not None:
        return _cut(answer.message)
    shown = {mark(field): _shown(field, answer.values.get(field.name)) for field in definition.inputs}
    # All marks at once, so that a human's words are not searched for marks.
    return _cut(_MARK.sub(lambda found: shown.get(found[0], found[0]), marked(definition)))


def query_of(definition: FormDefinition, answer: FormAnswer) -> str:
    """The human's answer as the query of the turn that carries it."""
    if answer.status == "timeout":
        return NO_ANSWER
    if answer.message is not None:
        return answer.message
    label = answer.action.label if answer.action else ""
    values = [
        f"{field.label}: {_shown(field, answer.values[field.name])}"
        for field in definition.inputs
        if field.name in answer.values
    ]
    return "\n".join([label, *values])


def _shown(field: FormInput, value: object) -> str:
    for option in field.options:
        if option.value == value:
            return option.label
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _cut(text: str) -> str:
    return text if len(text) <= MAX_RENDERED else f"{text[:MAX_RENDERED]}…"
