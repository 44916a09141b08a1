"""`agent-gateway turns`: which turns there are, what happened to one, and how to stop it."""

from typing import Annotated, Literal

import typer

from agent_gateway.cli.commands.arguments import AsJson, InApp, Limit, OfUser

commands = typer.Typer(help="List, explain and stop turns. Never shows texts.", no_args_is_help=True)

Task = Annotated[
    str, typer.Argument(metavar="TASK", help="Task id, as clients and logs have it.", show_default=False)
]


@commands.command("list")
def list_turns(
    state: Annotated[
        Literal["live", "queued", "stuck", "failed", "all"],
        typer.Option(
            help="live: a process drives them. queued: they wait for the turn before them. "
            "stuck: nobody drives them, or they are past their deadline."
        ),
    ] = "all",
    app: InApp = None,
    user: OfUser = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only turns that began since then: 30s, 15m, 2h or 7d.",
            show_default="1d with failed and all",
        ),
    ] = None,
    request_id: Annotated[str | None, typer.Option(help="The X-Request-Id of the request.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List turns, newest first."""
    from agent_gateway.cli import turns

    turns.list_turns(state, app, user, since, request_id, limit=limit, as_json=as_json)


@commands.command()
def show(task: Task, as_json: AsJson = False) -> None:
    """Show where a turn is, what happened to it, and why it failed."""
    from agent_gateway.cli import turns

    turns.show(task, as_json=as_json)


@commands.command()
def stop(task: Task) -> None:
    """Stop a turn, as its user could. What it has answered so far stays."""
    from agent_gateway.cli import turns

    turns.stop(task)
