"""What commands say that look for faults: one line per point, and an exit code."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import typer

from agent_gateway.cli.values import printable

FAULTS: Final = 1
"""The exit code when something is wrong."""


class Finding(NamedTuple):
    """What was found about one point."""

    point: str
    ok: bool
    said: str
    """What is there, or what is wrong and what to do about it."""


def tell(findings: Iterable[Finding]) -> None:
    """Print each finding as soon as it is made. Exits with FAULTS when one is no good."""
    wrong = 0
    for point, ok, said in findings:
        wrong += not ok
        print(f"{point + ':':<13}{'ok' if ok else 'WRONG':<6} {printable(said)}".rstrip(), flush=True)
    if wrong:
        raise typer.Exit(FAULTS)
