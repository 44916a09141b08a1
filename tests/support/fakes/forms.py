"""The form that the store makes from a question, for tests without a store."""

from dataclasses import replace

from agent_gateway.domain.events import Result
from agent_gateway.domain.human_input import FormState, HumanInputForm
from agent_gateway.domain.ids import FormId, MessageId


def stored(result: Result) -> Result:
    """The result as `finish` stores it: a question has become a form."""
    if result.question is None:
        return result
    asked = result.question
    form = HumanInputForm(
        id=FormId("0193a000-0000-7000-8000-00000000000f"),
        token="token",
        message_id=MessageId("0193a000-0000-7000-8000-00000000000e"),
        tool_call_id=asked.tool_call_id,
        definition=asked.definition,
        state=FormState.OPEN,
        expires_at=1_800_000_000,
    )
    return replace(result, question=None, form=form)
