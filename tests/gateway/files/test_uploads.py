"""Uploads and the way back: streamed in and out, named safely, never run by a browser."""

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil  # pyrefly: ignore[untyped-import]
import pytest

from agent_gateway.apps.config import FileUploadConfig, default_app
from agent_gateway.routes.http.tickets import FileTickets
from tests.support.chat import Chat, forged, refused
from tests.support.files import PNG, preview, upload
from tests.support.gateway_server import API_KEY, SECRET_KEY, GatewayServer, wait_until
from tests.support.json_type import Json
from tests.support.rows import add_app, stored_files

MB = 1024 * 1024


def upload_named(chat: Chat, written: str) -> httpx.Response:
    """Upload a file whose name is written like this in the head of its part."""
    head = f'form-data; name="file"; {written}'.encode()
    body = (
        b'--b\r\nContent-Disposition: form-data; name="user"\r\n\r\n' + chat.user.encode() + b"\r\n"
        b"--b\r\nContent-Disposition: " + head + b"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    return chat.client.post("/files/upload", content=body, headers=kind)


def folder(server: GatewayServer) -> set[Path]:
    """All that is in the file store, half-written objects included."""
    root = server.settings.data_dir / "files"
    return {path for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def nothing_left(server: GatewayServer) -> Iterator[None]:
    """After the test, the file store and its table are as before."""
    url = server.settings.resolved_database_url()
    before = folder(server), stored_files(url)
    yield
    wait_until(lambda: folder(server) == before[0])
    assert stored_files(url) == before[1]


def test_an_uploaded_file_is_downloaded_unchanged(chat: Chat, server: GatewayServer) -> None:
    file = upload(chat)
    assert file == {
        "id": file["id"],
        "name": "cat.png",
        "size": len(PNG),
        "extension": "png",
        "mime_type": "image/png",
        "created_by": file["created_by"],
        "created_at": file["created_at"],
        "preview_url": None,
        "source_url": file["source_url"],
        "original_url": None,
        "user_id": None,
        "tenant_id": None,
        "conversation_id": None,
        "file_key": None,
        "reference": None,
    }
    assert isinstance(file["created_at"], int)
    shown = preview(chat, file["id"])
    assert shown.status_code == 200
    assert shown.content == PNG
    assert shown.headers["content-type"] == "image/png"
    assert shown.headers["content-length"] == str(len(PNG))
    assert shown.headers["content-disposition"].startswith("inline;")
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert shown.headers["content-security-policy"].startswith("default-src 'none';")
    assert shown.headers["content-security-policy"].endswith("; sandbox")
    saved = preview(chat, file["id"], as_attachment="true")
    assert saved.headers["content-disposition"].startswith('attachment; filename="cat.png"')
    assert (
        chat.client.get(f"/v1/files/{file['id'].upper()}/preview", params={"user": chat.user}).content == PNG
    )


def test_uploads_and_messages_of_a_user_share_one_end_user(chat: Chat) -> None:
    first = upload(chat)
    chat.blocking()
    assert upload(chat)["created_by"] == first["created_by"]


@pytest.mark.parametrize(
    ("wanted", "status", "span"),
    [
        ("bytes=0-9", 206, (0, 10)),
        ("bytes=250-", 206, (250, len(PNG))),
        ("bytes=-5", 206, (len(PNG) - 5, len(PNG))),
        ("bytes=10-99999", 206, (10, len(PNG))),
        ("bytes=5-2", 200, (0, len(PNG))),
        ("bytes=0-1,4-5", 200, (0, len(PNG))),
        ("lines=0-1", 200, (0, len(PNG))),
    ],
)
def test_a_range_of_a_file_is_served(chat: Chat, wanted: str, status: int, span: tuple[int, int]) -> None:
    file = upload(chat)
    response = chat.client.get(
        f"/files/{file['id']}/preview", params={"user": chat.user}, headers={"Range": wanted}
    )
    assert response.status_code == status
    assert response.content == PNG[span[0] : span[1]]
    if status == 206:
        assert response.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/{len(PNG)}"


@pytest.mark.parametrize("wanted", ["bytes=99999-", "bytes=99999-100000", "bytes=264-", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(chat: Chat, wanted: str) -> None:
    url = f"/files/{upload(chat)['id']}/preview?user={chat.user}"
    response = chat.client.get(url, headers={"Range": wanted})
    refused(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(PNG)}"


def test_a_range_of_an_empty_file_is_refused(chat: Chat) -> None:
    url = f"/files/{upload(chat, 'empty.txt', b'', 'text/plain')['id']}/preview?user={chat.user}"
    for wanted in ("bytes=0-", "bytes=-5"):
        refused(chat.client.get(url, headers={"Range": wanted}), 416, "range_not_satisfiable")


def test_if_range_with_another_version_serves_the_whole_file(chat: Chat) -> None:
    """`If-Range`: the range if the file is still that one, else the whole."""
    url = f"/files/{upload(chat)['id']}/preview?user={chat.user}"
    etag = chat.client.get(url).headers["etag"]
    for condition, status, size in (
        (etag, 206, 10),
        ('"another"', 200, len(PNG)),
        (f"W/{etag}", 200, len(PNG)),
    ):
        response = chat.client.get(url, headers={"Range": "bytes=0-9", "If-Range": condition})
        assert (response.status_code, len(response.content)) == (status, size)


def test_a_cached_file_is_revalidated_without_its_bytes(chat: Chat) -> None:
    """What it keeps is not shown once the file is gone."""
    url = f"/files/{upload(chat)['id']}/preview?user={chat.user}"
    first = chat.client.get(url)
    assert first.headers["cache-control"] == "private, no-cache"
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"another", {etag}', "*"):
        again = chat.client.get(url, headers={"If-None-Match": known, "Range": "bytes=0-9"})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert chat.client.get(url, headers={"If-None-Match": '"another"'}).content == PNG
    unknown = f"/files/{uuid4()}/preview?user={chat.user}"
    refused(chat.client.get(unknown, headers={"If-None-Match": "*"}), 404, "file_not_found")


def test_an_empty_file_is_stored_and_served(chat: Chat) -> None:
    file = upload(chat, "empty.txt", b"", "text/plain")
    assert file["size"] == 0
    shown = preview(chat, file["id"])
    assert (shown.status_code, shown.content) == (200, b"")


def test_a_file_of_another_user_answers_not_found(chat: Chat, server: GatewayServer) -> None:
    file = upload(chat)
    add_app(server.settings.resolved_database_url(), key := f"app-other-{chat.user}")
    unknown = preview(chat, str(uuid4()))
    refused(unknown, 404, "file_not_found")
    somebody = Chat(chat.client, f"not-{chat.user}")
    with server.client(key) as client:
        for answer in (
            preview(somebody, file["id"]),
            preview(Chat(client, chat.user), file["id"]),
            preview(chat, "not-a-uuid"),
            chat.client.get(f"/files/{file['id']}/preview"),
        ):
            assert (answer.status_code, answer.content) == (404, unknown.content)


@pytest.mark.parametrize(
    ("given", "kept", "extension"),
    [
        ("../../etc/pass.png", "pass.png", "png"),
        ("C:\\Users\\me\\My cat.PNG", "My cat.PNG", "png"),
        ("a\u202egnp.exe.txt", "a gnp.exe.txt", "txt"),
        ("  .. hidden .png", "hidden .png", "png"),
        ("Größe – 猫 😀.pdf", "Größe – 猫 😀.pdf", "pdf"),
        ('quo"te%.md', 'quo"te%.md', "md"),
        ("x" * 500 + ".jpeg", "x" * 195 + ".jpeg", "jpeg"),
    ],
)
def test_unsafe_file_names_are_cleaned(chat: Chat, given: str, kept: str, extension: str) -> None:
    file = upload(chat, given, b"x", "application/x-whatever")
    assert (file["name"], file["extension"]) == (kept, extension)
    shown = preview(chat, file["id"], as_attachment="1")
    assert shown.status_code == 200
    disposition = shown.headers["content-disposition"]
    assert disposition.isascii()
    assert not {"\r", "\n", "\x00"} & set(disposition)


@pytest.mark.parametrize(
    "written",
    [
        "filename=\"=?utf-8?B?5bygLnR4dA==?=\"; filename*=utf-8''%E5%BC%A0.txt",
        "filename*=UTF-8''%e5%bc%a0.txt; filename=x.png",
        "filename*=utf-8''%E5%BC%A0.txt",
        "filename*=utf-8'zh'%E5%BC%A0.txt",
        "FILENAME*=utf-8''%E5%BC%A0.txt",
        "filename*=gbk''%D5%C5.txt",
        "filename*=\"utf-8''%E5%BC%A0.txt\"",
        "filename*0*=utf-8''%E5%BC; filename*1*=%A0; filename*2=.txt",
        'filename="=?utf-8?B?5bygLnR4dA==?="',
        'filename="=?UTF-8?Q?=E5=BC=A0.txt?="',
        'filename="=?gbk?B?1cUudHh0?="',
        'filename="张.txt"',
        'filename="张.txt"; filename*=',
    ],
)
def test_an_encoded_file_name_is_decoded(chat: Chat, written: str) -> None:
    response = upload_named(chat, written)
    assert response.status_code == 201, response.text
    file = response.json()
    assert (file["name"], file["extension"], file["size"]) == ("张.txt", "txt", 5)
    assert "%E5%BC%A0.txt" in preview(chat, file["id"]).headers["content-disposition"]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ('filename="=?utf-8?B?no base64?="', None),
        ('filename="=?no-such?B?5bygLnR4dA==?=.txt"', None),
        ("filename*=no-such''%E5%BC%A0.txt", "张.txt"),
        ("filename*=utf-8''..%2F..%2Fa%00.txt", "a .txt"),
    ],
)
def test_a_malformed_file_name_is_no_error(chat: Chat, written: str, kept: str | None) -> None:
    response = upload_named(chat, written)
    assert response.status_code in (201, 415), response.text
    if kept is not None:
        assert response.json()["name"] == kept


def test_a_blob_is_named_by_its_content_type(chat: Chat) -> None:
    file = upload(chat, "blob", PNG, "image/png")
    assert (file["name"], file["extension"], file["mime_type"]) == ("blob.png", "png", "image/png")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("page.html", b"<script>alert(1)</script>"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
        ("feed.xml", b"<?xml version='1.0'?><x/>"),
    ],
)
def test_files_that_can_hold_scripts_are_served_as_attachments(chat: Chat, name: str, data: bytes) -> None:
    file = upload(chat, name, data, "image/png")
    for url in (f"/files/{file['id']}/preview?user={chat.user}", file["source_url"]):
        shown = chat.client.get(url)
        assert shown.content == data
        assert shown.headers["content-disposition"].startswith("attachment;")
        assert shown.headers["content-type"] == "application/octet-stream"
        assert shown.headers["x-content-type-options"] == "nosniff"


def test_a_text_that_says_it_is_an_image_is_served_as_text(chat: Chat) -> None:
    """What a browser takes it for follows from the extension, never from the client."""
    file = upload(chat, "notes.txt", b"<script>", "text/html")
    shown = preview(chat, file["id"])
    assert shown.headers["content-type"].startswith("text/plain")
    assert shown.headers["x-content-type-options"] == "nosniff"


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("files", "data", "code"),
    [
        ([("other", ("a.png", PNG))], {"user": "u"}, "no_file_uploaded"),
        ([("file", (None, "no file at all"))], {"user": "u"}, "no_file_uploaded"),
        ([("file", ("a.png", PNG)), ("file", ("b.png", PNG))], {"user": "u"}, "too_many_files"),
        ([("file", ("a.png", PNG)), ("more", ("b.png", PNG))], {"user": "u"}, "too_many_files"),
        ([("file", ("../..", PNG))], {"user": "u"}, "filename_not_exists_error"),
        ([("file", ("a.png", PNG))], {}, "invalid_param"),
        ([("file", ("a.png", PNG))], {"user": "  "}, "invalid_param"),
        ([("file", ("a.png", PNG))], {"user": "u" * 300}, "invalid_param"),
        ([("file", ("a.png", PNG))], {"user": "u", "more": "x" * 100_000}, "invalid_param"),
    ],
)
def test_a_wrong_upload_is_refused(chat: Chat, files: Any, data: Any, code: str) -> None:
    refused(chat.client.post("/files/upload", files=files, data=data), 400, code)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/json", b'{"user": "u"}', "no_file_uploaded"),
        ("multipart/form-data", b"x", "no_file_uploaded"),
        ("multipart/form-data; boundary=b", b"", "no_file_uploaded"),
        ("multipart/form-data; boundary=b", b"nonsense" * 100, "invalid_param"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nhalf',
            "invalid_param",
        ),
        (f"multipart/form-data; boundary={'b' * 300}", b"x", "invalid_param"),
    ],
)
def test_a_body_that_is_not_multipart_is_refused(
    chat: Chat, content_type: str, body: bytes, code: str
) -> None:
    response = chat.client.post("/files/upload", content=body, headers={"Content-Type": content_type})
    refused(response, 400, code)


@pytest.mark.usefixtures("nothing_left")
def test_a_type_the_app_does_not_accept_is_refused(chat: Chat, server: GatewayServer) -> None:
    form: Json = {"files": {"file": ("tool.exe", b"MZ")}, "data": {"user": chat.user}}
    refused(chat.client.post("/files/upload", **form), 415, "unsupported_file_type")
    only = FileUploadConfig(allowed_file_types=["custom"], allowed_file_extensions=[".exe"])
    url = server.settings.resolved_database_url()
    add_app(url, key := f"app-exe-{chat.user}", default_app().model_copy(update={"file_upload": only}))
    with server.client(key) as client:
        form = {"files": {"file": ("cat.png", PNG)}, "data": {"user": chat.user}}
        refused(client.post("/files/upload", **form), 415, "unsupported_file_type")
        assert client.get("/parameters").json()["file_upload"]["allowed_file_extensions"] == [".exe"]
    off = FileUploadConfig(enabled=False)
    add_app(url, key := f"app-off-{chat.user}", default_app().model_copy(update={"file_upload": off}))
    with server.client(key) as client:
        refused(client.post("/files/upload", **form), 415, "unsupported_file_type")
        assert client.get("/parameters").json()["file_upload"]["enabled"] is False
        sent = [{"type": "image", "transfer_method": "remote_url", "url": "https://x.test/a.png"}]
        refused(Chat(client, chat.user).post(files=sent), 400, "invalid_param")


class Body:
    """A multipart body of any size, made while it is sent, that counts what was taken of it."""

    def __init__(self, user: str, name: str, size: int) -> None:
        self.sent = 0
        self.digest = hashlib.sha256()
        self._user, self._name, self._size = user, name, size

    def __iter__(self) -> Iterator[bytes]:
        head = "--b\r\nContent-Disposition: form-data; "
        yield f'{head}name="file"; filename="{self._name}"\r\n\r\n'.encode()
        for number in range(self._size // MB):
            piece = number.to_bytes(4, "big") * (MB // 4)
            self.digest.update(piece)
            self.sent += len(piece)
            yield piece
        yield f'\r\n{head}name="user"\r\n\r\n{self._user}\r\n--b--\r\n'.encode()


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def test_a_large_file_is_streamed_not_held_in_memory(chat: Chat) -> None:
    """The gateway lives in this process: neither way does it grow by more than a part of the file."""
    body = Body(chat.user, "film.mp4", 60 * MB)
    process = psutil.Process()
    before = process.memory_info().rss
    response = chat.client.post("/files/upload", content=iter(body), headers=FORM)
    assert response.status_code == 201, response.text
    assert response.json()["size"] == 60 * MB
    digest, most = hashlib.sha256(), 0
    with chat.client.stream(
        "GET", f"/files/{response.json()['id']}/preview", params={"user": chat.user}
    ) as shown:
        for piece in shown.iter_raw(65536):
            digest.update(piece)
            most = max(most, process.memory_info().rss)
    assert digest.digest() == body.digest.digest()
    assert max(most, process.memory_info().rss) - before < 45 * MB


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("name", "size"), [("photo.png", 11 * MB), ("text.pdf", 16 * MB)], ids=["image", "document"]
)
def test_a_file_that_is_too_large_is_refused(chat: Chat, name: str, size: int) -> None:
    body = Body(chat.user, name, size)
    response = chat.client.post("/files/upload", content=iter(body), headers=FORM)
    assert "MB" in refused(response, 413, "file_too_large")["message"]


def test_other_bodies_keep_their_own_limit(chat: Chat) -> None:
    response = chat.client.post("/chat-messages", content=b" " * (9 * MB))
    refused(response, 413, "request_too_large")
    refused(
        chat.client.post("/chat-messages", content=b"x" * (9 * MB), headers=FORM), 413, "request_too_large"
    )


@pytest.mark.usefixtures("nothing_left")
def test_an_interrupted_upload_leaves_no_file(server: GatewayServer, user: str) -> None:
    """After megabytes, in the middle of the file: some of it is in the file store by then."""
    before = folder(server)
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            f"POST /files/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n"
            f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: {80 * MB}\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="file"; filename="film.mp4"\r\n\r\n'.encode()
        )
        connection.sendall(b"x" * (20 * MB))
        wait_until(lambda: folder(server) > before)


def test_a_signed_url_opens_exactly_one_file(chat: Chat, server: GatewayServer) -> None:
    file, other = upload(chat), upload(chat, "b.txt", b"other", "text/plain")
    with httpx.Client(base_url=server.url, trust_env=False) as anybody:
        url = file["source_url"]
        assert anybody.get(url).content == PNG
        assert anybody.get(f"/v1{url}").content == PNG
        path, _, ticket = url.partition("?ticket=")
        refused(anybody.get(path), 401, "unauthorized")
        refused(anybody.get(f"{path}?ticket={forged(ticket)}"), 401, "unauthorized")
        refused(anybody.get(f"{path}?ticket="), 401, "unauthorized")
        foreign = FileTickets(b"another secret", seconds=60, clock=time.time).url(file["id"])
        refused(anybody.get(foreign), 401, "unauthorized")
        expired = FileTickets(SECRET_KEY.encode(), seconds=-3 * 24 * 3600, clock=time.time).url(file["id"])
        refused(anybody.get(expired), 401, "unauthorized")
        # A ticket for one file is none for another, whoever's it is.
        unknown = anybody.get(f"/files/{uuid4()}/download?ticket={ticket}")
        refused(unknown, 404, "file_not_found")
        assert anybody.get(f"/files/{other['id']}/download?ticket={ticket}").content == unknown.content
        nowhere = FileTickets(SECRET_KEY.encode(), seconds=60, clock=time.time).url(str(uuid4()))
        assert anybody.get(nowhere).content == unknown.content


def test_a_ticket_for_events_opens_no_file(chat: Chat, server: GatewayServer) -> None:
    file = upload(chat)
    events_url = chat.background()["events_url"]
    ticket = events_url.partition("?ticket=")[2]
    refused(chat.client.get(f"/files/{file['id']}/download?ticket={ticket}"), 401, "unauthorized")


def test_a_file_missing_from_the_store_answers_an_error(chat: Chat, server: GatewayServer) -> None:
    """Somebody emptied the bucket: an error of the envelope, not half a reply."""
    file = upload(chat)
    [path] = [path for path in folder(server) if path.name == file["id"]]
    path.unlink()
    refused(preview(chat, file["id"]), 404, "file_not_found")


def test_an_upload_error_is_always_json(chat: Chat) -> None:
    response = chat.client.post("/files/upload", content=b"", headers={"Content-Type": "multipart/form-data"})
    assert json.loads(response.content)["code"] == "no_file_uploaded"
