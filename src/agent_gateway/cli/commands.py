"""All commands: serve, migrate, openapi and backend are here, the others in modules of their own."""

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from agent_gateway.app import create_app
from agent_gateway.cli import apps, keys, users
from agent_gateway.cli.backup import backup, restore
from agent_gateway.cli.environment import read_settings
from agent_gateway.cli.health import health
from agent_gateway.cli.listen import bind, listening_on
from agent_gateway.cli.prune import prune
from agent_gateway.cli.serving import serve_here, serve_in_workers
from agent_gateway.errors import ConfigError
from agent_gateway.openers import migrate_database
from agent_gateway.settings import Settings
from agent_gateway.startup_checks import validate_settings

app = typer.Typer(
    name="agent-gateway",
    help="Serves conversational agents to web clients. Settings are AGENT_GATEWAY_* variables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(apps.commands, name="app")
app.add_typer(keys.commands, name="key")
app.add_typer(users.commands, name="user")
app.command()(health)
app.command()(prune)
app.command("backup")(backup)
app.command("restore")(restore)

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="HOST or 127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.", show_default="PORT or 8000")]


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port; needs Postgres.")] = 1,
) -> None:
    """Serve the gateway. An SQLite database is made and migrated at start."""
    settings = read_settings(host, port)
    config = validate_settings(settings)
    if workers > 1 and settings.embedded_database:
        raise ConfigError("--workers needs Postgres: an SQLite database belongs to one process")
    # A process that cannot serve changes nothing.
    with ExitStack() as stack:
        sockets = bind(settings.host, settings.port)
        for one in sockets:
            stack.enter_context(one)
        host, port = listening_on(sockets)
        settings = settings.model_copy(update={"host": host, "port": port})
        if workers == 1:
            serve_here(settings, config, sockets)
        else:
            serve_in_workers(settings, config, sockets, workers)


@app.command()
def migrate() -> None:
    """Bring the database schema up to date. Any number of replicas may run this at once."""
    asyncio.run(migrate_database(read_settings()))
    typer.echo("The database schema is up to date.")


@app.command()
def openapi(
    output_dir: Annotated[Path, typer.Option(help="Folder to write openapi.json to.")] = Path("openapi"),
) -> None:
    """Write the OpenAPI document."""
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "openapi.json"
    path.write_text(json.dumps(create_app(Settings.model_construct()).openapi(), indent=2) + "\n")
    typer.echo(str(path))


@app.command()
def backend(host: Host = None, port: Annotated[int, typer.Option(help="Port to listen on.")] = 9000) -> None:
    """Serve the embedded agent over HTTP, in the run protocol."""
    settings = read_settings(host, port)
    # Binds first, so that an unusable address is reported in one line.
    for one in bind(settings.host, port):
        one.close()
    from agent_gateway.backend.embedded.server import serve_backend

    serve_backend(settings.host, port, settings.model, settings.backend_token.get_secret_value() or None)
