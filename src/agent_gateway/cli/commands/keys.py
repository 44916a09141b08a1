"""`agent-gateway key`: make, list and revoke API keys."""

from typing import Annotated

import typer

from agent_gateway.cli.commands.arguments import Slug

commands = typer.Typer(help="Make, list and revoke API keys. An app may have several.", no_args_is_help=True)


@commands.command()
def create(
    slug: Slug,
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    expires: Annotated[
        int | None, typer.Option(metavar="DAYS", min=1, max=36500, help="Days until the key expires.")
    ] = None,
) -> None:
    """Make an API key and print it. It is shown only once."""
    from agent_gateway.cli import keys

    keys.create(slug, label, expires)


@commands.command("list")
def list_keys(slug: Slug) -> None:
    """List the keys of an app, including keys that no longer work."""
    from agent_gateway.cli import keys

    keys.list_keys(slug)


@commands.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the key, as in `key list`.", show_default=False)
    ],
) -> None:
    """Revoke a key. It stops working everywhere within a minute."""
    from agent_gateway.cli import keys

    keys.revoke(key_id)
