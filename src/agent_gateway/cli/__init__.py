"""The command line. Here are serve, migrate, openapi and backend; app and key have modules of their own."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from pydantic import ValidationError

from agent_gateway.app import check, create_app, open_database
from agent_gateway.cli import apps, keys
from agent_gateway.cli.environment import read_settings
from agent_gateway.errors import ConfigError, StoreError
from agent_gateway.server.connection import Connection
from agent_gateway.settings import Settings
from agent_gateway.store.migrations import migrate as migrate_database

app = typer.Typer(
    name="agent-gateway",
    help="Serves conversational agents to web clients. Settings are AGENT_GATEWAY_* variables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(apps.commands, name="app")
app.add_typer(keys.commands, name="key")

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="HOST or 127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.", show_default="PORT or 8000")]


def main() -> None:
    """Run the command line; wrong settings are told in one line, without a traceback."""
    try:
        app()
    except ConfigError as error:
        _fail(str(error))
    except ValidationError as error:
        problems = "; ".join(
            f"AGENT_GATEWAY_{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        _fail(problems)
    except StoreError as error:
        _fail(f"the database can not be used: {error}")


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port; needs Postgres.")] = 1,
) -> None:
    """Serve the gateway. The embedded database is set up by itself."""
    settings = read_settings(host, port)
    check(settings)
    if workers > 1 and settings.embedded_database:
        raise ConfigError("--workers needs Postgres: an SQLite database belongs to one process.")
    uvicorn.run(
        "agent_gateway.app:app_from_environment",
        factory=True,
        workers=workers,
        host=settings.host,
        port=settings.port,
        http=Connection,
        loop="agent_gateway.server.listener:Loop",
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=65,
        # After the drain nothing is worth waiting for longer.
        timeout_graceful_shutdown=5,
        server_header=False,
    )


@app.command()
def migrate() -> None:
    """Bring the database schema up to date; any number of replicas may call it at once."""
    settings = read_settings()

    async def run() -> None:
        database = open_database(settings)
        try:
            await migrate_database(database)
        finally:
            await database.close()

    asyncio.run(run())
    typer.echo("The database schema is up to date.")


@app.command()
def openapi(
    output_dir: Annotated[Path, typer.Option(help="Folder to write openapi.json to.")] = Path("openapi"),
) -> None:
    """Write the OpenAPI document."""
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "openapi.json"
    path.write_text(json.dumps(create_app(Settings()).openapi(), indent=2) + "\n")
    typer.echo(str(path))


@app.command()
def backend(host: Host = None, port: Annotated[int, typer.Option(help="Port to listen on.")] = 9000) -> None:
    """Serve the embedded agent over HTTP, in the run protocol."""
    settings = read_settings(host, port)
    from agent_gateway.backend.embedded.server import serve_backend

    serve_backend(settings.host, port, settings.model, settings.backend_token.get_secret_value() or None)


def _fail(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    sys.exit(2)
