"""Commands that serve, prepare or ask a gateway."""

from pathlib import Path
from typing import Annotated

import typer

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="HOST or 127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on.", show_default="PORT or 8000")]


def serve(
    host: Host = None,
    port: Port = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port; needs Postgres.")] = 1,
) -> None:
    """Serve the gateway. An SQLite database is made and migrated at start."""
    from agent_gateway.cli import serving

    serving.serve(host, port, workers)


def migrate() -> None:
    """Bring the database schema up to date. Any number of replicas may run this at once."""
    import asyncio

    from agent_gateway.cli.environment import read_settings
    from agent_gateway.openers import migrate_database

    asyncio.run(migrate_database(read_settings()))
    typer.echo("The database schema is up to date.")


def health(
    host: Annotated[
        str | None, typer.Option(help="Address to ask.", show_default="HOST or 127.0.0.1")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to ask.", show_default="PORT or 8000")] = None,
) -> None:
    """Ask the gateway of this machine whether it is alive. Exits with 0, or with 1 and the reason."""
    from agent_gateway.cli import health

    health.ask(host, port)


def check() -> None:
    """Try all that the settings name, without serving: database, backend, model, file store, app file.

    One line per point. Exits with 0, or with 1 when something is wrong. Changes nothing: a file that is
    written into the file store is deleted again.
    """
    from agent_gateway.cli import check

    check.check()


def doctor(
    url: Annotated[
        str, typer.Option(metavar="URL", help="Base URL, as clients have it.", show_default=False)
    ],
    key: Annotated[
        str,
        typer.Option(metavar="KEY", help="An API key.", envvar="AGENT_GATEWAY_API_KEY", show_default=False),
    ],
    user: Annotated[str, typer.Option(metavar="USER", help="In whose name turns are run.")] = "doctor",
    idle: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, max=3600, help="How long a silent stream is held open; 0: not."
        ),
    ] = 10.0,
) -> None:
    """Probe a deployment from outside, through all its proxies. This runs real turns.

    Address, certificate, clock, probes, key, first byte, buffering, resume, stop, idle streams: one line
    per point. Exits with 0, or with 1 when something is wrong.
    """
    from agent_gateway.cli import doctor

    doctor.doctor(url, key, user, idle)


def chat(
    query: Annotated[
        str | None,
        typer.Argument(
            help="One question, whose answer is printed; without it you are asked.", show_default=False
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Base URL of the gateway.", show_default="HOST and PORT of the settings"
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="An API key.", show_default="AGENT_GATEWAY_API_KEY"),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(
            metavar="APP",
            help="Talk to this app with a key that works for this chat only; needs the gateway's database.",
            show_default=False,
        ),
    ] = None,
    user: Annotated[str, typer.Option(metavar="USER", help="In whose name you talk.")] = "chat",
    conversation: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Go on with this conversation.", show_default=False),
    ] = None,
) -> None:
    """Talk to any gateway from this terminal, or ask each line of a pipe.

    Ctrl-C stops an answer, Ctrl-D leaves. Exits with 0, or with 1 when a message had no whole answer.
    """
    from agent_gateway.cli.chat import chat
    from agent_gateway.cli.chat.access import Wanted

    chat(query, Wanted(url, key, app), user, conversation)


def backend(
    host: Host = None,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9000,
    agent: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="Your own agent: a pydantic-ai Agent, or an async generator function.",
            show_default="the built-in agent",
        ),
    ] = None,
) -> None:
    """Serve an agent over HTTP, in the run protocol: the built-in one, or your own.

    The module of your own agent is looked for in the current folder first.
    """
    import asyncio

    from agent_gateway import openers, tracing
    from agent_gateway.cli.environment import read_settings
    from agent_gateway.cli.listen import bind
    from agent_gateway.domain.ids import new_id

    settings = openers.for_backend(read_settings(host, port))
    tracing.require()
    # Binds first, so that an unusable address is reported in one line.
    for one in bind(settings.host, port):
        one.close()
    from agent_gateway.backend.embedded.load_agent import load_agent
    from agent_gateway.backend.embedded.server import serve_backend

    agents = None if agent is None else load_agent(agent)
    with openers.owned_database(settings):
        asyncio.run(openers.prepare_backend(settings))
        database = openers.open_database(settings)
        serve_backend(
            settings.host,
            port,
            settings.model,
            settings.backend_token.get_secret_value() or None,
            agents,
            log=openers.open_run_log(settings, database, new_id()),
            storage=openers.using(database),
        )


def openapi(
    output_dir: Annotated[Path, typer.Option(help="Folder to write openapi.json to.")] = Path("openapi"),
) -> None:
    """Write the OpenAPI document."""
    import json

    from agent_gateway.app import create_app
    from agent_gateway.settings import Settings

    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "openapi.json"
    path.write_text(json.dumps(create_app(Settings.model_construct()).openapi(), indent=2) + "\n")
    typer.echo(str(path))
