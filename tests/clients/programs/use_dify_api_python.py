"""PyPI `dify-api-python`: knows agents only (`agent_message`), reads with sseclient. Prints JSON."""

import json
import sys
from typing import Any

import requests
from dify_api_python import DifyClient  # pyrefly: ignore[missing-import]

BASE_URL, KEY, USER = sys.argv[1:]
NOTHING = "00000000-0000-4000-8000-000000000000"

client = DifyClient(api_key=KEY, base_url=f"{BASE_URL}/v1")


def stream(query: str, *, stop: bool = False) -> dict[str, Any]:
    answer, stopped = "", None
    names: list[str] = []
    event: dict[str, Any] = {}
    for frame in client.chat_message(query, USER, stream=True):
        event = json.loads(frame.data)
        names.append(event["event"])
        answer += event.get("answer") or ""
        if stop and stopped is None:
            stopped = client.stop_chat_completion(event["task_id"], USER)
    return {**event, "answer": answer, "events": names, "result": stopped and stopped["result"]}


def combined(query: str) -> dict[str, Any]:
    """The client puts the stream together itself, and remembers the user's conversation."""
    told: dict[str, Any] = client.chat_completion_combined(query, USER)
    return told


def refusal(told: dict[str, Any]) -> dict[str, Any]:
    return {**told, "http_status": told["status"]}


def delete(conversation: str) -> str:
    try:
        return str(client.delete_conversation(conversation, USER))
    except requests.exceptions.JSONDecodeError:
        # It wants JSON, of which a 204 has none.
        return ""


streamed = combined("Hello")
conversation, message = streamed["conversation_id"], streamed["message_id"]
spoken, _ = client.text_to_audio(text="Hello", user=USER)
report = {
    "streamed": streamed,
    "recalled": combined("What did I say?"),
    "unicode": combined("Unicode"),
    "thought": combined("Think"),
    "blocking": client.chat_message("Hello again", USER),
    "broken": stream("Break"),
    "stopped": stream("Stop me", stop=True),
    # It sends forms as if they were JSON, which no server could read.
    "uploaded": refusal(client.upload_file(("note.txt", b"A note."), USER)),
    "heard": refusal(client.audio_to_text(("sound.mp3", b"\xff\xfb"), USER)),
    "spoken": refusal(json.loads(spoken)),
    "rated": client.get_message_feedback(message, "like", USER),
    "renamed": client.rename_conversation(conversation, "All about hello", USER),
    "suggested": client.get_suggested_questions(message, USER),
    "conversations": client.get_conversations(USER, limit=2),
    "messages": client.get_conversation_messages(conversation, USER),
    "parameters": client.get_app_parameters(USER),
    "meta": client.get_app_meta(USER),
    "unrated": client.get_message_feedback(message, None, USER),
    "named": client.rename_conversation(conversation, None, USER, auto_generate=True),
    "bad_key": refusal(DifyClient("app-wrong", f"{BASE_URL}/v1").chat_message("Hello", USER)),
    "no_query": refusal(client.chat_message("", USER)),
    "no_conversation": refusal(client.chat_message("Hello", USER, conversation_id=NOTHING)),
    "rate_limit": refusal(client.chat_message("Rate limit", USER)),
    "deleted": delete(conversation),
    "gone": refusal(client.get_conversation_messages(conversation, USER)),
}
json.dump(report, sys.stdout)
