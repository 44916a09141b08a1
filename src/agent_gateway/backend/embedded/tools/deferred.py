"""How a run ends that needs a human, and how the next one begins with the answer.

A run ends with one form. If calls wait for an approval it is about all of them, otherwise about the first
question. Calls that the form is not about are refused in the next run, in words that let the model make them
again: none is made without an approval, and none is forgotten.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied

from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.embedded.tools.approval import approval_form, comment_on, decision
from agent_gateway.backend.embedded.tools.check import HUMAN

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
        call, name, args = requests.approvals[0], HUMAN, approval_form(requests.approvals)
    else:
        call = requests.calls[0]
        name, args = call.tool_name, call.args_as_dict()
    return {"tool_call_id": call.tool_call_id, "tool_name": name, "args": args, "metadata": {}}


def resumption(history: Sequence[ModelMessage], answers: Mapping[str, object]) -> Resumption:
    """The results of the open calls of this history; raises RunFailed when the answers are to other calls."""
    open_calls = {call.tool_call_id: call for call in _open_calls(history)}
    if not answers or not answers.keys() <= open_calls.keys():
        raise RunFailed("the deferred tool results do not belong to an open call")
    approvals = {name for name, call in open_calls.items() if call.tool_name != HUMAN}
    answered = [answers[name] for name in answers if name in approvals]
    verdict = decision(answered[0]) if answered else ToolDenied(NOT_MADE)
    words = comment_on(answered[0]) if answered and isinstance(verdict, ToolApproved) else ""
    calls: dict[str, Any] = {
        name: answers.get(name, NOT_ASKED) for name in open_calls if name not in approvals
    }
    results = DeferredToolResults(calls=calls, approvals=dict.fromkeys(approvals, verdict))
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
