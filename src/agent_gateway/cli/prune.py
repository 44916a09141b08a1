"""What `agent-gateway prune` does: removes at once what every process removes hourly."""

import typer

from agent_gateway.cli.environment import with_database
from agent_gateway.cli.output import print_counts
from agent_gateway.openers import open_files
from agent_gateway.settings import Settings
from agent_gateway.store.db.database import Database
from agent_gateway.store.files import FileStore
from agent_gateway.store.removal import Counts
from agent_gateway.store.retention import Retention


def prune(*, dry_run: bool) -> None:
    """Remove what is past its time, deleted or unused, or only say what would go."""

    async def work(database: Database, settings: Settings) -> tuple[Counts, int]:
        retention = Retention(
            database,
            FileStore(database, open_files(settings)),
            settings.retention_days,
            settings.turn_timeout_seconds,
        )
        counts = await (retention.preview() if dry_run else retention.prune())
        return counts, await retention.waiting()

    counts, waiting = with_database(work)
    print_counts(counts)
    if waiting and not dry_run:
        typer.echo(
            f"note: {waiting} deleted conversations wait until ten minutes have passed, their turns have "
            "ended and a gateway has closed their sessions",
            err=True,
        )
