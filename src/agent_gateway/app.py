"""The ASGI application: its routers, its middleware and its life."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Depends, FastAPI

from agent_gateway import logs, metrics, tracing
from agent_gateway.apps.config import AppConfig
from agent_gateway.garbage import spare_loaded_objects
from agent_gateway.limits import DEFAULTS, Limits
from agent_gateway.openers import owned_database, prepare
from agent_gateway.routes import (
    app_info,
    audio,
    chat_messages,
    conversations,
    end_users,
    feedbacks,
    files,
    health,
    human_input,
    index,
    messages,
    sessions,
    turn_events,
    unsupported,
    variables,
)
from agent_gateway.routes import metrics as metrics_route
from agent_gateway.routes.dependencies.auth import check_key
from agent_gateway.routes.http import cors, docs_page, errors, openapi, playground_page
from agent_gateway.routes.http.middleware import HeadRequests, RequestBodies
from agent_gateway.routes.http.request_text import require_text
from agent_gateway.routes.http.shortcut import Shortcut
from agent_gateway.server import requests
from agent_gateway.settings import Settings
from agent_gateway.signals import draining_first
from agent_gateway.startup_checks import load_config
from agent_gateway.wiring import open_gateway

LEAVE_SECONDS: Final = 2.0
"""How long requests may continue after the drain."""


def app_from_environment() -> FastAPI:
    """The application with settings from the environment, for servers that call a factory."""
    settings = Settings.read()
    logs.configure(settings.log_format, settings.log_level)
    return create_app(settings)


def app_of_worker(settings: Settings, config: AppConfig) -> FastAPI:
    """The application of one of several processes, with the settings and the app that their parent read."""
    logs.configure(settings.log_format, settings.log_level)
    app = create_app(settings, config=config)
    spare_loaded_objects()
    return app


def create_app(
    settings: Settings,
    *,
    config: AppConfig | None = None,
    prepared: bool = False,
    limits: Limits = DEFAULTS,
) -> FastAPI:
    """The ASGI application. Nothing is opened before its lifespan starts.

    `config` is the default app's, if it was read already. With `prepared` the caller owns and has prepared
    the database. `limits` are bounds that no setting changes.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            # The first to be opened: what ends with the turns below has spans, too.
            await stack.enter_async_context(tracing.running())
            if not prepared:
                stack.enter_context(owned_database(settings))
                await prepare(settings)
            gateway = app.state.gateway = await open_gateway(
                settings, config or load_config(settings), limits, stack
            )

            async def leave(seconds: float) -> None:
                answered = await gateway.live.drain(seconds)
                # Requests that wait for the database would delay the server's exit.
                delay = LEAVE_SECONDS if answered else 0.0
                asyncio.get_running_loop().call_later(delay, gateway.database.abort)

            with draining_first(leave, settings.drain_seconds):
                yield

    app = FastAPI(
        title="Agent Gateway",
        version=version("agent-gateway"),
        lifespan=lifespan,
        docs_url=None,  # routes/http/docs_page.py has it
        redoc_url=None,
        # A redirect has no error envelope, and repeats the host that the request names.
        redirect_slashes=False,
        separate_input_output_schemas=False,
        # The framework's own telemetry would record URLs, tickets and rejected values.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    routes = APIRouter(dependencies=[Depends(require_text)])
    for module in (
        chat_messages,
        turn_events,
        conversations,
        messages,
        variables,
        feedbacks,
        files,
        human_input,
        app_info,
        end_users,
        audio,
        index,
        unsupported,
    ):
        routes.include_router(module.router)
    app.include_router(routes)
    app.include_router(routes, prefix="/v1", include_in_schema=False)
    app.include_router(health.router)
    if settings.shows_playground:
        app.include_router(sessions.router, dependencies=[Depends(require_text)])
        playground_page.install(app)
    if settings.metrics:
        app.include_router(metrics_route.router)
    else:
        metrics.switch_off()
    app.add_middleware(RequestBodies, most=settings.max_body_bytes, check_key=check_key)
    app.add_middleware(HeadRequests)
    app.add_middleware(
        Shortcut, routes=(chat_messages.SHORTCUT, turn_events.SHORTCUT), most=settings.max_body_bytes
    )
    cors.install(app, settings.cors_origins)
    requests.install(app)
    errors.install(app)
    docs_page.install(app)
    openapi.install(app, settings.public_url)
    return app
