"""PyPI `dify-client-python`: typed models, and httpx's 5 s of silence. Prints what it got as JSON."""

import json
import sys
from collections.abc import Callable
from typing import Any

from dify_client import Client, errors, models  # pyrefly: ignore[missing-import]

BASE_URL, KEY, USER = sys.argv[1:4]
NOTHING = "00000000-0000-4000-8000-000000000000"

client = Client(api_key=KEY, api_base=f"{BASE_URL}/v1")


def request(query: str, mode: str = "streaming", **more: Any) -> Any:
    return models.ChatRequest(query=query, user=USER, response_mode=models.ResponseMode(mode), **more)


def stream(query: str, *, stop: bool = False, **more: Any) -> dict[str, Any]:
    answer, event, stopped = "", None, None
    names: list[str] = []
    for event in client.chat_messages(request(query, **more)):
        names.append(str(event.event))
        answer += getattr(event, "answer", "")
        if stop and stopped is None:
            stopped = client.stop_chat_messages(event.task_id, models.StopRequest(user=USER))
    told = {} if event is None else event.model_dump(mode="json")
    return {**told, "answer": answer, "events": names, "result": stopped and stopped.result}


def refusal(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        call()
    except errors.DifyAPIError as error:
        return {
            "http_status": error.status,
            "code": error.code,
            "message": error.message,
            "type": type(error).__name__,
        }
    return {}


def rate(message: str, rating: Any) -> Any:
    return client.feedback_messages(message, models.FeedbackRequest(rating=rating, user=USER)).model_dump()


def story() -> dict[str, Any]:
    streamed = stream("Hello")
    message = streamed["message_id"]
    uploaded = client.upload_files(
        ("note.txt", b"A note.", "text/plain"), models.UploadFileRequest(user=USER)
    )
    note = models.File(
        type=models.FileType.DOCUMENT,
        transfer_method=models.TransferMethod.LOCAL_FILE,
        upload_file_id=uploaded.id,
    )
    sound = ("sound.mp3", b"\xff\xfb", "audio/mpeg")
    stranger = Client(api_key="app-wrong", api_base=f"{BASE_URL}/v1")
    return {
        "streamed": streamed,
        "recalled": stream("What did I say?", conversation_id=streamed["conversation_id"]),
        "unicode": stream("Unicode"),
        "thought": stream("Think"),
        "blocking": client.chat_messages(request("Hello again", "blocking")).model_dump(mode="json"),
        "broken": stream("Break"),
        "stopped": stream("Stop me", stop=True),
        "uploaded": uploaded.model_dump(),
        "shown": client.chat_messages(request("Look", "blocking", files=[note])).model_dump(mode="json"),
        "rated": rate(message, models.Rating.LIKE),
        "unrated": rate(message, None),
        "suggested": client.suggest_messages(message, models.ChatSuggestRequest(user=USER)).model_dump(),
        "heard": refusal(lambda: client.audio_to_text(sound, models.AudioToTextRequest(user=USER))),
        "spoken": refusal(lambda: client.text_to_audio(models.TextToAudioRequest(text="Hello", user=USER))),
        "bad_key": refusal(lambda: stranger.chat_messages(request("Hello", "blocking"))),
        "no_query": refusal(lambda: client.chat_messages(request("", "blocking"))),
        "no_conversation": refusal(lambda: stream("Hello", conversation_id=NOTHING)),
        "rate_limit": refusal(lambda: stream("Rate limit")),
    }


json.dump(stream("Slow") if sys.argv[4:] == ["slow"] else story(), sys.stdout)
