"""An agent of your own in plain Python: it keeps a shopping list for each conversation.

    cd docs/examples
    agent-gateway backend --agent own_agent_plain:agent
    AGENT_GATEWAY_BACKEND_URL=http://127.0.0.1:9000 agent-gateway serve

docs/bring-your-own-agent.md explains it.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

from agent_gateway.agent import Action, File, Question, Step, Thought, ToolCall, ToolResult, Turn

CLEAR = Question(
    "Shall I really clear the whole list?",
    title="Clear the list",
    actions=(Action("yes", "Clear it", "destructive"), Action("no", "Keep it")),
    id="clear",
)


async def agent(turn: Turn) -> AsyncGenerator[Step, None]:
    """Answer one turn. What is in `turn.state` at the end is there again in the next turn."""
    items: list[str] = turn.state.setdefault("items", [])
    if turn.answer is not None:
        yield cleared(turn.state) if turn.answer.action == "yes" else "Nothing was cleared."
        return
    match turn.query.lower().split(maxsplit=1):
        case ["add", what]:
            yield Thought(f"The user wants {what}. ")
            yield Thought("I look for its price first.")
            call = ToolCall("find_price", {"item": what})
            yield call
            price = await find_price(what)
            yield ToolResult(call.id, {"price": price})
            items.append(what)
            yield f"Added {what} for {price} cents. "
            yield f"The list has {len(items)} items now."
        case ["list"]:
            yield f"On the list: {', '.join(items) or 'nothing'}."
        case ["export"]:
            yield File("\n".join(["item", *items]).encode(), "text/csv")
            yield "Here is the list as a file."
        case ["clear"]:
            yield CLEAR
        case ["count", to]:
            # An agent that takes its time: a user may stop it in the middle.
            for number in range(1, int(to.removeprefix("to ")) + 1):
                yield f"{number} "
                await asyncio.sleep(0.02)
        case _ if turn.history:
            yield f"I do not understand. Before this you said: {turn.history[-2].text}"
        case _:
            yield "Say: add milk, list, export, clear, or count to 100."


async def find_price(item: str) -> int:
    """Stands for a call of another service; whatever waits must be awaited."""
    await asyncio.sleep(0)
    return 10 * len(re.sub(r"\W", "", item))


def cleared(state: dict[str, Any]) -> str:
    """Clear the list, and say so."""
    items = state.pop("items")
    return f"Cleared {len(items)} items."
