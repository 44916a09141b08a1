"""How a run ends that needs a human, and how the next one begins with the answer.

A run ends with one form. If calls wait for an approval it is about all of them, otherwise about the first
question. Calls that the form is not about are refused in the next run, in words that let the model make them
again: none is made without an approval, and none is forgotten.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied

from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.embedded.tools.approval import approval_form, comment_on, decision
from agent_gateway.backend.embedded.tools.check import HUMAN

_APPROVAL: Final = "approval:"
"""Before the id of a call that waits for an approval: its answer is no result of the tool."""
NOT_ASKED: Final = "This was not asked: there is one question at a time. Ask again if you still have to."
NOT_MADE: Final = "This call was not made: it needs an approval of its own. Call again if you still have to."


class Resumption(NamedTuple):
    """With what a run goes on that had asked."""

    results: DeferredToolResults
    """The result of each open call."""
    words: str | None
    """What the human wrote to an approval."""


def deferred_call(requests: DeferredToolRequests) -> Mapping[str, object]:
    """The call with which a run ends, in the form of the run protocol."""
    if requests.approvals:
        asked = f"{_APPROVAL}{requests.approvals[0].tool_call_id}"
        form = approval_form(requests.approvals)
        return {"tool_call_id": asked, "tool_name": HUMAN, "args": form, "metadata": {}}
    call = requests.calls[0]
    return {
        "tool_call_id": call.tool_call_id,
        "tool_name": call.tool_name,
        "args": call.args_as_dict(),
        "metadata": requests.metadata.get(call.tool_call_id, {}),
    }


def resumption(history: Sequence[ModelMessage], answers: Mapping[str, object]) -> Resumption:
    """The results of the open calls of this history; raises RunFailed when the answers are to other calls."""
    open_calls = {call.tool_call_id: call for call in _open_calls(history)}
    if not answers or not {name.removeprefix(_APPROVAL) for name in answers} <= open_calls.keys():
        raise RunFailed("the deferred tool results do not belong to an open call")
    decided = [answer for name, answer in answers.items() if name.startswith(_APPROVAL)]
    verdict = decision(decided[0]) if decided else ToolDenied(NOT_MADE)
    words = comment_on(decided[0]) if decided and isinstance(verdict, ToolApproved) else ""
    results = DeferredToolResults()
    for name, call in open_calls.items():
        if name in answers or call.tool_name == HUMAN:
            results.calls[name] = answers.get(name, NOT_ASKED)
        else:
            results.approvals[name] = verdict
    return Resumption(results, f"The user approved, and wrote: {words}" if words else None)


def _open_calls(history: Sequence[ModelMessage]) -> list[ToolCallPart]:
    """The calls of the last response that have no result yet; others of it may have one."""
    done: set[str] = set()
    for message in reversed(history):
        match message:
            case ModelRequest(parts=parts):
                done.update(part.tool_call_id for part in parts if isinstance(part, ToolReturnPart))
            case ModelResponse():
                return [call for call in message.tool_calls if call.tool_call_id not in done]
    return []
