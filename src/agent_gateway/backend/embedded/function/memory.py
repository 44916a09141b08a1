"""What an agent function remembers of a conversation: in the history layer of the session snapshot.

The messages are those of pydantic-ai, so a conversation goes on when an agent of one kind takes the place of
one of the other. The agent's state and the open question lie beside them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from agent_gateway.agent import Message
from agent_gateway.backend.embedded.function.steps import no_step
from agent_gateway.backend.embedded.plan import Plan, Snapshot
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.domain.text import clean_json, clean_text


class _Part(msgspec.Struct):
    part_kind: str = ""
    content: object = None


class _Said(msgspec.Struct):
    """A message of pydantic-ai, as much of it as is read."""

    kind: str = ""
    parts: list[_Part] = []


class Memory(msgspec.Struct, omit_defaults=True):
    """The runtime state of the history layer."""

    messages: list[msgspec.Raw] = []
    state: dict[str, Any] = {}
    """The JSON object of the agent."""
    question: str = ""
    """The id of the question that waits for its answer."""

    def history(self) -> tuple[Message, ...]:
        """The texts of the messages. What an agent said in several rounds of one turn is one message."""
        history: list[Message] = []
        for message in self._messages():
            if history and message.role == "assistant" == history[-1].role:
                history[-1] = Message("assistant", history[-1].text + message.text)
            else:
                history.append(message)
        return tuple(history)

    def after(self, query: str, said: str, state: Mapping[str, Any], question: str = "") -> "Memory":
        """The memory with one more turn. Raises RunFailed when the state is not JSON."""
        messages = [*self.messages, _message("request", "user-prompt", query)]
        if said:
            messages.append(_message("response", "text", said))
        if not isinstance(state, dict):
            no_step("the state is no dict")
        try:
            kept = msgspec.json.decode(msgspec.json.encode(clean_json(state)), type=dict[str, Any])
        except (TypeError, ValueError, RecursionError):
            raise RunFailed("the state of the agent is not JSON") from None
        return Memory(messages, kept, question)

    def _messages(self) -> Iterator[Message]:
        try:
            for raw in self.messages:
                said = msgspec.json.decode(raw, type=_Said)
                wanted: tuple[str, Literal["user", "assistant"]] = (
                    ("text", "assistant") if said.kind == "response" else ("user-prompt", "user")
                )
                texts = [text for part in said.parts if part.part_kind == wanted[0] for text in _texts(part)]
                if texts:
                    yield Message(
                        wanted[1], "".join(texts) if wanted[1] == "assistant" else "\n\n".join(texts)
                    )
        except msgspec.MsgspecError:
            raise RunFailed("the session snapshot's history cannot be read") from None


def memory_of(plan: Plan) -> Memory:
    """What the snapshot of a request holds; nothing without a history layer. Raises RunFailed."""
    if plan.history is None:
        return Memory()
    try:
        return msgspec.json.decode(plan.layers[plan.history].runtime_state, type=Memory)
    except msgspec.MsgspecError:
        raise RunFailed("the session snapshot cannot be read") from None


def snapshot_with(plan: Plan, memory: Memory) -> Snapshot:
    """The snapshot after this run; the layers other than the history stay as they are."""
    layers = list(plan.layers)
    if plan.history is not None:
        state = msgspec.Raw(msgspec.json.encode(memory))
        layers[plan.history] = msgspec.structs.replace(layers[plan.history], runtime_state=state)
    return Snapshot(layers)


def _texts(part: _Part) -> list[str]:
    """The texts of a part: a user's message may be a list of texts and files."""
    content = part.content if isinstance(part.content, list) else [part.content]
    return [text for text in content if isinstance(text, str)]


def _message(kind: str, part_kind: str, text: str) -> msgspec.Raw:
    part = {"part_kind": part_kind, "content": clean_text(text)}
    return msgspec.Raw(msgspec.json.encode({"kind": kind, "parts": [part]}))
