"""Forms and submissions as public JSON, the same in streams, lists and replies. Pure.

The words are those of existing front ends (docs/design/service-api.md): the question is a node whose id is
its message's, an input is named by the variable it fills, and the text has a mark where each input belongs.
"""

from typing import Final

from agent_gateway.domain.form_rules import filled, marked
from agent_gateway.domain.human_input import FormAction, FormInput, HumanInputForm

STYLES: Final = {"primary": "primary", "destructive": "accent", "danger": "accent", "ghost": "ghost"}
"""The agent's style of an action → the front ends' style of its button."""
TITLE: Final = "Question"
"""The title of a question that has none."""


def form_json(form: HumanInputForm) -> dict[str, object]:
    """A form as its question announces it."""
    definition = definition_json(form)
    return {
        "form_id": form.id,
        "form_token": form.token,
        **node_json(form),
        "form_content": definition["form_content"],
        "inputs": definition["inputs"],
        "actions": definition["user_actions"],
        "display_in_ui": True,
        "resolved_default_values": definition["resolved_default_values"],
        "expiration_time": form.expires_at,
        "urgency": form.definition.urgency,
        "approval": form.definition.approval,
        "approval_channels": [],
    }


def definition_json(form: HumanInputForm) -> dict[str, object]:
    """The parts of a form that a front end draws."""
    definition = form.definition
    defaults = {field.name: field.default for field in definition.inputs if field.default is not None}
    return {
        "form_content": marked(definition),
        "inputs": [_input(field) for field in definition.inputs],
        "resolved_default_values": defaults,
        "user_actions": [_action(action) for action in definition.actions],
        "expiration_time": form.expires_at,
        "node_title": _title(form),
        "urgency": definition.urgency,
        "approval": definition.approval,
    }


def submission_json(form: HumanInputForm) -> dict[str, object] | None:
    """The answer of a human; None when there is none. Without an action, a message was the answer."""
    answer = form.answer
    if answer is None or answer.status == "timeout":
        return None
    return {
        **node_json(form),
        "rendered_content": filled(form.definition, answer),
        "action_id": answer.action.id if answer.action else "",
        "action_text": answer.action.label if answer.action else "",
        "submitted_data": answer.values,
    }


def node_json(form: HumanInputForm) -> dict[str, object]:
    """The question as a node, as existing front ends expect it."""
    return {"node_id": form.message_id, "node_title": _title(form)}


def _title(form: HumanInputForm) -> str:
    return form.definition.title or TITLE


def _input(field: FormInput) -> dict[str, object]:
    default = None if field.default is None else _constant(field.default)
    options = [{"value": option.value, "label": option.label} for option in field.options]
    return {
        "type": field.kind,
        "output_variable_name": field.name,
        "label": field.label,
        "required": field.required,
        "placeholder": field.placeholder,
        "default": default,
        "options": options,
        "option_source": _constant([option["value"] for option in options]) if options else None,
    }


def _constant(value: object) -> dict[str, object]:
    selector: list[str] = []
    return {"type": "constant", "selector": selector, "value": value}


def _action(action: FormAction) -> dict[str, object]:
    return {"id": action.id, "title": action.label, "button_style": STYLES.get(action.style, "default")}
