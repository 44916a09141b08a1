"""The tool with which an embedded agent asks a human. Its call ends a run, its result starts the next one."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NotRequired

from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults
from pydantic_ai.toolsets import FunctionToolset
from typing_extensions import TypedDict

from agent_gateway.backend.embedded.runs import RunFailed

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
    """The call with which a run ends, in the form of the run protocol."""
    call = requests.calls[0]
    return {
        "tool_call_id": call.tool_call_id,
        "tool_name": call.tool_name,
        "args": call.args_as_dict(),
        "metadata": {},
    }


def results_for(history: Sequence[ModelMessage], answers: Mapping[str, object]) -> DeferredToolResults:
    """The answers to the open calls of this history; raises RunFailed when they belong to other calls."""
    last = history[-1] if history else None
    open_calls = [call.tool_call_id for call in last.tool_calls] if isinstance(last, ModelResponse) else []
    if not answers.keys() <= set(open_calls):
        raise RunFailed("the deferred tool results do not belong to an open call")
    return DeferredToolResults(calls={call: answers.get(call, NOT_ASKED) for call in open_calls})
