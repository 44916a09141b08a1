"""PyPI `dify-client`: the official client, used as its README does. Prints what it got as JSON."""

import json
import sys
from typing import Any

from dify_client import ChatClient  # pyrefly: ignore[missing-import]

BASE_URL, KEY, USER = sys.argv[1:]


def client(key: str = KEY) -> Any:
    made = ChatClient(key)
    made.base_url = f"{BASE_URL}/v1"
    return made


def ask(query: str, **more: Any) -> Any:
    return client().create_chat_message(inputs={}, query=query, user=USER, **more)


def stream(query: str, **more: Any) -> dict[str, Any]:
    response = ask(query, response_mode="streaming", **more)
    response.raise_for_status()
    answer = ""
    names: list[str] = []
    event: dict[str, Any] = {}
    for line in response.iter_lines(decode_unicode=True):
        data = line.split("data:", 1)[-1]
        if data.strip():
            event = json.loads(data.strip())
            names.append(event["event"])
            answer += event.get("answer") or ""
    return {**event, "answer": answer, "events": names}


def refusal(response: Any) -> dict[str, Any]:
    return {**response.json(), "http_status": response.status_code}


def upload() -> Any:
    return client().file_upload(USER, {"file": ("note.txt", b"A note.", "text/plain")}).json()


streamed = stream("Hello")
blocking = ask("Hello again")
blocking.raise_for_status()
conversation, message = streamed["conversation_id"], streamed["message_id"]
uploaded = upload()
note = {"type": "document", "transfer_method": "local_file", "upload_file_id": uploaded["id"]}
report = {
    "streamed": streamed,
    "recalled": stream("What did I say?", conversation_id=conversation),
    "unicode": stream("Unicode"),
    "thought": stream("Think"),
    "blocking": blocking.json(),
    "broken": stream("Break"),
    "uploaded": uploaded,
    "shown": ask("Look", files=[note]).json(),
    "rated": client().message_feedback(message, "like", USER).json(),
    "renamed": client().rename_conversation(conversation, "All about hello", USER).json(),
    "conversations": client().get_conversations(USER, limit=2).json(),
    "messages": client().get_conversation_messages(USER, conversation).json(),
    "parameters": client().get_application_parameters(USER).json(),
    "unrated": client().message_feedback(message, None, USER).json(),
    "bad_key": refusal(client("app-wrong").create_chat_message({}, "Hello", USER, "streaming")),
    "no_query": refusal(ask("")),
    "no_conversation": refusal(ask("Hello", conversation_id="00000000-0000-4000-8000-000000000000")),
    "rate_limit": refusal(ask("Rate limit", response_mode="streaming")),
}
json.dump(report, sys.stdout)
