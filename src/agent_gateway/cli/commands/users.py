"""`agent-gateway user`: export and erase everything of one end user."""

from pathlib import Path
from typing import Annotated

import typer

from agent_gateway.cli.commands.arguments import Slug

commands = typer.Typer(help="Export and erase what is stored about one end user.", no_args_is_help=True)

User = Annotated[
    str,
    typer.Argument(metavar="USER", help="The user, as clients name them in `user`.", show_default=False),
]


@commands.command()
def export(
    slug: Slug,
    user: User,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="ZIP file to write.", show_default="export-APP-TIME.zip"),
    ] = None,
) -> None:
    """Write everything of an end user into a ZIP file: JSON for the rows, and the bytes of files."""
    from agent_gateway.cli import users

    users.export(slug, user, output)


@commands.command()
def erase(
    slug: Slug,
    user: User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long running turns may take to end.")
    ] = 30.0,
) -> None:
    """Delete everything of an end user for good, and print a receipt. Running turns are stopped."""
    from agent_gateway.cli import users

    users.erase(slug, user, wait, ask=not yes)
