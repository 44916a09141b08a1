"""Files of users: how they are uploaded and read, and how an agent sees them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx

from agent_gateway.domain.turns import Caller
from agent_gateway.filetypes import describe
from agent_gateway.store.files import FileStore, Upload
from tests.support.chat import Chat
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.json_type import Json

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def upload(chat: Chat, name: str = "cat.png", data: bytes = PNG, kind: str = "image/png") -> Json:
    """Upload a file; its JSON."""
    response = chat.client.post("/files/upload", files={"file": (name, data, kind)}, data={"user": chat.user})
    assert response.status_code == 201, response.text
    body: Json = response.json()
    return body


def preview(chat: Chat, file_id: str, **params: Any) -> httpx.Response:
    return chat.client.get(f"/files/{file_id}/preview", params={"user": chat.user, **params})


def local(upload_file_id: str, kind: str = "image") -> Json:
    return {"type": kind, "transfer_method": "local_file", "upload_file_id": upload_file_id}


def told(fake: ScriptedBackend) -> Any:
    """The user's text in the newest run."""
    layers = fake.requests[-1].body["composition"]["layers"]
    [said] = [layer["config"]["user"] for layer in layers if "user" in (layer.get("config") or {})]
    return said


async def stored_upload(store: FileStore, caller: Caller, data: bytes = b"bytes") -> Upload:
    """A file of this caller's, without HTTP."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    what = describe("a.txt")
    assert what is not None
    return await store.add(caller, what, await store.receive(chunks()))
