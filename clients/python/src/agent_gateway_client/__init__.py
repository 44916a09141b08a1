"""The client of agent-gateway: an answer that survives cut connections, sync and async, typed.

with Client("http://127.0.0.1:8000", "app-demo", user="ada") as client:
    print(client.chat("What is 12 * 7?").text())
"""

from agent_gateway_client.async_client import AsyncClient
from agent_gateway_client.async_turn import AsyncTurn
from agent_gateway_client.client import Client
from agent_gateway_client.errors import (
    ConnectionLost,
    ConversationBusy,
    FormExpired,
    FormSubmitted,
    GatewayError,
    HumanInputRequired,
    IdempotencyConflict,
    InvalidParam,
    NotFound,
    TooLarge,
    TooManyRequests,
    TurnInterrupted,
    TurnTimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedResponse,
)
from agent_gateway_client.openings import Mode
from agent_gateway_client.operations import MessageOptions
from agent_gateway_client.resumption import Reconnect
from agent_gateway_client.retry import Retry
from agent_gateway_client.turn import Turn
from agent_gateway_client.types import ChatStreamEvent

__all__ = [
    "AsyncClient",
    "AsyncTurn",
    "ChatStreamEvent",
    "Client",
    "ConnectionLost",
    "ConversationBusy",
    "FormExpired",
    "FormSubmitted",
    "GatewayError",
    "HumanInputRequired",
    "IdempotencyConflict",
    "InvalidParam",
    "MessageOptions",
    "Mode",
    "NotFound",
    "Reconnect",
    "Retry",
    "TooLarge",
    "TooManyRequests",
    "Turn",
    "TurnInterrupted",
    "TurnTimedOut",
    "Unauthorized",
    "Unavailable",
    "UnexpectedResponse",
]
