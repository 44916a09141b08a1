"""The gateway that an average good engineer writes: a yardstick, not an example.

FastAPI, httpx, httpx-sse, pydantic, sse-starlette and json.dumps, no database. It drives the run protocol and
promises nothing beyond the stream itself.
"""

import json
import os
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import httpx
from fastapi import FastAPI
from httpx_sse import aconnect_sse
from pydantic import BaseModel, Field, TypeAdapter
from sse_starlette import EventSourceResponse

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:9100")


class ChatRequest(BaseModel):
    """The body of a POST."""

    query: str
    inputs: dict[str, Any] = {}
    response_mode: Literal["streaming", "blocking"] = "streaming"
    conversation_id: str = ""
    user: str


class _Event(BaseModel):
    id: str
    run_id: str
    created_at: str


class _RunStarted(_Event):
    type: Literal["run_started"]


class _AgentEvent(_Event):
    type: Literal["pydantic_ai_event"]
    data: dict[str, Any]
    agent_message_delta: str | None = None


class _Success(BaseModel):
    output: Any
    session_snapshot: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


class _RunSucceeded(_Event):
    type: Literal["run_succeeded"]
    data: _Success


class _RunFailed(_Event):
    type: Literal["run_failed", "run_cancelled"]
    data: dict[str, Any]


_RUN_EVENT: TypeAdapter[_RunStarted | _AgentEvent | _RunSucceeded | _RunFailed] = TypeAdapter(
    Annotated[_RunStarted | _AgentEvent | _RunSucceeded | _RunFailed, Field(discriminator="type")]
)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    # httpx's own default (100 connections, 20 kept alive) would stall above 100 streams.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=4096)
    async with httpx.AsyncClient(base_url=UPSTREAM, timeout=None, limits=limits, trust_env=False) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=_lifespan)


async def _turn(client: httpx.AsyncClient, body: ChatRequest) -> AsyncIterator[dict[str, str]]:
    created = await client.post("/runs", json={"prompt": body.query})
    created.raise_for_status()
    run_id = created.json()["run_id"]
    ids = {
        "task_id": run_id,
        "message_id": str(uuid.uuid4()),
        "conversation_id": body.conversation_id or str(uuid.uuid4()),
    }

    def frame(event: str, **more: Any) -> dict[str, str]:
        return {"data": json.dumps({"event": event, **ids, **more, "created_at": int(time.time())})}

    async with aconnect_sse(client, "GET", f"/runs/{run_id}/events/sse") as source:
        async for sse in source.aiter_sse():
            event = _RUN_EVENT.validate_json(sse.data)
            if isinstance(event, _AgentEvent):
                if event.agent_message_delta:
                    yield frame("message", answer=event.agent_message_delta)
            elif isinstance(event, _RunSucceeded):
                yield frame("message_end", metadata={"usage": event.data.usage})
                return
            elif isinstance(event, _RunFailed):
                yield frame("error", status=500, message="run failed")
                return


@app.post("/chat-messages")
async def chat_messages(body: ChatRequest) -> EventSourceResponse:
    """One turn, streamed."""
    return EventSourceResponse(_turn(app.state.client, body))
