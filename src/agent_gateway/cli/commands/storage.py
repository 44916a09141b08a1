"""Commands about what is stored: prune, backup, restore."""

from pathlib import Path
from typing import Annotated

import typer

Archive = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what is past its time, deleted or unused, and say how much. Gateways do this hourly."""
    from agent_gateway.cli import prune

    prune.prune(dry_run=dry_run)


def backup(file: Archive) -> None:
    """Write the SQLite database, its files and the secret key into one archive, also while it is served."""
    from agent_gateway.cli import backup

    backup.backup(file)


def restore(file: Archive) -> None:
    """Make the database, its files and the secret key from a backup. DATA_DIR must be empty."""
    from agent_gateway.cli import backup

    backup.restore(file)
