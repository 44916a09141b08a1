"""The page for chatting at `/`: the files of `agent_gateway/web`, which load nothing from other hosts.

Its URLs are relative to the page, so that a path in front of the gateway is kept.
"""

from typing import Final

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles
from typing_extensions import override

ASSETS: Final = "playground"
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        # An image of another host would tell it what an answer says.
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        # Text becomes code nowhere but in the sanitizer.
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    # The same URL has the index for programs.
    "Vary": "Accept",
}


class _Files(StaticFiles):
    """The files of the page, which a browser asks for again after each release."""

    @override
    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


_files: Final = _Files(packages=[("agent_gateway", "web")])


def install(app: FastAPI) -> None:
    """Add the files that the page loads."""
    app.mount(f"/{ASSETS}", _files)


def page() -> Response:
    """The page itself."""
    return FileResponse(_path("index.html"), headers=HEADERS)


def icon() -> Response:
    """The icon of the gateway's pages."""
    return FileResponse(_path("icon.svg"), headers={"Cache-Control": "max-age=86400"})


def _path(name: str) -> str:
    return _files.lookup_path(name)[0]
