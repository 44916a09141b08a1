"""What both clients need of httpx: addresses, timeouts, and what its errors mean."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from agent_gateway_client.calls import Call
from agent_gateway_client.openings import StreamRequest
from agent_gateway_client.resumption import Damaged

EARLY_END: Final = "The stream ended before its turn."
CONNECT_SECONDS: Final = 10.0
WRITE_SECONDS: Final = 30.0
LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""Each turn that is read holds a connection, and none waits for another."""
PROBES: Final = ("/healthz", "/readyz")


class Address:
    """Where a gateway is, and how requests to it look. Its representation has no key."""

    def __init__(self, url: str, api_key: str | None, silence_seconds: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(
                "the URL of a gateway is like https://example.com/path, without a user and a query"
            )
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ValueError("the API key has letters that no header carries")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._silence_seconds = silence_seconds

    def of(self, url: str) -> str:
        """The whole URL of a path; a whole URL as it is."""
        if not url.startswith("/"):
            return url
        # The probes are beside the API, not below `/v1`.
        base = self.url.removesuffix("/v1") if url in PROBES else self.url
        return f"{base}{url}"

    def streamed(self, request: StreamRequest) -> dict[str, Any]:
        """The arguments of `stream` for this request."""
        headers = {**request.headers, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        return {
            "method": request.method,
            "url": self.of(request.url),
            "params": request.params,
            "content": request.content,
            "headers": self._with_key(headers, request.with_key),
            "timeout": _timeout(self._silence_seconds),
        }

    def sent(self, call: Call[Any]) -> dict[str, Any]:
        """The arguments of `request` for this call."""
        headers: dict[str, str] = {}
        if call.idempotency_key is not None:
            headers["Idempotency-Key"] = call.idempotency_key
        arguments: dict[str, Any] = {"method": call.method, "url": self.of(call.url)}
        if call.params:
            arguments["params"] = call.params
        if (upload := call.upload) is not None:
            file = (upload.name, upload.content, upload.mime_type or "application/octet-stream")
            arguments |= {"data": call.body, "files": {"file": file}}
        elif (content := call.content()) is not None:
            headers["Content-Type"] = "application/json"
            arguments["content"] = content
        headers = self._with_key(headers, call.with_key)
        return {**arguments, "headers": headers, "timeout": _timeout(call.seconds)}

    def _with_key(self, headers: Mapping[str, str], with_key: bool) -> dict[str, str]:
        return {**headers, **self._headers} if with_key else dict(headers)


def _timeout(read_seconds: float) -> httpx.Timeout:
    return httpx.Timeout(read_seconds, connect=CONNECT_SECONDS, write=WRITE_SECONDS, pool=None)


def reason_of(error: httpx.RequestError | Damaged) -> str:
    """Why there was no answer, in one line and without a URL, which may hold a ticket."""
    if isinstance(error, httpx.ReadTimeout):
        return "The connection was silent for too long."
    if isinstance(error, httpx.ConnectTimeout):
        return "The connection could not be made in time."
    said = str(error).partition("\n")[0]
    if isinstance(error, httpx.ConnectError):
        return f"The connection could not be made: {said}"
    return f"The connection was cut: {said or type(error).__name__}"
