"""The backend's behaviour for a query depends on the query alone, so that a seed always means the same runs.

Every token of every run is unlike any other, so that a lost, doubled or foreign one shows.
"""

import asyncio
import random
from collections.abc import Iterator
from typing import Final, Literal

from tests.support.fakes.script import (
    Emit,
    Gate,
    Script,
    Step,
    ask_human,
    fail,
    refuse,
    script,
    succeed,
    text,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.session import Json, query_of

FASTEST: Final = 0.3
SLOWEST: Final = 5.0
"""Seconds that a run takes."""
QUESTION: Final = "Shall I go on?"
FAILURES: Final = {
    "InvokeRateLimitError": "rate_limit_error",
    "InvokeBadRequestError": "completion_request_error",
    "InvokeServerUnavailableError": "provider_unavailable",
}
"""Reasons with which runs fail here, and the code that a client gets."""

_KINDS: Final = {
    "text": 50,
    "thinking": 12,
    "tools": 18,
    "silent": 6,
    "structured": 4,
    "failing": 6,
    "question": 4,
}
_CANCELS: Final[dict[int | Literal["ignore", "hang"], int]] = {
    200: 88,
    409: 3,
    500: 3,
    "ignore": 4,
    "hang": 2,
}
_CREATES: Final[dict[int | Literal["cut", "garbage", "hang"], int]] = {202: 97, 503: 2, "cut": 1}
"""The answers of a backend, and how often of a hundred times."""


class Pause(Gate):
    """The model takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def wait(self) -> None:
        await asyncio.sleep(self._seconds)


class Plans:
    """The script source of the scripted backend."""

    def __init__(self) -> None:
        self._refused: set[str] = set()

    def __call__(self, body: Json) -> Script:
        query = query_of(body)
        dice = random.Random(query)
        steps = list(_steps(query, dice))
        seconds = FASTEST + (SLOWEST - FASTEST) * dice.random() ** 2
        cancel = dice.choices(list(_CANCELS), list(_CANCELS.values()))[0]
        create = dice.choices(list(_CREATES), list(_CREATES.values()))[0]
        keep_open = dice.random() < 0.7
        if create == 503:
            # Told once: sent again, it is welcome (R4).
            if query not in self._refused:
                self._refused.add(query)
                return refuse(503)
            create = 202
        return script(_paced(steps, seconds), create=create, cancel=cancel, keep_open=keep_open)


def loses_create(query: str) -> bool:
    """Whether the answer to POST /runs is lost on purpose: an unknown run without any fault."""
    return Plans()({"composition": {"layers": [{"config": {"user": query}}]}}).create == "cut"


def _paced(steps: list[Step], seconds: float) -> list[Step]:
    """The same steps, spread over so many seconds."""
    waits = max(1, sum(_takes_time(step) for step in steps))
    paced: list[Step] = []
    for step in steps:
        paced += [Pause(seconds / waits), step] if _takes_time(step) else [step]
    return paced


def _takes_time(step: Step) -> bool:
    return not isinstance(step, Emit) or step.delta is not None or "delta" in step.data


def _steps(query: str, dice: random.Random) -> Iterator[Step]:
    tokens = _tokens(query, dice)
    half = len(tokens) // 2
    match dice.choices(list(_KINDS), list(_KINDS.values()))[0]:
        case "text":
            yield from text(*tokens)
            yield succeed()
        case "thinking":
            yield from thinking(*(f"thought of {token}" for token in tokens[:half] or tokens))
            yield from text(*tokens)
            yield succeed()
        case "tools":
            yield from text(*tokens[: half + 1])
            for call in ("a", "b"):
                yield from tool_call(f"call-{call}", f"tool_{call}", {"for": query})
            for call in ("b", "a"):
                yield from tool_result(f"call-{call}", f"tool_{call}", {"of": f"{query} {call}"})
            yield from text(*tokens[half + 1 :] or tokens)
            yield succeed()
        case "silent":
            yield Pause(0)
            yield succeed(output="".join(tokens))
        case "structured":
            yield Pause(0)
            yield succeed(output={"of": query, "tokens": len(tokens)})
        case "failing":
            yield from text(*tokens)
            yield fail(dice.choice(list(FAILURES)))
        case _:
            yield from text(*tokens)
            yield ask_human(QUESTION, markdown="")


def _tokens(query: str, dice: random.Random) -> list[str]:
    count = dice.randint(3, 40)
    odd = ["", "", "", "é", "🙂", "\u2028", "\n", '"\\']
    tokens = [f"{query}#{number}{dice.choice(odd)} " for number in range(count)]
    return [piece for token in tokens for piece in _cut_in_two(token)]


def _cut_in_two(token: str) -> list[str]:
    """As backends do that cut a character between its halves."""
    before, emoji, after = token.partition("🙂")
    return [f"{before}\ud83d", f"\ude42{after}"] if emoji else [token]
