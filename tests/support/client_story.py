"""The behaviour of the backend of these tests, and its result at the gateway."""

from typing import Any

from tests.support.fakes.script import (
    Gate,
    Script,
    echo,
    fail,
    script,
    succeed,
    text,
    thinking,
    tool_call,
    tool_result,
)
from tests.support.fakes.session import history_of, query_of
from tests.support.gateway_server import GatewayServer
from tests.support.json_type import Json
from tests.support.outbox import SUGGEST

UNICODE = 'naïve 你好 🎉 line\u2028sep "quoted" \\ end'
"""Text that breaks readers which split lines or bytes in the wrong place."""


class Story:
    """The query decides the behaviour of the backend, so that every program sees the same."""

    def __init__(self) -> None:
        self.left = Gate()
        """Opens what "Leave me" waits for."""
        self.slow = Gate()
        """Opens what "Slow" waits for."""
        clock = [*tool_call("call_1", "clock", {"zone": "UTC"}), *tool_result("call_1", "clock", "12:00")]
        self._scripts: dict[str, Script] = {
            "Unicode": script(text(*UNICODE), succeed()),
            "Think": script(thinking("Hm, ", "the time."), clock, text("It is ", "noon."), succeed()),
            "Stop me": script(text("One ", "two "), Gate(), text("three"), succeed()),
            "Leave me": script(text("One ", "two "), self.left, text("three"), succeed()),
            "Slow": script(self.slow, text("At ", "last"), succeed()),
            "Break": script(text("Half an "), fail("InvokeServerUnavailableError", "a provider's secret")),
            "Rate limit": script(fail("InvokeRateLimitError", "a provider's secret")),
        }

    def __call__(self, body: Json) -> Script:
        query = query_of(body)
        if query.startswith(SUGGEST):
            return script(text('["What else?"', ', "Why?"]'), succeed())
        if query == "What did I say?":
            return script(text("You said: ", ", ".join(_said_before(body))), succeed())
        return self._scripts.get(query) or echo(body)


def _said_before(body: Json) -> list[str]:
    parts = [part for message in history_of(body["session_snapshot"]) for part in message["parts"]]
    return [part["content"] for part in parts if part["part_kind"] == "user-prompt"]


def only_message(gateway: GatewayServer, user: str) -> dict[str, Any]:
    """The only message of the newest conversation of this user, as the API lists it."""
    with gateway.client() as http:
        conversation = http.get("/conversations", params={"user": user}).json()["data"][0]
        messages = http.get("/messages", params={"user": user, "conversation_id": conversation["id"]})
        [message] = messages.json()["data"]
    told: dict[str, Any] = message
    return told
