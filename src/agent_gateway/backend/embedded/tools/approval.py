"""Approval by a human: a call that needs one ends the run with a form, and the next run makes or refuses it.

One form is about all calls that wait. What is not clearly an approval is none.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import ToolApproved, ToolDenied
from pydantic_ai.toolsets import AbstractToolset

from agent_gateway.backend.embedded.tools.calls import cut

APPROVE: Final = "approve"
COMMENT: Final = "comment"
MAX_SHOWN: Final = 20_000
"""Characters of arguments in a form: a longer one loses its buttons (`fold/question.py`)."""
MAX_WORDS: Final = 10_000
"""Characters of a human's words that the model gets."""


def needing_approval(
    toolset: AbstractToolset[object], names: Sequence[str] | Literal[True]
) -> AbstractToolset[object]:
    """The same tools, of which those with these names run only after an approval; True: all."""
    if not names:
        return toolset
    return toolset.approval_required(lambda _, tool, __: names is True or tool.name in names)


def approval_form(calls: Sequence[ToolCallPart]) -> Mapping[str, object]:
    """The arguments of `ask_human` that ask about these calls."""
    shown = MAX_SHOWN // len(calls)
    names = list(dict.fromkeys(call.tool_name for call in calls))
    title = f"Allow {names[0]}?" if len(calls) == 1 else f"Allow {len(calls)} calls?"
    question = (
        f"The agent wants to call the tool `{names[0]}`."
        if len(calls) == 1
        else f"The agent wants to make these {len(calls)} calls: all of them or none."
    )
    return {
        "title": title,
        "question": question,
        "markdown": "\n\n".join(_shown(call, shown, named=len(calls) > 1) for call in calls),
        "fields": [{"name": COMMENT, "label": "Comment", "type": "paragraph", "required": False}],
        "actions": [
            {"id": APPROVE, "label": "Approve", "style": "primary"},
            {"id": "reject", "label": "Reject", "style": "destructive"},
        ],
    }


def _shown(call: ToolCallPart, most: int, *, named: bool) -> str:
    text = cut(json.dumps(call.args_as_dict(), ensure_ascii=False, indent=2), most)
    fence = "```"
    while fence in text:
        fence += "`"
    return (f"`{call.tool_name}`\n\n" if named else "") + f"{fence}json\n{text}\n{fence}"


def decision(answer: Any) -> ToolApproved | ToolDenied:
    """What the answer of such a form says about its calls."""
    match answer:
        case {"status": "submitted", "action": {"id": "approve"}}:
            return ToolApproved()
        case {"status": "timeout"}:
            return ToolDenied("Nobody decided about this call in time, so it was not made.")
        case {"action": {"id": "reject"}}:
            words = comment_on(answer)
            return ToolDenied("The user rejected this call." + (f" Comment: {words}" if words else ""))
        case {"message": str(message)}:
            return ToolDenied(
                f"The call was not made: the user did not decide, but wrote: {cut(message, MAX_WORDS)}"
            )
        case _:
            return ToolDenied("The call was not made: the user did not approve it.")


def comment_on(answer: Any) -> str:
    """The comment that a human gave with the decision; may be empty."""
    match answer:
        case {"values": {"comment": str(words)}}:
            return cut(words.strip(), MAX_WORDS)
        case _:
            return ""
