"""PyPI `dify-oapi2`: builders, pydantic models, async streams of bytes. Prints what it got as JSON."""

import asyncio
import json
import sys
from typing import Any

from dify_oapi.api.chat.v1.model.chat_request import ChatRequest  # pyrefly: ignore[missing-import]
from dify_oapi.api.chat.v1.model.chat_request_body import ChatRequestBody  # pyrefly: ignore[missing-import]
from dify_oapi.api.chat.v1.model.get_conversation_list_request import (  # pyrefly: ignore[missing-import]
    GetConversationsListRequest,
)
from dify_oapi.api.chat.v1.model.message_history_request import GetMessageHistoryRequest  # pyrefly: ignore[missing-import]
from dify_oapi.api.chat.v1.model.stop_chat_request import StopChatRequest  # pyrefly: ignore[missing-import]
from dify_oapi.api.chat.v1.model.stop_chat_request_body import StopChatRequestBody  # pyrefly: ignore[missing-import]
from dify_oapi.api.dify.v1.model.get_info_request import GetInfoRequest  # pyrefly: ignore[missing-import]
from dify_oapi.api.dify.v1.model.get_parameters_request import GetParametersRequest  # pyrefly: ignore[missing-import]
from dify_oapi.client import Client  # pyrefly: ignore[missing-import]
from dify_oapi.core.model.request_option import RequestOption  # pyrefly: ignore[missing-import]

BASE_URL, KEY, USER = sys.argv[1:]

client = Client.builder().domain(BASE_URL).build()
option = RequestOption.builder().api_key(KEY).build()
stranger = RequestOption.builder().api_key("app-wrong").build()


def request(query: str, mode: str, conversation: str | None = None) -> Any:
    body = ChatRequestBody.builder().query(query).inputs({}).response_mode(mode).user(USER)
    if conversation:
        body = body.conversation_id(conversation)
    return ChatRequest.builder().request_body(body.build()).build()


async def stop(task_id: str) -> Any:
    body = StopChatRequestBody.builder().user(USER).build()
    call = StopChatRequest.builder().task_id(task_id).request_body(body).build()
    return (await client.chat.v1.chat.astop(call, option)).result


async def stream(query: str, conversation: str | None = None, *, stopping: bool = False) -> dict[str, Any]:
    """Cut the bytes into lines, as everyone does who uses this client."""
    answer, result, buffer = "", None, b""
    names: list[str] = []
    event: dict[str, Any] = {}
    chunks = await client.chat.v1.chat.achat(request(query, "streaming", conversation), option, True)
    async for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                names.append(event["event"])
                answer += event.get("answer") or ""
        if stopping and result is None and event:
            result = await stop(event["task_id"])
    return {**event, "answer": answer, "events": names, "result": result}


def refusal(query: str, *, key: Any = option, conversation: str | None = None) -> dict[str, Any]:
    response = client.chat.v1.chat.chat(request(query, "blocking", conversation), key)
    return {
        "http_status": response.raw.status_code,
        "code": response.code,
        "message": response.msg,
        "success": response.success,
    }


async def story() -> dict[str, Any]:
    streamed = await stream("Hello")
    conversation = streamed["conversation_id"]
    recalled = await stream("What did I say?", conversation)
    blocking = client.chat.v1.chat.chat(request("Hello again", "blocking"), option)
    conversations = client.chat.v1.conversation.list(
        GetConversationsListRequest.builder().user(USER).limit(2).build(), option
    )
    messages = client.chat.v1.message.history(
        GetMessageHistoryRequest.builder().user(USER).conversation_id(conversation).build(), option
    )
    parameters = client.dify.v1.info.parameters(GetParametersRequest.builder().build(), option)
    info = client.dify.v1.info.get(GetInfoRequest.builder().build(), option)
    return {
        "streamed": streamed,
        "recalled": recalled,
        "unicode": await stream("Unicode"),
        "thought": await stream("Think"),
        "blocking": json.loads(blocking.model_dump_json(exclude={"raw"})),
        "broken": await stream("Break"),
        "stopped": await stream("Stop me", stopping=True),
        "conversations": json.loads(conversations.model_dump_json(exclude={"raw"})),
        "messages": json.loads(messages.model_dump_json(exclude={"raw"})),
        "parameters": json.loads(parameters.model_dump_json(exclude={"raw"})),
        "info": json.loads(info.model_dump_json(exclude={"raw"})),
        "bad_key": refusal("Hello", key=stranger),
        "no_query": refusal(""),
        "no_conversation": refusal("Hello", conversation="00000000-0000-4000-8000-000000000000"),
        "rate_limit": refusal("Rate limit"),
    }


json.dump(asyncio.run(story()), sys.stdout)
