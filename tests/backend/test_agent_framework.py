"""The agent framework that backends run on continues from the session snapshots that they are sent."""

import json

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessagesTypeAdapter
from pydantic_ai.models.test import TestModel

from agent_gateway.backend.snapshots import in_schema_2
from tests.support.fakes.session import history_of
from tests.support.paths import RECORDED

REQUEST = "cross/v1_snapshot_pending_ask_to_schema2_new_turn.request.json"


@pytest.mark.anyio
@pytest.mark.parametrize("half", [False, True], ids=["open", "half-answered"])
async def test_the_agent_framework_continues_after_an_interrupted_message(half: bool) -> None:
    """Backends run on it: it accepts no new text after a call that is only left open."""
    request = json.loads((RECORDED / REQUEST).read_text("utf-8"))
    given = request["session_snapshot"]
    messages = history_of(given)
    if half:
        messages[-1]["parts"].append(
            {"part_kind": "tool-call", "tool_name": "t", "args": {}, "tool_call_id": "b"}
        )
        result = {"part_kind": "tool-return", "tool_name": "t", "tool_call_id": "b", "content": "done"}
        messages.append({"kind": "request", "parts": [result], "state": "complete"})
    converted = in_schema_2(json.dumps(given).encode())
    assert converted is not None
    sent = history_of(json.loads(bytes(converted)))
    agent = Agent(TestModel(custom_output_text="Fine."))
    ran = await agent.run("Else", message_history=ModelMessagesTypeAdapter.validate_python(sent))
    assert ran.output == "Fine."
    told = [
        part for message in ran.all_messages() for part in message.parts if part.part_kind == "tool-return"
    ]
    assert "ask_human" in [part.tool_name for part in told]
    if not half:
        with pytest.raises(UserError, match="unprocessed tool calls"):
            await agent.run("Else", message_history=ModelMessagesTypeAdapter.validate_python(messages))
