"""Arguments and options that several commands have."""

from typing import Annotated

import typer

Slug = Annotated[str, typer.Argument(metavar="APP", help="Slug of the app.", show_default=False)]
InApp = Annotated[
    str | None,
    typer.Option("--app", metavar="APP", help="Only of this app.", show_default=False),
]
OfUser = Annotated[
    str | None,
    typer.Option("--user", metavar="USER", help="Only of this user of the client.", show_default=False),
]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="The most lines.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
