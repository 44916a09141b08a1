"""Where the backend is: the parts of its base URL, and the bytes of requests to it."""

import base64
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from agent_gateway.trace_context import trace_headers

_PORTS: Final = {"http": 80, "https": 443}
_PATH_CHARACTERS: Final = "!$%&'()*+,/:;=@~"
"""What a path may hold besides letters and digits; its own percent signs stay."""


class Address:
    """The address of a backend. `base_url` may have a path, and a name and password, which are sent."""

    def __init__(self, base_url: str, token: str | None) -> None:
        parts = urlsplit(base_url)
        self.tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        usual = _PORTS[parts.scheme]
        self.port = parts.port or usual
        shown = f"[{self.host}]" if ":" in self.host else self.host
        headers = {
            "Host": shown if self.port == usual else f"{shown}:{self.port}",
            "User-Agent": "agent-gateway",
            "Accept-Encoding": "identity",
        }
        if parts.username or parts.password:
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif token:
            headers["Authorization"] = f"Bearer {token}"
        self._prefix = quote(parts.path.rstrip("/"), safe=_PATH_CHARACTERS)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def get(self, path: str, accept: str) -> bytes:
        """The bytes of a GET request that is the last one on its connection."""
        return (
            f"GET {self._prefix}/{path} HTTP/1.1\r\n{self._headers}{trace_headers()}Accept: {accept}\r\n"
            "Connection: close\r\n\r\n"
        ).encode()

    def post(self, path: str, body: bytes) -> bytes:
        """The bytes of a POST request with a body of JSON."""
        return (
            f"POST {self._prefix}/{path} HTTP/1.1\r\n{self._headers}{trace_headers()}Accept: */*\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
