"""How an agent asks a human: by a tool, or for an approval. That ends a run; the answer starts the next."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NotRequired

from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDenied
from pydantic_ai.toolsets import FunctionToolset
from typing_extensions import TypedDict

from agent_gateway.backend.embedded.runs import RunFailed

APPROVE: Final = {"id": "approve", "label": "Approve", "style": "primary"}
DENY: Final = {"id": "deny", "label": "Deny", "style": "destructive"}
_APPROVAL: Final = "approval:"
"""Before the id of a call that waits for an approval: its answer is no result of the tool."""
NOT_ASKED: Final = "This was not asked: there is one question at a time. Ask again if you still have to."


class Field(TypedDict):
    """An input of the form."""

    name: str
    label: str
    type: Literal["paragraph", "select"]
    required: NotRequired[bool]
    options: NotRequired[list[dict[str, str]]]


class Action(TypedDict):
    """A button of the form."""

    id: str
    label: str
    style: NotRequired[Literal["primary", "default", "destructive"]]


def ask_human(
    title: str,
    question: str,
    actions: list[Action],
    fields: list[Field] | None = None,
    markdown: str = "",
) -> str:
    """Ask the user to decide or to fill in a form, and wait for the answer."""
    raise CallDeferred


TOOLSET: Final = FunctionToolset[object]([ask_human])


def deferred_call(requests: DeferredToolRequests) -> Mapping[str, object]:
    """The call with which a run ends, in the form of the run protocol.

    A tool that needs an approval becomes the question whether it may run.
    """
    call = next(iter([*requests.calls, *requests.approvals]))
    asked = {
        "tool_call_id": call.tool_call_id,
        "tool_name": call.tool_name,
        "args": call.args_as_dict(),
        "metadata": requests.metadata.get(call.tool_call_id, {}),
    }
    if requests.calls:
        return asked
    form = {
        "title": "Approval needed",
        "question": f"May the tool `{call.tool_name}` run?",
        "markdown": f"```json\n{call.args_as_json_str()}\n```",
        "actions": [APPROVE, DENY],
        "approval": {"tool_name": call.tool_name, "args": call.args_as_dict()},
    }
    return asked | {"tool_call_id": f"{_APPROVAL}{call.tool_call_id}", "args": form}


def results_for(history: Sequence[ModelMessage], answers: Mapping[str, object]) -> DeferredToolResults:
    """The answers to the open calls of this history; raises RunFailed when they belong to other calls."""
    last = history[-1] if history else None
    open_calls = [call.tool_call_id for call in last.tool_calls] if isinstance(last, ModelResponse) else []
    if not {answered.removeprefix(_APPROVAL) for answered in answers} <= set(open_calls):
        raise RunFailed("the deferred tool results do not belong to an open call")
    results = DeferredToolResults()
    for call in open_calls:
        if (asked := f"{_APPROVAL}{call}") in answers:
            results.approvals[call] = _approval(answers[asked])
        else:
            results.calls[call] = answers.get(call, NOT_ASKED)
    return results


def _approval(answer: Any) -> bool | ToolDenied:
    match answer:
        case {"status": "submitted", "action": {"id": "approve"}}:
            return True
        case {"status": "submitted", "message": str(message)} if message:
            return ToolDenied(f"Instead of an approval the user wrote: {message}")
        case {"status": "timeout"}:
            return ToolDenied("Nobody answered in time, so the tool did not run.")
        case _:
            return ToolDenied()
