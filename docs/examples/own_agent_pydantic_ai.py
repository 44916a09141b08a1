"""An agent of your own, made with pydantic-ai: a tool, and one that must be approved by the user.

    cd docs/examples
    export OPENAI_API_KEY=…
    agent-gateway backend --agent own_agent_pydantic_ai:agent
    AGENT_GATEWAY_BACKEND_URL=http://127.0.0.1:9000 agent-gateway serve

MODEL names another model, as in `anthropic:claude-sonnet-4-5`. docs/bring-your-own-agent.md explains it.
"""

import os

from pydantic_ai import Agent, DeferredToolRequests

SEATS = {"A1": "free", "A2": "taken", "B1": "free"}

agent = Agent(
    os.environ.get("MODEL", "openai:gpt-5-mini"),
    instructions="You sell seats of a small theatre. Look before you promise a seat.",
    # With DeferredToolRequests a tool may wait for a human: the turn ends with the question.
    output_type=[str, DeferredToolRequests],
)


@agent.tool_plain
def look_up_seat(seat: str) -> str:
    """Tell whether a seat such as A1 is free or taken."""
    return SEATS.get(seat, "there is no such seat")


@agent.tool_plain(requires_approval=True)
def book_seat(seat: str) -> str:
    """Book a seat. The user is asked first."""
    SEATS[seat] = "taken"
    return f"Seat {seat} is booked."
