"""An MCP server of the tests, as a process: well behaved or odd, over stdio or over streamable HTTP.

COMMAND                  over stdio; the same with `--named NAME`
COMMAND --http TOKEN     on a free port, which it prints; requests need the header `X-Token: TOKEN`
COMMAND --mute           never says anything, and does not end when it is asked to
COMMAND --unlisted       never says which tools it has
COMMAND --talk           says what is not MCP
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import Tool
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SECRET = "words-of-a-server-4711"
"""What its errors and its log say: nothing of it may get into a log of the gateway."""
COMMAND = [sys.executable, "-P", __file__]
"""How to start it, wherever: it gets no PYTHONPATH."""
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf500f000"
    "4810180a8c3f5d90000000049454e44ae426082"
)


def say(what: object) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def echo(text: str) -> str:
    """Say the same again."""
    return f"echo {text}"


def pid() -> str:
    """The id of this process."""
    return f"pid {os.getpid()}"


def environment() -> str:
    """The names of the environment variables, and the value of SHOWN."""
    return f"{' '.join(sorted(os.environ))} SHOWN={os.environ.get('SHOWN')}"


async def hang() -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return ""


def block() -> str:
    """Never answer, and nothing else either."""
    time.sleep(3600)
    return ""


def die() -> str:
    """End the process."""
    os._exit(3)


def fail() -> str:
    """Fail."""
    sys.stderr.write(f"{SECRET}\n")
    raise ToolError(f"{SECRET}: no such city")


def much(size: int) -> str:
    """Return so many characters."""
    return "x" * size


def picture() -> Image:
    """Return a PNG image."""
    return Image(data=PIXEL, format="png")


def garbage() -> str:
    """Write a line that is not MCP, and answer."""
    say(f"{SECRET} is no JSON")
    return "after garbage"


TOOLS: list[Callable[..., Any]] = [echo, pid, environment, hang, block, die, fail, much, picture, garbage]


def made() -> MCPServer:
    """The server; making it sets the level of all logs."""
    server = MCPServer("odd", log_level="CRITICAL")
    for tool in TOOLS:
        server.add_tool(tool)
    return server


class Unlisted(MCPServer):
    """Never says which tools it has."""

    async def list_tools(self) -> list[Tool]:
        await asyncio.Event().wait()
        return []


def guarded(app: ASGIApp, token: str) -> ASGIApp:
    """The app for requests with this token."""

    async def check(scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope.get("headers", []))
        if scope["type"] == "http" and headers.get(b"x-token") != token.encode():
            await PlainTextResponse(SECRET, 401)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return check


def over_http(token: str) -> None:
    """Serve on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = guarded(made().streamable_http_app(), token)
    config: Any = uvicorn.Config(app, log_level="critical", lifespan="on")
    say(listener.getsockname()[1])
    uvicorn.Server(config).run([listener])


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] == "--named":
        made().run("stdio")
    elif arguments[0] == "--http":
        over_http(arguments[1])
    elif arguments[0] == "--unlisted":
        Unlisted("unlisted", log_level="CRITICAL").run("stdio")
    elif arguments[0] == "--mute":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
    else:
        while sys.stdin.readline():
            say(SECRET)


if __name__ == "__main__":
    main(sys.argv[1:])
