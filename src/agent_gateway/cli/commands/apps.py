"""`agent-gateway app`: publish and manage apps."""

from pathlib import Path
from typing import Annotated

import typer

from agent_gateway.cli.commands.arguments import Slug

commands = typer.Typer(help="Publish and manage apps.", no_args_is_help=True)


@commands.command()
def apply(
    file: Annotated[Path, typer.Argument(help="App file (YAML); see docs/app-file.md.", show_default=False)],
) -> None:
    """Create or update the app of a file. A change makes a new version."""
    from agent_gateway.cli import apps

    apps.apply(file)


@commands.command("list")
def list_apps() -> None:
    """List all apps."""
    from agent_gateway.cli import apps

    apps.list_apps()


@commands.command()
def show(slug: Slug) -> None:
    """Show an app, its counts and its limits."""
    from agent_gateway.cli import apps

    apps.show(slug)


@commands.command()
def export(slug: Slug) -> None:
    """Print the current version of an app as an app file for `app apply`."""
    from agent_gateway.cli import apps

    apps.export(slug)


@commands.command()
def delete(
    slug: Slug,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an app. Its keys stop working, its turns stop, and its conversations are removed."""
    from agent_gateway.cli import apps

    apps.delete(slug, ask=not yes)
