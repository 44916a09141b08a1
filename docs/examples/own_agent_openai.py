"""An agent of your own that asks any server of the OpenAI API: vLLM, llama.cpp, Ollama, LiteLLM and others.

    cd docs/examples
    export MODEL_BASE_URL=http://127.0.0.1:8001/v1 MODEL=my-model
    agent-gateway backend --agent own_agent_openai:agent
    AGENT_GATEWAY_BACKEND_URL=http://127.0.0.1:9000 agent-gateway serve

MODEL_API_KEY is sent if it is set. docs/bring-your-own-agent.md explains the rest.
"""

import json
import os
from collections.abc import AsyncGenerator
from typing import Any, Final

import httpx

from agent_gateway.agent import AgentError, Step, Thought, Turn, Usage

BASE_URL: Final = os.environ.get("MODEL_BASE_URL", "http://127.0.0.1:8001/v1")
MODEL: Final = os.environ.get("MODEL", "my-model")
KEY: Final = os.environ.get("MODEL_API_KEY", "")
SILENCE_SECONDS: Final = 60.0

REASONS: Final = {401: "InvokeAuthorizationError", 404: "ModelNotFoundError", 429: "InvokeRateLimitError"}
"""Which error clients get, by the status of the model server."""


async def agent(turn: Turn) -> AsyncGenerator[Step, None]:
    """Answer one turn with the words of the model, as they come."""
    messages = [{"role": role, "content": text} for role, text in turn.history]
    if turn.instructions:
        messages.insert(0, {"role": "system", "content": turn.instructions})
    messages.append({"role": "user", "content": turn.query})
    finish_reason = None
    try:
        async for chunk in chunks(messages):
            if used := chunk.get("usage"):
                yield Usage(used["prompt_tokens"], used["completion_tokens"])
            for choice in chunk["choices"]:
                delta = choice["delta"]
                if thought := delta.get("reasoning_content"):
                    yield Thought(thought)
                if text := delta.get("content"):
                    yield text
                finish_reason = choice.get("finish_reason") or finish_reason
    except httpx.HTTPError as error:
        # The text of the error may repeat what was sent, so only its type is told.
        kind = type(error).__name__
        raise AgentError(f"the model server failed ({kind})", reason="InvokeConnectionError") from None
    if finish_reason is None:
        raise AgentError("the model server broke off the answer", reason="AnswerIncompleteError")


async def chunks(messages: list[dict[str, str]]) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of a streamed chat completion. A stop of the turn closes the connection."""
    body = {
        "model": MODEL,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    async with (
        httpx.AsyncClient(base_url=BASE_URL, timeout=SILENCE_SECONDS) as client,
        client.stream("POST", "chat/completions", json=body, headers=headers) as response,
    ):
        if response.status_code != 200:
            status = response.status_code
            default = "InvokeServerUnavailableError" if status >= 500 else "InvokeBadRequestError"
            raise AgentError(f"the model server answered {status}", reason=REASONS.get(status, default))
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip()
            if line.startswith("data:") and data != "[DONE]":
                yield json.loads(data)
