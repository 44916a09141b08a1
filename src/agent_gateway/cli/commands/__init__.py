"""All commands, with their arguments and options: what may be typed.

What a command does is in the modules beside this package. They are imported when it runs, so that `--help`,
`--version` and the completion of a shell do not wait for libraries that they do not need.
"""

from typing import Annotated

import typer

from agent_gateway.cli.commands import apps, keys, service, storage, turns, usage, users


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"agent-gateway {version('agent-gateway')}")
        raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Serves conversational agents to web clients. Settings are AGENT_GATEWAY_* variables."""


app = typer.Typer(
    name="agent-gateway",
    callback=options,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help: the boxes would cost half of the time.
    rich_markup_mode=None,
)
for command in (service.serve, service.migrate, service.check, service.doctor, service.chat, service.health):
    app.command()(command)
app.add_typer(apps.commands, name="app")
app.add_typer(keys.commands, name="key")
app.add_typer(turns.commands, name="turns")
app.add_typer(usage.conversations, name="conversations")
app.command()(usage.usage)
app.add_typer(users.commands, name="user")
for command in (storage.prune, storage.backup, storage.restore, service.backend, service.openapi):
    app.command()(command)
