"""Lets the pages of some other origins call the API, errors and streams included."""

from typing import Final

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
EXPOSED: Final = ("X-Turn-Events-URL", "X-Task-Id", "X-Request-Id", "Retry-After")
"""Response headers that a page may read besides those it always may."""


def install(app: FastAPI, origins: frozenset[str]) -> None:
    """Wrap the whole app, outside of where unexpected errors are answered; nothing without origins.

    Without credentials: keys and tickets are sent by the page itself, never by the browser.
    """
    if not origins:
        return
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: CORSMiddleware(  # type: ignore[method-assign]
        build(),
        allow_origins=sorted(origins),
        allow_methods=METHODS,
        allow_headers=["*"],
        expose_headers=EXPOSED,
    )
