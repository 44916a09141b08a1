"""`agent-gateway conversations` and `agent-gateway usage`: what apps and users use."""

from typing import Annotated

import typer

from agent_gateway.cli.commands.arguments import AsJson, InApp, Limit, OfUser

conversations = typer.Typer(help="List conversations, without what is said in them.", no_args_is_help=True)


@conversations.command("list")
def list_conversations(
    app: InApp = None,
    user: OfUser = None,
    limit: Limit = 50,
    names: Annotated[
        bool, typer.Option("--names", help="With their names, which are made of what users write.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List conversations, newest first, also deleted ones that are still stored."""
    from agent_gateway.cli import usage

    usage.list_conversations(app, user, limit=limit, names=names, as_json=as_json)


def usage(
    app: InApp = None,
    user: OfUser = None,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Only turns that began since then: 12h, 7d or 30d.")
    ] = "30d",
    by: Annotated[
        str, typer.Option(metavar="GROUPS", help="What to count by: app, user and day, comma separated.")
    ] = "app",
    as_json: AsJson = False,
) -> None:
    """Count turns by how they ended, their tokens and prices. Days are in UTC."""
    from agent_gateway.cli import usage

    usage.usage(app, user, since, by, as_json=as_json)
