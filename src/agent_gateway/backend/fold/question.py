"""A question to a human, read from the deferred tool call with which a run ended.

Any call becomes a form that can be shown and submitted. Unreadable parts are left out. A call without an
action gets one to submit with.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from agent_gateway.backend.lenient import as_dict, as_list, as_str, read_object
from agent_gateway.domain.human_input import FormAction, FormDefinition, FormInput, FormOption, Question
from agent_gateway.domain.text import clean_json

NO_TEXT: Final = "The agent asks for your input."
SUBMIT: Final = FormAction("submit", "Submit", "primary")
MAX_NAME: Final = 255
MAX_CONTENT: Final = 16_000
"""Characters of the question in a form that would be too big."""
MAX_ITEMS: Final = 100
"""Inputs of a form, its actions, and options of one input."""
MAX_BYTES: Final = 160 * 1024
"""Of a whole definition as ASCII JSON: its event holds parts of it twice, and stays under 512 KiB."""


def read_question(call: Mapping[str, object]) -> Question:
    """The question of this call; it is usable whatever the call contains."""
    args, metadata = call.get("args"), call.get("metadata")
    if isinstance(args, str):
        args = read_object(msgspec.Raw(args.encode(errors="replace")))
    fields, more = _cleaned(as_dict(args)), _cleaned(as_dict(metadata))
    text = _text(fields)
    definition = FormDefinition(
        title=as_str(fields.get("title"))[:MAX_NAME],
        content=text,
        inputs=tuple(_inputs(as_list(fields.get("fields")))),
        actions=tuple(_actions(as_list(fields.get("actions")))) or (SUBMIT,),
        urgency=as_str(fields.get("urgency"))[:MAX_NAME] or "normal",
        approval=as_dict(fields.get("approval") or more.get("approval")) or None,
    )
    if _is_too_big(definition):
        content = text if len(text) <= MAX_CONTENT else f"{text[:MAX_CONTENT]}…"
        definition = FormDefinition(definition.title, content, (), (SUBMIT,))
    return Question(clean_json(as_str(call.get("tool_call_id"))), text, definition)


def _cleaned(value: Mapping[str, object]) -> Mapping[str, object]:
    try:
        return as_dict(clean_json(value))
    except RecursionError:
        return {}


def _is_too_big(definition: FormDefinition) -> bool:
    try:
        return len(json.dumps(msgspec.to_builtins(definition))) > MAX_BYTES
    except RecursionError:
        return True


def _text(fields: Mapping[str, object]) -> str:
    """The agent's question, then its explanation if there is one."""
    asked = [as_str(fields.get(name)).strip() for name in ("question", "markdown")]
    return "\n\n".join(filter(None, asked)) or as_str(fields.get("title")).strip() or NO_TEXT


def _inputs(given: Sequence[object]) -> Iterable[FormInput]:
    names: set[str] = set()
    for field in map(as_dict, given[:MAX_ITEMS]):
        name = as_str(field.get("name"))
        if not name or len(name) > MAX_NAME or name in names:
            continue
        names.add(name)
        yield FormInput(
            name=name,
            kind=as_str(field.get("type"))[:MAX_NAME] or "paragraph",
            label=as_str(field.get("label"))[:MAX_NAME] or name,
            required=field.get("required") is True,
            options=tuple(_options(as_list(field.get("options")))),
            placeholder=as_str(field.get("placeholder"))[:MAX_NAME],
            default=field.get("default"),
        )


def _options(given: Sequence[object]) -> Iterable[FormOption]:
    for option in given[:MAX_ITEMS]:
        value = option if isinstance(option, str) else as_str(as_dict(option).get("value"))
        if value:
            yield FormOption(value, as_str(as_dict(option).get("label"))[:MAX_NAME] or value)


def _actions(given: Sequence[object]) -> Iterable[FormAction]:
    ids: set[str] = set()
    for action in map(as_dict, given[:MAX_ITEMS]):
        name = as_str(action.get("id"))
        if not name or len(name) > MAX_NAME or name in ids:
            continue
        ids.add(name)
        label, style = as_str(action.get("label"))[:MAX_NAME], as_str(action.get("style"))[:MAX_NAME]
        yield FormAction(name, label or name, style or "default")
