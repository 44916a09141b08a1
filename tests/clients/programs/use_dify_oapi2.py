"""PyPI `dify-oapi2`: builders, pydantic models, async streams of bytes. Prints what it got as JSON."""

# pyrefly: ignore-errors[missing-import]
import asyncio
import json
import sys
from io import BytesIO
from typing import Any

from dify_oapi.api.chat.v1.model.chat_file import ChatFile
from dify_oapi.api.chat.v1.model.chat_request import ChatRequest
from dify_oapi.api.chat.v1.model.chat_request_body import ChatRequestBody
from dify_oapi.api.chat.v1.model.delete_conversation_request import DeleteConversationRequest
from dify_oapi.api.chat.v1.model.delete_conversation_request_body import DeleteConversationRequestBody
from dify_oapi.api.chat.v1.model.get_conversation_list_request import GetConversationsListRequest
from dify_oapi.api.chat.v1.model.get_conversation_variables_request import GetConversationVariablesRequest
from dify_oapi.api.chat.v1.model.get_suggested_questions_request import GetSuggestedQuestionsRequest
from dify_oapi.api.chat.v1.model.message_history_request import GetMessageHistoryRequest
from dify_oapi.api.chat.v1.model.rename_conversation_request import RenameConversationRequest
from dify_oapi.api.chat.v1.model.rename_conversation_request_body import RenameConversationRequestBody
from dify_oapi.api.chat.v1.model.stop_chat_request import StopChatRequest
from dify_oapi.api.chat.v1.model.stop_chat_request_body import StopChatRequestBody
from dify_oapi.api.dify.v1.model.audio_to_text_request import AudioToTextRequest
from dify_oapi.api.dify.v1.model.audio_to_text_request_body import AudioToTextRequestBody
from dify_oapi.api.dify.v1.model.get_feedbacks_request import GetFeedbacksRequest
from dify_oapi.api.dify.v1.model.get_info_request import GetInfoRequest
from dify_oapi.api.dify.v1.model.get_meta_request import GetMetaRequest
from dify_oapi.api.dify.v1.model.get_parameters_request import GetParametersRequest
from dify_oapi.api.dify.v1.model.get_site_request import GetSiteRequest
from dify_oapi.api.dify.v1.model.submit_feedback_request import SubmitFeedbackRequest
from dify_oapi.api.dify.v1.model.submit_feedback_request_body import SubmitFeedbackRequestBody
from dify_oapi.api.dify.v1.model.text_to_audio_request import TextToAudioRequest
from dify_oapi.api.dify.v1.model.text_to_audio_request_body import TextToAudioRequestBody
from dify_oapi.api.dify.v1.model.upload_file_body import UploadFileBody
from dify_oapi.api.dify.v1.model.upload_file_request import UploadFileRequest
from dify_oapi.client import Client
from dify_oapi.core.model.request_option import RequestOption

BASE_URL, KEY, USER = sys.argv[1:]

client = Client.builder().domain(BASE_URL).build()
chat, dify = client.chat.v1, client.dify.v1
option = RequestOption.builder().api_key(KEY).build()
stranger = RequestOption.builder().api_key("app-wrong").build()


def built(kind: Any, **values: Any) -> Any:
    """All requests and bodies are built by chains of calls."""
    builder = kind.builder()
    for name, value in values.items():
        several = value if isinstance(value, tuple) else (value,)
        builder = getattr(builder, name)(*several)
    return builder.build()


def plain(response: Any) -> Any:
    """The content of the typed response."""
    return json.loads(response.model_dump_json(exclude={"raw"}))


def raw(response: Any) -> Any:
    """The raw content, where the client's type has no room for it."""
    return json.loads(response.raw.content)


def refusal(response: Any) -> dict[str, Any]:
    return {
        "http_status": response.raw.status_code,
        "code": response.code,
        "message": response.msg,
        "success": response.success,
    }


def request(query: str, mode: str, conversation: str | None = None, **more: Any) -> Any:
    if conversation:
        more["conversation_id"] = conversation
    body = built(ChatRequestBody, query=query, inputs={}, response_mode=mode, user=USER, **more)
    return built(ChatRequest, request_body=body)


def ask(query: str, *, key: Any = option, conversation: str | None = None, **more: Any) -> Any:
    return chat.chat.chat(request(query, "blocking", conversation, **more), key)


async def stop(task_id: str) -> Any:
    call = built(StopChatRequest, task_id=task_id, request_body=built(StopChatRequestBody, user=USER))
    return (await chat.chat.astop(call, option)).result


async def stream(query: str, conversation: str | None = None, *, stopping: bool = False) -> dict[str, Any]:
    """Cut the bytes into lines, as everyone does who uses this client."""
    answer, result, buffer = "", None, b""
    names: list[str] = []
    event: dict[str, Any] = {}
    chunks = await chat.chat.achat(request(query, "streaming", conversation), option, True)
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


def rate(message: str, rating: str | None) -> Any:
    body = built(SubmitFeedbackRequestBody, rating=rating, user=USER)
    return dify.feedback.submit(built(SubmitFeedbackRequest, message_id=message, request_body=body), option)


def rename(conversation: str, **how: Any) -> Any:
    body = built(RenameConversationRequestBody, user=USER, **how)
    call = built(RenameConversationRequest, conversation_id=conversation, request_body=body)
    return chat.conversation.rename(call, option)


def delete(conversation: str) -> Any:
    body = built(DeleteConversationRequestBody, user=USER)
    call = built(DeleteConversationRequest, conversation_id=conversation, request_body=body)
    return chat.conversation.delete(call, option)


def history(conversation: str) -> Any:
    call = built(GetMessageHistoryRequest, user=USER, conversation_id=conversation)
    return chat.message.history(call, option)


def upload() -> Any:
    note = (BytesIO(b"A note."), "note.txt")
    call = built(UploadFileRequest, file=note, request_body=built(UploadFileBody, user=USER))
    return dify.file.upload(call, option)


def hear() -> Any:
    sound = (BytesIO(b"\xff\xfb"), "sound.mp3")
    body = built(AudioToTextRequestBody, user=USER)
    return dify.audio.to_text(built(AudioToTextRequest, file=sound, request_body=body), option)


def speak() -> Any:
    body = built(TextToAudioRequestBody, text="Hello", user=USER)
    return dify.audio.from_text(built(TextToAudioRequest, request_body=body), option)


async def story() -> dict[str, Any]:
    streamed = await stream("Hello")
    conversation, message = streamed["conversation_id"], streamed["message_id"]
    recalled = await stream("What did I say?", conversation)
    blocking = ask("Hello again")
    uploaded = upload()
    note = built(ChatFile, type="document", transfer_method="local_file", upload_file_id=uploaded.id)
    suggested = built(GetSuggestedQuestionsRequest, message_id=message, user=USER)
    variables = built(GetConversationVariablesRequest, conversation_id=conversation, user=USER)
    return {
        "streamed": streamed,
        "recalled": recalled,
        "unicode": await stream("Unicode"),
        "thought": await stream("Think"),
        "blocking": plain(blocking),
        "broken": await stream("Break"),
        "stopped": await stream("Stop me", stopping=True),
        "uploaded": plain(uploaded),
        "shown": plain(ask("Look", files=[note])),
        "rated": plain(rate(message, "like")),
        "ratings": raw(dify.feedback.list(built(GetFeedbacksRequest, page=1, limit=100), option)),
        "suggested": plain(chat.message.suggested(suggested, option)),
        "renamed": raw(rename(conversation, name="All about hello")),
        "conversations": plain(
            chat.conversation.list(built(GetConversationsListRequest, user=USER, limit=2), option)
        ),
        "messages": plain(history(conversation)),
        "variables": plain(chat.conversation.variables(variables, option)),
        "parameters": raw(dify.info.parameters(built(GetParametersRequest), option)),
        "info": plain(dify.info.get(built(GetInfoRequest), option)),
        "meta": plain(dify.info.meta(built(GetMetaRequest, user=USER), option)),
        "site": plain(dify.info.site(built(GetSiteRequest), option)),
        "unrated": plain(rate(message, None)),
        "named": raw(rename(conversation, auto_generate=True)),
        "heard": refusal(hear()),
        "spoken": refusal(speak()),
        "bad_key": refusal(ask("Hello", key=stranger)),
        "no_query": refusal(ask("")),
        "no_conversation": refusal(ask("Hello", conversation="00000000-0000-4000-8000-000000000000")),
        "rate_limit": refusal(ask("Rate limit")),
        "deleted": plain(delete(conversation)),
        "gone": refusal(history(conversation)),
    }


json.dump(asyncio.run(story()), sys.stdout)
