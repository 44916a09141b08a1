"""Arguments and options that several commands have."""

from typing import Annotated

import typer

Slug = Annotated[str, typer.Argument(metavar="APP", help="Slug of the app.", show_default=False)]
