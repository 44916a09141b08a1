"""The offline demo agent: a scripted model in place of a real one; everything around it is real.

It streams word by word, thinks before it uses its tools, knows the conversation, and says in each answer that
it is the demo. Its answers depend only on the messages, and on the clock when it is asked for the time.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel

from agent_gateway.backend.embedded.agent.calculator import calculate as evaluate
from agent_gateway.backend.embedded.agent.content import line_of
from agent_gateway.json_types import JsonObject

ABOUT: Final = "I am the demo agent: no model is configured, so my answers are scripted."
MAX_COUNT: Final = 10_000
_READ: Final = 1000  # characters of a message that are read
_QUOTED: Final = 200
_STORY_DAYS: Final = 40

ToolCall = tuple[str, JsonObject]
"""A tool and its arguments."""

_ASK: Final = re.compile(
    r"\bask (?:me|a human|somebody) (?:whether|if) (?:to |you should )?(.+)", re.IGNORECASE
)
_NAME: Final = re.compile(r"\bmy name is (\w+)", re.IGNORECASE)
_ASKS_NAME: Final = re.compile(r"\bmy name\b.*\?|\bwho am i\b", re.IGNORECASE)
_ASKS_BEFORE: Final = re.compile(
    r"\bdid i (just )?(say|ask|tell|write)|\bmy (last|previous) (message|question)|\bdo you remember\b",
    re.IGNORECASE,
)
_COUNT: Final = re.compile(r"\bcount (?:up )?to (\d{1,9})", re.IGNORECASE)
_STORY: Final = re.compile(r"\bstory\b|\blong answer\b", re.IGNORECASE)
_TIME: Final = re.compile(
    r"\bwhat time\b|\btime is it\b|\b(current|the) (time|date)\b|\bwhat day\b|\bdate is it\b", re.IGNORECASE
)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_ARITHMETIC: Final = re.compile(r"(?<!\w)[\d.()+\-*/%^×÷ ]+(?!\w)")
_URL: Final = re.compile(r"\bhttps?://\S+")
_OPERATION: Final = re.compile(r"[\d)] *[-+*/%^×÷]+ *[-(\d.]")
_SYMBOLS: Final = str.maketrans({"×": "*", "÷": "/", "^": "**"})


def calculate(expression: str) -> str:
    """Calculate an arithmetic expression such as `(2 + 3) * 4`."""
    try:
        return f"{expression} = {evaluate(expression)}"
    except ValueError as error:
        return f"{expression} cannot be calculated: {error}"


def current_time() -> str:
    """Tell the date and time in UTC."""
    return f"{datetime.now(UTC):%H:%M:%S UTC on %A, %d %B %Y}"


def demo_agent(pace: float) -> Agent[object, str]:
    """The demo agent, waiting `pace` seconds after each word."""

    async def stream(
        messages: list[ModelMessage], _: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaThinkingPart] | dict[int, DeltaToolCall]]:
        results = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
        turns = [text for message in messages for text in _prompts(message)]
        calls = _tool_calls(turns[-1][:_READ])
        if results or not calls:
            for word in _words(_report(results) if results else answer(turns)):
                yield word
                await asyncio.sleep(pace)
            return
        for word in _words(_thought(calls)):
            yield {0: DeltaThinkingPart(content=word)}
            await asyncio.sleep(pace)
        for number, (tool, args) in enumerate(calls, 1):
            call_id = f"call-{len(messages)}-{number}"
            yield {number: DeltaToolCall(tool, msgspec.json.encode(args).decode(), tool_call_id=call_id)}

    model = FunctionModel(stream_function=stream, model_name="demo")
    return Agent(model, tools=[calculate, current_time])


def answer(turns: Sequence[str]) -> str:
    """The demo agent's answer without tools; `turns` are the user's messages, the newest last."""
    *earlier, query = turns
    read = query[:_READ]
    if match := _COUNT.search(read):
        last = min(int(match[1]), MAX_COUNT)
        numbers = " ".join(str(number) for number in range(1, last + 1))
        return f"I am the demo agent, and I count to {last}: {numbers}. Done."
    if _STORY.search(read):
        return _story()
    if _ASKS_NAME.search(read):
        return _recall_name(earlier)
    if match := _NAME.search(read):
        return f"Nice to meet you, {match[1]}. {ABOUT} Still, I will know your name in this conversation."
    if _ASKS_BEFORE.search(read):
        return f"{_recall(earlier)} {ABOUT}"
    return (
        f"You said: {_quote(query)}. {_place(earlier)} {ABOUT} "
        "Ask me what 12*7 is, what time it is, what you said before, or to count to 200; "
        "or write: Ask me whether to deploy."
    )


def _place(earlier: Sequence[str]) -> str:
    if not earlier:
        return "This is the first message of our conversation."
    return (
        f"This is message {len(earlier) + 1} of our conversation; the one before was {_quote(earlier[-1])}."
    )


def _recall(earlier: Sequence[str]) -> str:
    if not earlier:
        return "You said nothing before this: it is the first message of our conversation."
    return f"Before this, in message {len(earlier)} of our conversation, you said: {_quote(earlier[-1])}."


def _recall_name(earlier: Sequence[str]) -> str:
    for number in range(len(earlier), 0, -1):
        if match := _NAME.search(earlier[number - 1][:_READ]):
            return f"Your name is {match[1]}: you told me in message {number} of our conversation. {ABOUT}"
    return f"You have not told me your name yet. {ABOUT}"


def _story() -> str:
    days = (
        f"On day {day} it carried message {day} across the river, and nothing was lost, doubled or stuck."
        for day in range(1, _STORY_DAYS + 1)
    )
    opening = "I am the demo agent, and this is my only story. Once upon a time there was a little gateway."
    return "\n\n".join([opening, *days, "And if nobody has stopped it, it is still streaming."])


def _tool_calls(query: str) -> list[ToolCall]:
    """The tools a message calls for, with their arguments."""
    if match := _ASK.search(query):
        return [("ask_human", _form(match[1].strip(" .?!")))]
    if _COUNT.search(query) or _STORY.search(query):
        return []
    calls: list[ToolCall] = []
    for match in _ARITHMETIC.finditer(_DATE.sub(" ", _URL.sub(" ", query))):
        expression = match[0].strip(" .").translate(_SYMBOLS)
        if _OPERATION.search(expression):
            calls.append(("calculate", {"expression": expression}))
            break
    if _TIME.search(query):
        calls.append(("current_time", {}))
    return calls


def _form(what: str) -> JsonObject:
    return {
        "title": "Your decision",
        "question": f"Shall I {what}?",
        "markdown": "I am the demo agent: **nothing happens**, whatever you choose.",
        "fields": [{"name": "comment", "label": "Comment", "type": "paragraph"}],
        "actions": [
            {"id": "approve", "label": "Approve", "style": "primary"},
            {"id": "reject", "label": "Reject", "style": "destructive"},
        ],
    }


def _thought(calls: Sequence[ToolCall]) -> str:
    thoughts = {
        "ask_human": "The user wants to decide, so I ask.",
        "current_time": "The user wants to know the time, so I look at the clock.",
    }
    return " ".join(
        thoughts.get(tool) or f"The user asks me to calculate {args['expression']}, so I use my calculator."
        for tool, args in calls
    )


def _report(results: Sequence[ToolReturnPart]) -> str:
    found: list[str] = []
    for part in results:
        match part.tool_name:
            case "ask_human":
                return _decided(part.content)
            case "current_time":
                found.append(f"It is {part.content}.")
            case _:
                found.append(f"{part.content}.")
    return f"{' '.join(found)} I am the demo agent, and my tools told me so."


def _decided(answer: Any) -> str:
    match answer:
        case {"status": "submitted", "action": {"label": str(label)}, "values": dict() as values}:
            comment = values.get("comment")
            said = f", and your comment is {_quote(str(comment))}" if comment else ""
            return f"You chose {_quote(label)}{said}. {ABOUT} So nothing happens."
        case {"status": "submitted", "message": str(message)}:
            return f"You answered: {_quote(message)}. {ABOUT} So nothing happens."
        case _:
            return f"Nobody answered in time. {ABOUT} So nothing happens."


def _prompts(message: ModelMessage) -> Iterator[str]:
    if isinstance(message, ModelRequest):
        for part in message.parts:
            if isinstance(part, UserPromptPart):
                content = [part.content] if isinstance(part.content, str) else part.content
                # Of a file it reads only the line that describes it.
                said = (item if isinstance(item, str) else line_of(item) for item in content)
                yield "\n".join(text for text in said if text is not None)


def _quote(text: str) -> str:
    line = " ".join(text[:_READ].split())
    return f'"{line}"' if len(line) <= _QUOTED else f'"{line[:_QUOTED]}…"'


def _words(text: str) -> Iterator[str]:
    return (match[0] for match in re.finditer(r"\s*\S+\s*", text))
